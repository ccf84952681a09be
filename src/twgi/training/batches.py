"""Rows, from the files a recipe names, and which of them a step trains on: a pure function of (seed, step).

An epoch is an order of items; an item is a row, or several rows packed one after the other. Step s takes the next
`batch` items, over the end of an epoch if need be, and every process its share of them: how many processes and how
small the micro-batches are changes neither what a step sees nor what it comes to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from twgi.data.encode import Encoded, RowEncoder, TooLong
from twgi.data.rows import TokenRow
from twgi.data.shards import ShardRows, sha256_of
from twgi.errors import ConfigError, DataError
from twgi.files import Fault
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.training.objective import IGNORED
from twgi.training.sharding import rank as own_rank

Ints = npt.NDArray[np.int64]
WINDOW = 16  # batches whose rows may change places so that rows of like length meet


class RowList:
    """Rows that are held in memory, by number; `blocks` are the ends of stretches that are quick to read together."""

    def __init__(self, rows: Sequence[TokenRow]) -> None:
        self.rows = rows
        self.lengths: Ints = np.array([len(row.ids) for row in rows], dtype=np.int64)
        learnt = [int(row.learn[1:].sum()) for row in rows]
        self.learnt, self.unlearnt = sum(learnt), learnt.count(0)
        self.blocks: Sequence[int] = [len(rows)]

    def __getitem__(self, index: int) -> TokenRow:
        return self.rows[index]


Rows = RowList | ShardRows


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How rows become steps."""

    batch: int = 8  # items of a step, over all processes
    micro_batch: int = 1  # items of one forward pass
    pack: int = 0  # tokens of an item: rows one after the other, each seeing itself alone; 0: an item is one row
    bucket: bool = False  # rows of like length go together
    seed: int = 0  # of the order

    def __post_init__(self) -> None:
        if not 1 <= self.micro_batch <= self.batch <= 2**24 or self.pack < 0 or not 0 <= self.seed < 2**63:
            raise ConfigError(
                f"batch must be in 1..2^24, micro_batch in 1..batch, pack 0 or more, seed in 0..2^63-1, got {self}"
            )

    def accumulation(self, processes: int) -> int:
        """Forward passes of each process in a step; raises `ConfigError` where they would not come out even."""
        share = self.micro_batch * processes
        if self.batch % share:
            raise ConfigError(
                f"batch {self.batch} is not a multiple of micro_batch x processes ({self.micro_batch} x {processes})"
            )
        return self.batch // share


class Order:
    """The items of every step: lists of row numbers."""

    def __init__(self, rows: Rows, batching: Batching) -> None:
        if not len(rows.lengths):
            raise ConfigError("there are no rows to train on")
        self.rows, self.batching = rows, batching
        longest = int(rows.lengths.max())
        if batching.pack and longest > batching.pack:
            raise ConfigError(f"a row has {longest} tokens, more than fit into a pack of {batching.pack}")
        self.items = self._pack() if batching.pack else [[row] for row in range(len(rows.lengths))]
        self.order = lru_cache(maxsize=2)(self._order)

    def step(self, number: int) -> list[list[int]]:
        """The items of one step."""
        first, total = number * self.batching.batch, len(self.items)
        places = (divmod(place, total) for place in range(first, first + self.batching.batch))
        return [self.items[self.order(epoch)[place]] for epoch, place in places]

    def _shuffled(self, epoch: int) -> Ints:
        """Row numbers: blocks in random order, and rows inside each block."""
        rng = np.random.default_rng([self.batching.seed, epoch])
        edges = [0, *self.rows.blocks]
        parts = [rng.permutation(np.arange(edges[i], edges[i + 1])) for i in rng.permutation(len(edges) - 1)]
        return np.concatenate(parts)

    def _pack(self) -> list[list[int]]:
        """First fit into the last few open packs, in one random order; rows of a pack are read together."""
        closed: list[list[int]] = []
        packs: list[tuple[int, list[int]]] = []
        for row in self._shuffled(0).tolist():
            length = int(self.rows.lengths[row])
            place = next((i for i, (used, _) in enumerate(packs) if used + length <= self.batching.pack), None)
            if place is None:
                packs.append((length, [row]))
            else:
                used, held = packs[place]
                packs[place] = (used + length, [*held, row])
            if len(packs) > WINDOW:
                closed.append(packs.pop(0)[1])
        return closed + [held for _, held in packs]

    def _order(self, epoch: int) -> Ints:
        """With `bucket`: rows sorted by length inside windows of some batches; then the batches in random order."""
        if self.batching.pack:
            return np.random.default_rng([self.batching.seed, epoch, 1]).permutation(len(self.items))
        order, size = self._shuffled(epoch), self.batching.batch
        if not self.batching.bucket:
            return order
        windows = [order[i : i + size * WINDOW] for i in range(0, len(order), size * WINDOW)]
        by_length = np.concatenate([w[np.argsort(self.rows.lengths[w], kind="stable")] for w in windows])
        batches = [by_length[i : i + size] for i in range(0, len(order), size)]
        rest = [batches.pop()] if len(batches[-1]) < size else []
        shuffle = np.random.default_rng([self.batching.seed, epoch, 2]).permutation(len(batches))
        return np.concatenate([*(batches[i] for i in shuffle), *rest])


def micro_batches(
    order: Order, step: int, *, pad: int, rank: int = 0, processes: int = 1, loss_on_padding: bool = False
) -> list[dict[str, Any]]:
    """What one process's forward passes of a step read, in turn."""
    items, size = order.step(step), order.batching.micro_batch
    starts = ((part * processes + rank) * size for part in range(order.batching.accumulation(processes)))
    parts = (items[start : start + size] for start in starts)
    return [collate([[order.rows[row] for row in item] for item in part], pad, loss_on_padding) for part in parts]


def collate(items: Sequence[Sequence[TokenRow]], pad: int, loss_on_padding: bool = False) -> dict[str, Any]:
    """ids, labels, documents as int64 [items, longest], padded on the right, and the sources of the rows.

    The documents are left out where every item is one row: right padding needs no mask.
    """
    longest = max(sum(len(row.ids) for row in item) for item in items)
    ids = torch.full((len(items), longest), pad)
    labels = torch.full((len(items), longest), pad if loss_on_padding else IGNORED)
    documents = torch.full((len(items), longest), -1)
    for place, item in enumerate(items):
        end = 0
        for number, row in enumerate(item):
            start, end = end, end + len(row.ids)
            ids[place, start:end] = torch.from_numpy(row.ids.astype(np.int64))
            learnt = torch.from_numpy(np.where(row.learn, row.ids.astype(np.int64), IGNORED))
            learnt[0] = IGNORED  # nothing of its own row comes before it
            labels[place, start:end] = learnt
            documents[place, start:end] = number
    batch = {"ids": ids, "labels": labels, "sources": [row.source for item in items for row in item]}
    return batch | ({"documents": documents} if any(len(item) > 1 for item in items) else {})


def open_rows(paths: Sequence[str], tokenizer: MultimodalTokenizer, max_length: int) -> tuple[Rows, str]:
    """The rows of all files, and a hash of the files and pictures they were made from. Says what is left out.

    Raises `DataError` where a file cannot be read, a line is at fault (the first is named), no row is left, or there is
    nothing in them to be learnt.
    """
    if not paths:
        raise ConfigError("the recipe names no data; give JSON lines of records or rows: data: [chains.jsonl]")
    shards = any(Path(path).is_dir() for path in paths)
    rows, digest = (_open_shards if shards else _open_files)(paths, tokenizer, max_length)
    if not rows.learnt:
        raise DataError(f"{', '.join(paths)}: none of the {rows.lengths.sum()} tokens is to be learnt")
    if rows.unlearnt and own_rank() == 0:
        print(f"{', '.join(paths)}: {rows.unlearnt} of {len(rows.lengths)} rows have no token to be learnt")
    return rows, digest


def _open_files(paths: Sequence[str], tokenizer: MultimodalTokenizer, max_length: int) -> tuple[Rows, str]:
    rows: list[TokenRow] = []
    digest = hashlib.sha256()
    for path in map(Path, paths):
        rows += read_file(path, tokenizer, max_length, digest)
    if not rows:
        raise DataError(f"{', '.join(paths)}: no row of at most {max_length} tokens")
    return RowList(rows), digest.hexdigest()


def _open_shards(paths: Sequence[str], tokenizer: MultimodalTokenizer, max_length: int) -> tuple[Rows, str]:
    """One folder of shards, which must be of this model's ids and no longer than asked."""
    if len(paths) > 1:
        raise ConfigError(
            "data: give one folder of shards, or files; `twgi encode --format parquet` makes one folder of many files"
        )
    path, shards = paths[0], ShardRows(Path(paths[0]))
    if shards.tokenizer != tokenizer.sha256:
        told = f"({shards.tokenizer:.12}) than this model's ({tokenizer.sha256:.12})"
        raise DataError(f"{path}: these shards were made with another vocabulary or image tokenizer {told}")
    if (longest := int(shards.lengths.max())) > max_length:
        raise DataError(f"{path}: a row has {longest} tokens, more than max_length {max_length}; make the shards anew")
    return shards, shards.digest


def read_file(path: Path, tokenizer: MultimodalTokenizer, max_length: int, digest: hashlib._Hash) -> list[TokenRow]:
    """The rows of one file of records or rows, in memory; the digest goes on with the file and its pictures."""
    digest.update(bytes.fromhex(sha256_of(path)))
    rows, left_out = [], 0
    for outcome in RowEncoder(tokenizer, limit=max_length).files([path]):
        match outcome:
            case Fault():
                raise DataError(f"{outcome.where}: {outcome.reason}; `twgi data check {path}` lists every such line")
            case TooLong():
                left_out += 1
            case Encoded():
                rows.append(outcome.row.compact())
                for file in outcome.record.files if outcome.record else ():
                    digest.update(bytes.fromhex(sha256_of(file)))
    if left_out and own_rank() == 0:
        print(f"{path}: {left_out} of {left_out + len(rows)} rows have more than {max_length} tokens and are left out")
    return rows
