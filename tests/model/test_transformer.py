"""What training counts on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from twgi.errors import ConfigError
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer, positions_in_documents

SIZES: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4,
         "num_kv_heads": 2, "max_positions": 64}  # fmt: skip


def fresh(seed: int = 0) -> Transformer:
    model = Transformer(TransformerConfig(**SIZES))
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def test_a_fresh_model_is_its_embedding() -> None:
    model, tokens_BT = fresh(), torch.arange(10)[None]
    assert torch.equal(model(tokens_BT), model.norm(model.embed(tokens_BT)))


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (fresh(seed).state_dict() for seed in (0, 0, 1))
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["embed.weight"].equal(other["embed.weight"])


def test_every_parameter_learns() -> None:
    model = fresh()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.05 + 0.05)
    model.logits(model(torch.arange(40).view(2, 20))).logsumexp(-1).mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_the_future_is_not_seen() -> None:
    model = fresh()
    torch.nn.init.normal_(model.blocks[0].get_parameter("attention.wo.weight"))
    one, other = torch.arange(20)[None], torch.arange(20)[None].clone()
    other[0, 12:] = 3
    assert model(one)[:, :12].equal(model(other)[:, :12])
    assert not model(one)[:, 12:].equal(model(other)[:, 12:])


def test_bfloat16_autocast_is_close() -> None:
    model, tokens_BT = fresh(), torch.arange(40).view(2, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loose = model.logits(model(tokens_BT))
    torch.testing.assert_close(loose.float(), model.logits(model(tokens_BT)), atol=0.05, rtol=0.05)


def test_positions_start_anew_in_each_document() -> None:
    documents_BT = torch.tensor([[3, 3, 3, 1, 1, 3], [0, 1, 1, 1, 1, 1]])
    assert positions_in_documents(documents_BT).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]]


@pytest.mark.parametrize("wrong", [{"num_heads": 3}, {"num_kv_heads": 3}, {"num_layers": 0}, {"rope_theta": -1.0}])
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TransformerConfig(**SIZES | wrong)


@pytest.mark.parametrize(
    "wrong", [{"resolution": 100}, {"base_channels": 48}, {"channel_multiplier": ()}, {"attn_type": "no"}]
)
def test_image_sizes_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        VQConfig(**wrong)
