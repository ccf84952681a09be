"""Laws of adapters: what is merged is what peft merges, and other kinds are refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.training.runs import VOCAB, save_model

from twgi.checkpoint.load import identify, load
from twgi.cli import execute
from twgi.errors import CheckpointError, RunError, TwgiError
from twgi.model.transformer import Transformer
from twgi.training.lora import CONFIG, IDLE, TENSORS, Lora, attach, load_adapter, merged, read_lora, save_adapter
from twgi.training.model import merge_folder

pytest.importorskip("peft")


def adapted(folder: Path, **lora: Any) -> tuple[Transformer, Any]:
    """A decoder with an adapter whose numbers are all random, and peft's handle."""
    decoder = load(save_model(folder), pack=False).model
    handle = attach(decoder, Lora(rank=3, **lora), VOCAB)
    for weight in handle.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    return decoder, handle


@pytest.mark.parametrize("lora", [{}, {"image_rows": False, "targets": ("wo", "w_down")}])
def test_every_merged_tensor_is_what_peft_merges(tmp_path: Path, lora: dict[str, Any]) -> None:
    names = load(save_model(tmp_path / "names")).model.state_dict().keys()
    decoder, handle = adapted(tmp_path / "start", **lora)
    ours = {name: merged(decoder, name, torch.Tensor.detach).clone() for name in names}
    theirs = handle.merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    assert all(value.equal(theirs[name]) for name, value in ours.items())


def test_an_adapter_of_another_kind_is_refused(tmp_path: Path) -> None:
    _, handle = adapted(tmp_path / "start")
    handle.save_pretrained(str(tmp_path / "adapter"))
    loaded = load(tmp_path / "start", pack=False)
    load_adapter(loaded, tmp_path / "adapter")
    for change in (
        {"use_dora": True}, {"lora_bias": True}, {"bias": "all"}, {"peft_type": "LOHA"}, {"rank_pattern": {"wo": 9}},
        {"megatron_config": {}, "megatron_core": "antigravity"}, {"init_lora_weights": "pissa"}, {"unheard_of": 1},
        {"r": "4"}, {"r": True}, {"r": 0}, {"r": 10**9}, {"lora_alpha": float("nan")}, {"lora_alpha": None},
        {"target_modules": "wo"}, {"target_modules": ["w"]}, {"trainable_token_indices": {"embed": [1]}},
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match="adapter"), changed(tmp_path / "adapter" / CONFIG, change):
            load_adapter(loaded, tmp_path / "adapter")


@contextmanager
def changed(config: Path, change: dict[str, Any]) -> Iterator[None]:
    """The file, with some keys changed as long as this lasts."""
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | change))
    yield
    config.write_text(before)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter, beside its model `start`."""
    folder = tmp_path_factory.mktemp("adapter")
    _, handle = adapted(folder / "start")
    weights = {name: weight for name, weight in handle.named_parameters() if weight.requires_grad}
    base = identify(folder / "start").sha256
    save_adapter(folder / "adapter", handle, weights, model="start", sha256=base)
    return folder / "adapter"


Tensors = dict[str, torch.Tensor]
SPOILED: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "no lora_A": (lambda t: {name: value for name, value in t.items() if "lora_A" not in name}, "8 tensor.*missing"),
    "no lora_B": (lambda t: {name: value for name, value in t.items() if "lora_B" not in name}, "8 tensor.*missing"),
    "no rows": (lambda t: {name: value for name, value in t.items() if "tokens" not in name}, "2 tensor.*missing"),
    "nothing": (lambda t: {}, "missing"),
    "more": (lambda t: t | {"base_model.model.blocks.0.mlp.w_up.lora_A.weight": torch.ones(3, 24)}, "not expected"),
    "other shape": (lambda t: {name: value[..., :-1].contiguous() for name, value in t.items()}, "makes it"),
    "not finite": (lambda t: {name: value / 0 for name, value in t.items()}, "no numbers"),
    "twice": (lambda t: t | {f"module.{name}": value.clone() for name, value in t.items()}, "twice"),
    "whole numbers": (lambda t: {name: value.to(torch.int8) for name, value in t.items()}, "stored as"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_an_adapter_is_checked_as_strictly_as_a_checkpoint(adapter: Path, tmp_path: Path, what: str) -> None:
    spoil, says = SPOILED[what]
    shutil.copytree(adapter, tmp_path / "spoiled")
    save_file(spoil(load_file(adapter / TENSORS)), tmp_path / "spoiled" / TENSORS)
    with pytest.raises(CheckpointError, match=says):
        merge_folder(str(adapter.parent / "start"), tmp_path / "spoiled", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_adapter_is_the_users_error(adapter: Path, tmp_path: Path, keep: int) -> None:
    shutil.copytree(adapter, tmp_path / "cut")
    (tmp_path / "cut" / TENSORS).write_bytes((adapter / TENSORS).read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=TENSORS):
        load_adapter(load(adapter.parent / "start", pack=False), tmp_path / "cut")


def wrapped(name: str) -> str:
    return name.replace("base_model.model.", "module.base_model.model._orig_mod.").replace(".weight", ".default.weight")


def test_tensors_saved_from_a_compiled_or_wrapped_model_are_the_same_adapter(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "wrapped")
    tensors = {wrapped(name): value for name, value in load_file(adapter / TENSORS).items()}
    save_file(tensors, tmp_path / "wrapped" / TENSORS)
    plain, other = (
        merge_folder(str(adapter.parent / "start"), folder, tmp_path / f"merged-{folder.name}")
        for folder in (adapter, tmp_path / "wrapped")
    )
    assert (plain / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_an_adapter_belongs_to_the_model_it_was_trained_on(adapter: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "start")
    weights = load_file(tmp_path / "start" / "model.safetensors")
    key = "model.vqmodel.quantize.embedding.weight"
    save_file(weights | {key: weights[key].flip(0).contiguous()}, tmp_path / "start" / "model.safetensors")
    with pytest.raises(CheckpointError, match="trained on another model: the hash of its model"):
        merge_folder(str(tmp_path / "start"), adapter, tmp_path / "merged")
    assert execute(["train", "merge", str(adapter), str(tmp_path / "merged"), "--model", "icons"]) == 2


def test_an_adapter_that_does_not_say_its_model_is_taken_with_a_word(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "merge", str(adapter), str(tmp_path / "merged"), "--model", str(adapter.parent / "start")]
    with changed(adapter / CONFIG, {"revision": None}):
        assert execute(command) == 0
    assert "does not say on which model it was trained" in capsys.readouterr().err


def test_an_adapter_that_changes_nothing_is_not_merged(tmp_path: Path) -> None:
    decoder = load(save_model(tmp_path / "start"), pack=False).model
    attach(decoder, Lora(rank=3, image_rows=False), VOCAB).save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(CheckpointError, match="changes nothing"):
        merge_folder(str(tmp_path / "start"), tmp_path / "adapter", tmp_path / "merged")


def test_a_merge_goes_into_a_new_folder_and_two_kinds_of_weights_are_not_read(adapter: Path, tmp_path: Path) -> None:
    start = adapter.parent / "start"
    shutil.copytree(start, tmp_path / "full")
    with pytest.raises(RunError, match="not empty"):
        merge_folder(str(start), adapter, tmp_path / "full")
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (tmp_path / "full" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="stand there together"):
        load(tmp_path / "full")


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
                    max_leaves=6)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*sorted(IDLE), "peft_type", "use_dora", "bias", "x"]), JSON, max_size=4))
def test_no_settings_of_an_adapter_break_more_than_itself(adapter: Path, change: dict[str, Any]) -> None:
    before = (adapter / CONFIG).read_text()
    try:
        (adapter / CONFIG).write_text(json.dumps(json.loads(before) | change))
        with suppress(TwgiError):
            assert read_lora(adapter).rank >= 1
    finally:
        (adapter / CONFIG).write_text(before)
