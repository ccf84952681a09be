"""Our decoder against Hugging Face's Chameleon: the same random weights, float32, to 1e-5."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.parity.oracle import TINY, TINY_VQ, chameleon, ours, states
from torch import Tensor

from twgi.decoding.cache import KVCache
from twgi.decoding.pages import Pages, Row
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer

pytest.importorskip("transformers", reason="the oracle of the parity tests is not installed")

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "gqa": {"num_kv_heads": 2},
    "swin_norm": {"swin_norm": True},
    "gqa_swin_norm": {"num_kv_heads": 1, "swin_norm": True, "rope_theta": 500.0, "rms_norm_eps": 1e-3},
}
Pair = tuple[Any, Transformer]


@pytest.fixture(scope="module", params=list(CASES.values()), ids=list(CASES))
def pair(request: pytest.FixtureRequest) -> Pair:
    config = TransformerConfig(**TINY | request.param)
    theirs = chameleon(config, VQConfig(**TINY_VQ))
    return theirs, ours(config, theirs)


def random_tokens(*shape: int) -> Tensor:
    return torch.randint(0, TINY["vocab_size"], shape, generator=torch.Generator().manual_seed(1))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def opened(model: Transformer, rows: list[Tensor]) -> tuple[KVCache, list[Row]]:
    """A cache with a row for each, nothing read yet."""
    pages, made = Pages(64 * len(rows)), [Row(row.tolist(), most=64) for row in rows]
    for row in made:
        pages.open(row)
    return KVCache(model.config, pages), made


def test_training_forward(pair: Pair) -> None:
    theirs, model = pair
    tokens_BT = random_tokens(3, 40)
    expected_BTD = states(theirs, tokens_BT).last_hidden_state
    assert_close(model(tokens_BT), expected_BTD)
    assert_close(model.logits(model(tokens_BT)), theirs.lm_head(expected_BTD))


def test_prefill_then_decode(pair: Pair) -> None:
    theirs, model = pair
    tokens = random_tokens(40)
    ours_, (row,), cache = *opened(model, [tokens]), None
    for piece in (tokens[:20], tokens[20:27], *tokens[27:].split(1)):
        expected = states(theirs, piece[None], past_key_values=cache, use_cache=True)
        cache = expected.past_key_values
        assert_close(model.forward_cached(piece, ours_.step([(row, len(piece))])), expected.last_hidden_state[0])


@pytest.mark.parametrize("packed", [False, True])
def test_ragged_batch(pair: Pair, packed: bool) -> None:
    theirs, model = pair
    model = ours(model.config, theirs).pack() if packed else model
    rows = [random_tokens(length) for length in (17, 1, 30, 8)]
    cache, slots = opened(model, rows)
    step = cache.step([(slot, len(row)) for slot, row in zip(slots, rows, strict=True)])
    hidden_ND = model.forward_cached(torch.cat(rows), step)
    for row, hidden in zip(rows, hidden_ND.split([len(row) for row in rows]), strict=True):
        assert_close(hidden, states(theirs, row[None]).last_hidden_state[0])
    step = cache.step([(slots[2], 1), (slots[1], 1), (slots[0], 1)])
    hidden_ND = model.forward_cached(torch.tensor([5, 6, 7]), step)
    for index, last, hidden in zip((2, 1, 0), (5, 6, 7), hidden_ND, strict=True):
        whole = torch.cat((rows[index], torch.tensor([last])))
        assert_close(hidden, states(theirs, whole[None]).last_hidden_state[0, -1])


def test_documents_in_one_row_are_as_rows_of_their_own(pair: Pair) -> None:
    theirs, model = pair
    first, second = random_tokens(2, 15)
    documents_BT = torch.tensor([[7] * 15 + [4] * 15])
    hidden_BTD = model(torch.cat((first, second))[None], documents_BT=documents_BT)
    assert_close(hidden_BTD[0, :15], states(theirs, first[None]).last_hidden_state[0])
    assert_close(hidden_BTD[0, 15:], states(theirs, second[None]).last_hidden_state[0])


def test_gradients(pair: Pair) -> None:
    theirs, model = pair
    tokens_BT = random_tokens(2, 12)
    model = ours(model.config, theirs).requires_grad_(True)
    model.logits(model(tokens_BT)).square().mean().backward()
    theirs.zero_grad()
    theirs.lm_head(theirs.model(input_ids=tokens_BT).last_hidden_state).square().mean().backward()
    pairs = (
        ("blocks.0.mlp.w_down.weight", "layers.0.mlp.down_proj.weight"),
        ("blocks.1.attention.wo.weight", "layers.1.self_attn.o_proj.weight"),
        ("blocks.0.attention_norm.weight", "layers.0.input_layernorm.weight"),
    )
    for mine, name in pairs:
        grad = model.get_parameter(mine).grad
        assert grad is not None
        assert_close(grad, theirs.model.get_parameter(name).grad)
