"""Memory: weights go to their place piece by piece, and what cannot fit is refused before it is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import save_tiny
from torch import Tensor

from twgi.checkpoint import load as loading
from twgi.checkpoint.layout import open_checkpoint
from twgi.checkpoint.load import describe, load, load_reader
from twgi.checkpoint.memory import known_device, kv_bytes_per_token, sizes, weight_bytes
from twgi.checkpoint.tensors import SafetensorsFiles
from twgi.errors import ConfigError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny")


def test_the_count_is_that_of_the_weights(tiny: Path) -> None:
    loaded, counts = load(tiny), sizes(open_checkpoint(tiny))
    assert loaded.tokenizer.image is not None
    assert counts.language == sum(weight.numel() for weight in loaded.model.parameters())
    assert counts.image == sum(weight.numel() for weight in loaded.tokenizer.image.vq.parameters())
    assert counts.head == loaded.model.head.weight.numel()
    half, whole = (weight_bytes(counts, dtype, int8=False) for dtype in (torch.bfloat16, torch.float32))
    assert (half, whole) == (2 * counts.language + 4 * counts.image, 4 * counts.language + 4 * counts.image)
    assert weight_bytes(counts, torch.bfloat16, int8=True) == half - counts.body
    config = loaded.model.config
    assert (
        kv_bytes_per_token(config, torch.float32) == 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4
    )


def test_too_little_memory_is_refused_before_anything_is_read(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twgi.checkpoint.memory.free_memory", lambda device: 1000)
    monkeypatch.setattr(SafetensorsFiles, "read", lambda *_: pytest.fail("read"))
    with pytest.raises(ConfigError, match=r"need .* GB.* and 0\.0 GB are free on cpu.* dtype bfloat16 or int8"):
        load(tiny)


def test_a_device_that_is_not_there_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        load(tiny, "cuda")
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        known_device("gpu")


def test_the_pieces_read_at_once_are_small(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, pieces = SafetensorsFiles.read, []

    def noted(self: SafetensorsFiles, names: Iterable[str]) -> dict[str, Tensor]:
        out = read(self, names)
        pieces.append(sum(t.numel() for name, t in out.items() if "vqmodel" not in name))
        return out

    monkeypatch.setattr(SafetensorsFiles, "read", noted)
    counts = sizes(open_checkpoint(tiny))
    load(tiny)
    assert sum(pieces) == counts.language
    assert max(pieces) <= max(counts.embedding, counts.head, counts.body // 2)


def test_progress_ends_at_all_bytes(tiny: Path) -> None:
    told: list[tuple[int, int]] = []
    load(tiny, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == 4 * sizes(open_checkpoint(tiny)).language


def test_the_tokenizer_alone_reads_no_language_model(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_read_decoder", lambda *_: pytest.fail("the language model was read"))
    assert load_reader(tiny).tokenizer.draws


@pytest.mark.parametrize(("dtype", "expected"), [(None, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_a_cpu_computes_in_float32_unless_asked(tiny: Path, dtype: Any, expected: torch.dtype) -> None:
    loaded = load(tiny, dtype=dtype)
    assert {weight.dtype for weight in loaded.model.parameters()} == {expected}
    assert loaded.tokenizer.image is not None
    assert {weight.dtype for weight in loaded.tokenizer.image.vq.parameters()} == {torch.float32}


def test_another_context_is_taken_and_a_wrong_one_refused(tiny: Path) -> None:
    assert load(tiny, context=1000).model.config.max_positions == 1000
    assert load(tiny, context=1000).model.cos.shape[0] == 1000
    with pytest.raises(ConfigError, match="context must be in"):
        load(tiny, context=0)


def test_a_description_counts_what_is_there(tiny: Path) -> None:
    told = describe(open_checkpoint(tiny))
    assert told["parameters"]["total"] == sum(
        told["parameters"][part] for part in ("body", "embedding", "head", "image")
    )
    assert told["sha256"] == load(tiny).sha256
    assert told["tokens"]["codes"] == 16


def test_int8_keeps_embedding_head_and_image_part(tiny: Path) -> None:
    pytest.importorskip("torchao", reason="the extra quant is not installed")
    whole, small = load(tiny), load(tiny, int8=True)
    kept = ("embed.weight", "head.weight", "norm.weight")
    assert all(small.model.state_dict()[name].equal(whole.model.state_dict()[name]) for name in kept)
    for block in small.model.blocks:
        matrices = [module.weight for module in block.modules() if isinstance(module, torch.nn.Linear)]
        assert [type(weight.data).__name__ for weight in matrices] == ["Int8Tensor"] * 4
    tokens = torch.arange(40)[None]
    exact, near = (model.logits(model(tokens)) for model in (whole.model, small.model))
    error = (near - exact).norm() / exact.norm()
    assert 0 < error < 0.1


def test_int8_without_torchao_names_the_extra(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization", None)
    with pytest.raises(ConfigError, match=r"pip install 'twgi\[quant\]'"):
        load(tiny, int8=True)
