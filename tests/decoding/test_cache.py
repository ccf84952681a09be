"""The laws of the cache that the engine counts on."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch
from torch import Tensor

from twgi.decoding import cache as cache_module
from twgi.decoding.cache import KVCache
from twgi.decoding.pages import Pages, Row
from twgi.model.config import TransformerConfig
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


class World:
    """A model and a cache; rows are read piece by piece."""

    def __init__(self, config: TransformerConfig, tokens: int, page: int = 16) -> None:
        self.model, self.pages = network(config), Pages(tokens, page)
        self.cache = KVCache(config, self.pages)

    def open(self, ids: list[int], most: int = 200) -> Row:
        row = Row(list(ids), most)
        copy = self.pages.open(row)
        if copy is not None:
            self.cache.copy(copy)
        return row

    def read(self, pieces: list[tuple[Row, int]]) -> list[Tensor]:
        """One step over the next ids of rows; the logits of each."""
        tokens = [token for row, count in pieces for token in row.ids[row.read : row.read + count]]
        hidden_ND = self.model.forward_cached(torch.tensor(tokens), self.cache.step(pieces))
        return list(self.model.logits(hidden_ND).split([count for _, count in pieces]))


def random_rows(config: TransformerConfig, count: int, dice: random.Random) -> list[tuple[list[int], list[int]]]:
    """(ids, lengths of the pieces they are read in): a prompt, single tokens, now and then several tokens at once.
    Many begin like others."""
    rows: list[tuple[list[int], list[int]]] = []
    for _ in range(count):
        cuts = [dice.choice((1, 2, 3, 5, 17, 40, 80)), *[1] * dice.randrange(8), dice.choice((1, 1, 7)), 1]
        like = dice.choice(rows)[0] if rows and dice.random() < 0.5 else []
        ids = like[: dice.randrange(sum(cuts))] if like else []
        rows.append((ids + [dice.randrange(config.vocab_size) for _ in range(sum(cuts) - len(ids))], cuts))
    return rows


def alone(config: TransformerConfig, ids: list[int], cuts: list[int] | None = None) -> Tensor:
    """The logits of a row by itself, read in pieces of these lengths, or else token by token."""
    world = World(config, 256)
    row = world.open(ids)
    return torch.cat([world.read([(row, count)])[0] for count in cuts or [1] * len(ids)])


def together(world: World, rows: list[tuple[list[int], list[int]]], dice: random.Random) -> list[Tensor]:
    """All rows through one cache, which of them take part in a step, and in which order, left to the dice; the logits
    of what each has read itself."""
    opened: dict[int, Row] = {}
    waiting, outputs = {i: list(cuts) for i, (_, cuts) in enumerate(rows)}, [[] for _ in rows]  # type: ignore[var-annotated]
    while waiting:
        room = world.pages.count - world.pages.in_use
        able = [i for i in waiting if i in opened]
        able += [i for i in waiting if i not in opened][: room // world.pages.pages_for(120)]
        chosen = dice.sample(able, dice.randint(1, len(able)))
        for i in [i for i in chosen if i not in opened]:
            opened[i] = world.open(rows[i][0], most=120)
            waiting[i] = [len(rows[i][0]) - opened[i].read] if opened[i].read else waiting[i]
        logits = world.read([(opened[i], waiting[i].pop(0)) for i in chosen])
        for i, logits_NV in zip(chosen, logits, strict=True):
            outputs[i].append(logits_NV)
            if not waiting[i]:
                del waiting[i]
                world.pages.close(opened.pop(i))
    return [torch.cat(pieces) for pieces in outputs]


@pytest.mark.parametrize(("config", "count"), [(SMALL, 30), (LARGER, 6)], ids=["small", "256x6"])
def test_a_row_does_not_depend_on_its_neighbours_nor_on_pieces_and_pages(config: TransformerConfig, count: int) -> None:
    dice = random.Random(0)
    rows = random_rows(config, count, dice)
    expected = [alone(config, ids) for ids, _ in rows]
    for tokens, page in ((count * 128, 16), (400, 16), (400, 4), (400, 1)):
        for got, want in zip(together(World(config, tokens, page), rows, dice), expected, strict=True):
            assert got.equal(want[-len(got) :])


@pytest.mark.parametrize("config", [SMALL, LARGER], ids=["small", "256x6"])
def test_many_new_tokens_compute_what_each_alone_does(config: TransformerConfig) -> None:
    dice = random.Random(0)
    ids = [dice.randrange(config.vocab_size) for _ in range(120)]
    singly = alone(config, ids)
    for count in range(2, 17):
        assert alone(config, ids, [40, *[count] * 3]).equal(singly[: 40 + 3 * count]), count
    for cuts in ([33, 33, 54], [100, 20], [120]):
        assert alone(config, ids, cuts).equal(singly), cuts


@pytest.mark.parametrize("heads", [(6, 2), (4, 4)])
def test_one_masked_call_for_many_queries_agrees(heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What other devices than a CPU do."""
    queries = torch.randn(20, 1, heads[1], heads[0] // heads[1], 12, generator=torch.Generator().manual_seed(0))
    past = torch.randn(2, 1, heads[1], 50, 12, generator=torch.Generator().manual_seed(1))
    singly = cache_module.attend_singly(queries.unbind(0), *past)
    torch.testing.assert_close(torch.cat(cache_module.attend_masked(queries.unbind(0), *past)), torch.cat(singly))


def test_logits_of_some_rows_are_those_of_all() -> None:
    model = network(LARGER)
    hidden_ND = torch.randn(70, LARGER.hidden_size, generator=torch.Generator().manual_seed(1))
    whole = model.logits(hidden_ND)
    for count in (1, 2, 3, 4, 5, 16, 33, 70):
        assert model.logits(hidden_ND[:count]).equal(whole[:count])


def test_decoding_agrees_with_reading_all_at_once() -> None:
    model, dice = network(SMALL), random.Random(0)
    for ids, _ in random_rows(SMALL, 10, dice):
        whole = model.logits(model(torch.tensor([ids])))[0]
        torch.testing.assert_close(alone(SMALL, ids), whole, atol=1e-5, rtol=1e-5)


def test_a_row_starts_from_a_copy_of_what_another_has_read() -> None:
    world, ids = World(SMALL, 512), list(range(40))
    first = world.open(ids)
    world.read([(first, 40)])
    second = world.open([*ids, 3, 1, 4])
    assert second.read == 40
    assert second.start not in (None, first.start)
    assert world.read([(second, 3)])[0].equal(alone(SMALL, second.ids)[40:])


def test_a_row_shares_pages_where_no_run_of_them_is_free() -> None:
    world, ids = World(SMALL, 160), list(range(40))
    rows = [world.open([200 + i], most=16) for i in range(10)]
    for row in (rows[1], rows[2], rows[3], rows[5], rows[6], rows[8]):
        world.pages.close(row)
    first = world.open(ids, most=48)
    world.read([(first, 40)])
    second = world.open([*ids, 3, 1, 4], most=80)
    assert (second.start, second.read, second.pages[:2]) == (None, 32, first.pages[:2])
    assert world.read([(second, 11)])[0].equal(alone(SMALL, second.ids)[32:])
    world.pages.close(first)
    second.ids += [5, 6]
    assert world.read([(second, 1)])[0].equal(alone(SMALL, second.ids)[43:44])
    world.pages.close(second)
    assert world.pages.in_use == 4


def test_a_failed_pass_appends_nothing() -> None:
    world = World(SMALL, 64)
    row = world.open([SMALL.vocab_size], most=20)
    with pytest.raises(IndexError):
        world.read([(row, 1)])
    assert row.read == 0


def test_a_step_beyond_its_room_is_a_bug() -> None:
    world = World(SMALL, 64)
    row = world.open([1] * 20, most=8)
    for pieces in ([(row, 9)], [(row, 0)], [(row, 1), (row, 1)], []):
        with pytest.raises(AssertionError):
            world.cache.step(pieces)
    long = world.open([1] * 20, most=48)
    assert long.start is not None
    with pytest.raises(AssertionError, match="no room"):
        world.open([2], most=33)
