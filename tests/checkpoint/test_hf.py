"""The tables of the Hugging Face layout."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
import torch
from tests.parity.oracle import TINY, TINY_VQ

from twgi.checkpoint import hf
from twgi.errors import TwgiError
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer

CONFIG = TransformerConfig(**TINY | {"num_kv_heads": 2, "swin_norm": True, "rope_theta": 500.0})
VQ_CONFIG = VQConfig(**TINY_VQ | {"attn_resolutions": (8,)})


def written() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(json.dumps(hf.write_config(CONFIG, VQ_CONFIG)))
    return raw


def test_a_config_survives_the_way_out_and_back() -> None:
    assert hf.read_config(written()) == (CONFIG, VQ_CONFIG)


def test_the_rotary_settings_of_transformers_5_are_understood() -> None:
    raw = written()
    del raw["rope_theta"], raw["rope_scaling"]
    raw["rope_parameters"] = {"rope_theta": 500.0, "rope_type": "default"}
    assert hf.read_config(raw)[0] == CONFIG


def test_what_is_left_out_is_what_hugging_face_takes_for_it() -> None:
    config, vq = hf.read_config({"model_type": "chameleon"})
    assert (config.hidden_size, config.num_layers, config.vocab_size) == (4096, 32, 65536)
    assert (vq.resolution, vq.num_embeddings, vq.tokens_per_image) == (512, 8192, 1024)


def test_every_tensor_has_one_place_and_splits_into_it() -> None:
    model = Transformer(CONFIG)
    ours = model.state_dict()
    theirs = {part: tensor for name in ours for part, tensor in hf.split(CONFIG, name, ours[name]).items()}
    assert hf.names(CONFIG).keys() == ours.keys()
    assert {name: tuple(tensor.shape) for name, tensor in theirs.items()} == hf.shapes(CONFIG)
    for name, parts in hf.names(CONFIG).items():
        assert torch.cat([theirs[part] for part in parts]).equal(ours[name])


@pytest.mark.parametrize("wrong", [None, "x", "32", [], [{}], {}, {"a": 1}, -1, 0, 10**12, 0.5, float("inf"), True])
def test_a_config_of_the_wrong_kind_never_breaks_the_program(wrong: Any) -> None:
    for group in ((), ("vq_config",)):
        for key in written() if not group else written()["vq_config"]:
            raw = copy.deepcopy(written())
            place = raw["vq_config"] if group else raw
            place[key] = wrong
            with suppress(TwgiError):
                config, vq = hf.read_config(raw)
                assert config.head_dim * config.num_heads == config.hidden_size
                assert vq.tokens_per_image > 0
