"""Laws of runs that make the icon world's models: they resume exactly."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.icons.tiny import VQ, VQ_YAML, PlainCodes, few_sentences

from twgi.checkpoint.load import load
from twgi.errors import RunError
from twgi.model.vqvae import VQModel
from twgi.training.icons import lm, vq
from twgi.training.icons.lm import RowMaker


def stopping(run: Callable[..., Any], stop_at: int | None) -> Callable[..., Any]:
    """`run`, but for step `stop_at`, where the user loses patience."""

    def batches(self: Any, step: int) -> Any:
        if step == stop_at:
            raise KeyboardInterrupt
        return run(self, step)

    return batches


def run_vq(folder: Path, out: str, stop_at: int | None = None, more: str = "") -> dict[str, torch.Tensor]:
    """The weights that four steps come to; none if the run is stopped on its way."""
    recipe = folder / f"{out}.yaml"
    recipe.write_text(f"out: {folder / out}\n{VQ_YAML}{more}")
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(vq.VQObjective, "batches", stopping(vq.VQObjective.batches, stop_at))
        return load_file(vq.run_vq(recipe) / vq.WEIGHTS)
    return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the run `vq` in it."""
    folder = tmp_path_factory.mktemp("icons")
    assert run_vq(folder, "vq")
    return folder


def test_a_stopped_image_tokenizer_run_resumes_to_the_same_weights(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not run_vq(folder, "stopped", stop_at=3)  # saved after two steps, when codes move
    assert "the same command goes on from the newest checkpoint" in capsys.readouterr().out
    whole, resumed = run_vq(folder, "vq"), run_vq(folder, "stopped")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    with pytest.raises(RunError, match="lr was"):
        run_vq(folder, "stopped", more="lr: 1.0e-4\n")


def test_ground_is_one_code_in_the_end() -> None:
    torch.manual_seed(0)
    model = VQModel(VQ)
    pixels, keys = vq.make_batch(0, -1, 4)
    ground = keys == vq.KEYS - 1
    before = model.encode(pixels)[ground].unique()
    vq.merge_ground_codes(model, seed=0, pictures=4)
    after = model.encode(pixels)[ground].unique()
    assert len(before) > len(after)
    assert len(model.quantize.embedding.weight[before].unique(dim=0)) == len(after)


def run_lm(folder: Path, out: str, stop_at: int | None = None) -> bytes:
    """The weights that four steps come to; none if the run is stopped on its way."""
    recipe = folder / f"{out}.yaml"
    recipe.write_text(
        f"out: {folder / out}\nvq: {folder / 'vq.yaml'}\nmerges: 100\nsteps: 4\nsave_every: 2\n"
        "log_every: 1\nbf16: false\n"
        "model: {hidden_size: 32, intermediate_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 2}\n"
        "mixture: {direct_rows: 2, chain_tokens: 300}\n"
    )
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        few_sentences(patch)
        patch.setattr(lm, "SceneCodes", PlainCodes)  # the real table takes a minute
        patch.setattr(RowMaker, "batches", stopping(RowMaker.batches, stop_at))
        return (lm.run_lm(recipe) / "model.safetensors").read_bytes()
    return b""


def test_a_stopped_language_model_run_resumes_to_the_same_weights(folder: Path) -> None:
    whole = run_lm(folder, "lm-whole")
    assert run_lm(folder, "lm-stopped", stop_at=3) == b""  # saved after two steps
    assert run_lm(folder, "lm-stopped") == whole
    assert load(folder / "lm-whole" / "model").tokenizer.image is not None


def test_a_resumed_run_reads_the_same_ids_even_if_the_world_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_sentences(monkeypatch)
    first = lm.text_tokenizer(tmp_path, codes=32, merges=100, seed=0)
    monkeypatch.setattr(lm, "sentences", lambda count, seed: ["other words altogether"] * 10)
    again = lm.text_tokenizer(tmp_path, codes=32, merges=100, seed=0)
    assert again.names == first.names
