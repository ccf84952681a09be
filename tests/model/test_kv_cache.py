"""The laws of the cache that the engine counts on."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch
from torch import Tensor

from twgi.model.config import TransformerConfig
from twgi.model.kv_cache import KVPool
from twgi.model.transformer import Transformer

SMALL = TransformerConfig(
    vocab_size=301, hidden_size=72, intermediate_size=100, num_layers=2, num_heads=6, num_kv_heads=2, max_positions=256
)
LARGER = TransformerConfig(
    vocab_size=2048, hidden_size=256, intermediate_size=768, num_layers=6, num_heads=4, num_kv_heads=4,
    max_positions=256,
)  # fmt: skip


@cache
def network(config: TransformerConfig) -> Transformer:
    """Random weights, not small: a wrong bit shows."""
    generator = torch.Generator().manual_seed(0)
    model = Transformer(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.08 + name.endswith("norm.weight"))
    return model.pack()


def random_rows(config: TransformerConfig, count: int, dice: random.Random) -> list[list[list[int]]]:
    """Rows, each cut into pieces: a prompt, single tokens, now and then several tokens at once."""
    rows = []
    for _ in range(count):
        lengths = [dice.choice((1, 2, 3, 5, 17, 40, 90)), *[1] * dice.randrange(8), dice.choice((1, 1, 7)), 1]
        rows.append([[dice.randrange(config.vocab_size) for _ in range(length)] for length in lengths])
    return rows


def advance(model: Transformer, pool: KVPool, pieces: list[tuple[int, list[int]]]) -> list[Tensor]:
    """One step; the logits of each piece."""
    step = pool.step([(row, len(tokens)) for row, tokens in pieces])
    hidden_ND = model.forward_cached(torch.tensor([token for _, tokens in pieces for token in tokens]), step)
    return list(model.logits(hidden_ND).split([len(tokens) for _, tokens in pieces]))


def alone(model: Transformer, row: list[list[int]]) -> Tensor:
    pool = KVPool(model.config, rows=1, max_len=256)
    slot = pool.alloc()
    return torch.cat([advance(model, pool, [(slot, tokens)])[0] for tokens in row])


def together(model: Transformer, rows: list[list[list[int]]], slots: int, dice: random.Random) -> list[Tensor]:
    """All rows through one pool, which of them take part in a step, and in which order, left to the dice."""
    pool = KVPool(model.config, rows=slots, max_len=256)
    slot_of: dict[int, int] = {}
    waiting, outputs = {i: list(row) for i, row in enumerate(rows)}, [[] for _ in rows]  # type: ignore[var-annotated]
    while waiting:
        able = [i for i in waiting if i in slot_of]
        able += [i for i in waiting if i not in slot_of][: pool.free_rows]
        chosen = dice.sample(able, dice.randint(1, len(able)))
        slot_of |= {i: pool.alloc() for i in chosen if i not in slot_of}
        logits = advance(model, pool, [(slot_of[i], waiting[i].pop(0)) for i in chosen])
        for i, logits_NV in zip(chosen, logits, strict=True):
            outputs[i].append(logits_NV)
            if not waiting[i]:
                del waiting[i]
                pool.free(slot_of.pop(i))
    return [torch.cat(pieces) for pieces in outputs]


@pytest.mark.parametrize(("config", "count"), [(SMALL, 40), (LARGER, 12)], ids=["small", "256x6"])
def test_a_row_does_not_depend_on_its_neighbours(config: TransformerConfig, count: int) -> None:
    model, dice = network(config), random.Random(0)
    rows = random_rows(config, count, dice)
    expected = [alone(model, row) for row in rows]
    for slots in (count, 5):
        for got, want in zip(together(model, rows, slots, dice), expected, strict=True):
            assert got.equal(want)


def test_logits_of_some_rows_are_those_of_all() -> None:
    model = network(LARGER)
    hidden_ND = torch.randn(70, LARGER.hidden_size, generator=torch.Generator().manual_seed(1))
    whole = model.logits(hidden_ND)
    for count in (1, 2, 3, 4, 5, 16, 33, 70):
        assert model.logits(hidden_ND[:count]).equal(whole[:count])


def test_decoding_agrees_with_reading_all_at_once() -> None:
    model, dice = network(SMALL), random.Random(0)
    for row in random_rows(SMALL, 10, dice):
        tokens = torch.tensor([token for piece in row for token in piece])
        torch.testing.assert_close(alone(model, row), model.logits(model(tokens[None]))[0], atol=1e-5, rtol=1e-5)


def test_a_fork_goes_on_as_the_row_would_have() -> None:
    model, pool = network(SMALL), KVPool(SMALL, rows=3, max_len=64)
    row = pool.alloc()
    advance(model, pool, [(row, list(range(20)))])
    copy, part = pool.fork(row), pool.fork(row, 10)
    assert [pool.length(slot) for slot in (row, copy, part)] == [20, 20, 10]
    advance(model, pool, [(row, [3, 1, 4])])
    assert advance(model, pool, [(copy, [3, 1, 4]), (part, [5])])[0].equal(
        alone(model, [list(range(20)), [3, 1, 4]])[20:]
    )
    torch.testing.assert_close(advance(model, pool, [(part, [6])])[0], alone(model, [[*range(10), 5, 6]])[-1:])


def test_a_truncated_row_forgets() -> None:
    model, pool = network(SMALL), KVPool(SMALL, rows=1, max_len=64)
    row = pool.alloc()
    advance(model, pool, [(row, list(range(20)))])
    advance(model, pool, [(row, [7, 8, 9])])
    pool.truncate(row, 20)
    assert pool.length(row) == 20
    assert advance(model, pool, [(row, [1, 2])])[0].equal(alone(model, [list(range(20)), [1, 2]])[20:])


def test_a_freed_row_starts_empty() -> None:
    model, pool = network(SMALL), KVPool(SMALL, rows=1, max_len=64)
    row = pool.alloc()
    advance(model, pool, [(row, [9] * 30)])
    assert pool.free_rows == 0
    pool.free(row)
    assert pool.free_rows == 1
    assert advance(model, pool, [(pool.alloc(), [4, 5])])[0].equal(alone(model, [[4, 5]]))


def test_a_failed_pass_appends_nothing() -> None:
    model, pool = network(SMALL), KVPool(SMALL, rows=1, max_len=64)
    row = pool.alloc()
    with pytest.raises(IndexError):
        advance(model, pool, [(row, [SMALL.vocab_size])])
    assert pool.length(row) == 0


def test_a_step_beyond_its_room_is_a_bug() -> None:
    pool = KVPool(SMALL, rows=1, max_len=8)
    row = pool.alloc()
    for pieces in ([(row, 9)], [(row, 0)], [(row, 1), (row, 1)], []):
        with pytest.raises(AssertionError):
            pool.step(pieces)
    with pytest.raises(AssertionError):
        pool.alloc()
