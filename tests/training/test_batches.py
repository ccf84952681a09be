"""Laws of batches: every row once an epoch, the same whatever the number of processes, and packed rows apart."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.test_loss import ROWS, VOCAB, batch_of, objective

from twgi.data.rows import TokenRow
from twgi.errors import ConfigError
from twgi.training.batches import Batching, Order, RowList, collate, micro_batches


def rows_of(lengths: list[int]) -> RowList:
    return RowList(
        [
            TokenRow(ids=np.full(n, number, np.uint16), learn=np.ones(n, bool), source=f"f:{number}")
            for number, n in enumerate(lengths)
        ]
    )


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    batch=st.integers(1, 5),
    pack=st.sampled_from([0, 30, 64]),
    bucket=st.booleans(),
    seed=st.integers(0, 3),
)
def test_every_row_comes_once_an_epoch(lengths: list[int], batch: int, pack: int, bucket: bool, seed: int) -> None:
    order = Order(rows_of(lengths), Batching(batch=batch, pack=pack, bucket=bucket, seed=seed))
    count = len(order.items)
    items = [item for step in range(2 * count) for item in order.step(step)]
    for epoch in range(2):
        rows = [row for item in items[epoch * count : (epoch + 1) * count] for row in item]
        assert sorted(rows) == list(range(len(lengths)))
    assert not pack or all(sum(lengths[row] for row in item) <= pack for item in items)


@given(processes=st.sampled_from([1, 2, 4]), micro=st.sampled_from([1, 2]), bucket=st.booleans())
def test_what_a_step_sees_depends_neither_on_processes_nor_on_micro_batches(
    processes: int, micro: int, bucket: bool
) -> None:
    rows = rows_of(list(range(1, 22)))
    batching = Batching(batch=8, micro_batch=micro, bucket=bucket, seed=1)
    order = Order(rows, batching)
    for step in range(5):
        parts = [micro_batches(order, step, pad=0, rank=r, processes=processes) for r in range(processes)]
        seen = [source for batches in zip(*parts, strict=True) for batch in batches for source in batch["sources"]]
        assert seen == [f"f:{row}" for (row,) in order.step(step)]


def test_seeds_give_other_orders_and_epochs_too() -> None:
    rows = rows_of([3] * 20)
    one, other = (Order(rows, Batching(batch=20, seed=seed)) for seed in (0, 1))
    assert one.step(0) != other.step(0)
    assert one.step(0) != one.step(1)
    assert Order(rows, Batching(batch=20, seed=0)).step(1) == one.step(1)


def test_rows_of_like_length_go_together_if_asked() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 256).tolist()
    spread = []
    for bucket in (False, True):
        order = Order(rows_of(lengths), Batching(batch=8, bucket=bucket))
        spread.append(np.mean([np.ptp([lengths[row] for (row,) in order.step(s)]) for s in range(32)]))
    assert spread[1] < 0.3 * spread[0]


def test_packed_rows_do_not_see_each_other() -> None:
    trained = objective()
    packed, apart = collate([ROWS], VOCAB.pad), batch_of(ROWS)
    assert "documents" in packed
    assert "documents" not in apart
    assert trained.count(packed).equal(trained.count(apart))
    together = trained(packed)
    for name, value in trained(apart).items():
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_cut_or_packed_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a multiple"):
        Batching(batch=6, micro_batch=2).accumulation(2)
    with pytest.raises(ConfigError, match="9 tokens"):
        Order(rows_of([9]), Batching(pack=8))
    with pytest.raises(ConfigError, match="no rows"):
        Order(rows_of([]), Batching())
