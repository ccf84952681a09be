"""Laws of adapters: what is merged is what peft merges, and other kinds are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.runs import VOCAB, save_model

from twgi.checkpoint.load import load
from twgi.errors import CheckpointError
from twgi.model.transformer import Transformer
from twgi.training.lora import Lora, attach, load_adapter, merged

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
    fresh = load(tmp_path / "start", pack=False).model
    load_adapter(fresh, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    for change in ({"use_dora": True}, {"lora_bias": True}, {"bias": "all"}, {"peft_type": "LOHA"}):
        before = config.read_text()
        config.write_text(json.dumps(json.loads(before) | change))
        with pytest.raises(CheckpointError, match="adapter"):
            load_adapter(load(tmp_path / "start", pack=False).model, tmp_path / "adapter")
        config.write_text(before)
