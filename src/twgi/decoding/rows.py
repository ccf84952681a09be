"""Rows of the cache, shared where they begin alike.

Every row reads its first ids (`Row.shared`) on their own. A row that begins with ids another one has read so starts
from a copy; one that begins with ids another one is just reading waits for it. A row that is done with stays as long
as nobody needs its slot, so that the next sample of a prompt finds the prompt read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twgi.decoding.guidance import Ids
from twgi.decoding.sequence import Row
from twgi.model.kv_cache import KVPool
from twgi.model.transformer import Transformer


class RowPool:
    """The rows of one engine; `size` is how many may be in use at once.

    In `serial` they are read one after the other, from a cache in host memory: slow, and small on the device.
    """

    def __init__(self, model: Transformer, size: int, *, serial: bool = False) -> None:
        weight, length = model.embed.weight, model.config.max_positions
        self.model, self.size, self.serial = model, size, serial
        device = torch.device("cpu") if serial else weight.device
        self._pool = KVPool(
            model.config, rows=size, max_len=length, device=device, dtype=weight.dtype, compute=weight.device
        )
        self._beginnings: dict[Ids, Row] = {}  # shared ids -> the row that reads them, or has read them
        self._idle: dict[Ids, Row] = {}  # those of them that nobody uses, the longest unused first

    def place(self, row: Row) -> bool:
        """Give a row its slot; False while another is still reading what it begins with."""
        if row.slot is not None:
            if self._pool.length(row.slot) > row.read:
                self._pool.truncate(row.slot, row.read)
            return True
        beginning = row.beginning
        source = self._beginnings.get(beginning)
        if source is not None and source.read < row.shared:
            return False
        if source is not None and source.slot is not None:
            row.slot, row.read = self._from(source, beginning), row.shared
        else:
            self._make_room()
            row.slot = self._pool.alloc()
        if beginning:
            self._beginnings.setdefault(beginning, row)
        return True

    def _from(self, source: Row, beginning: Ids) -> int:
        """A slot that holds the beginning: that of an idle row itself, or a copy."""
        if self._idle.pop(beginning, None) is not None:
            assert source.slot is not None
            del self._beginnings[beginning]
            return source.slot
        self._make_room()
        assert source.slot is not None
        return self._pool.fork(source.slot, source.shared)

    def _make_room(self) -> None:
        if not self._pool.free_rows:
            row = self._idle.pop(next(iter(self._idle)))
            self._drop(row)

    def _drop(self, row: Row) -> None:
        if self._beginnings.get(row.beginning) is row:
            del self._beginnings[row.beginning]
        if row.slot is not None:
            self._pool.free(row.slot)

    def release(self, row: Row) -> None:
        """The row is not used any more. Its beginning stays while there is room, unless another row has it too."""
        worth_keeping = row.shared > 0 and row.read >= row.shared
        if not worth_keeping or self._beginnings.get(row.beginning) is not row or row.slot is None:
            self._drop(row)
            return
        row.ids, row.read = row.ids[: row.shared], row.shared
        self._pool.truncate(row.slot, row.shared)
        self._idle[row.beginning] = row

    def read(self, pieces: list[tuple[Row, int]]) -> Tensor:
        """Read the next `count` ids of each row, all in one pass; RD, the hidden state after the last of each."""
        if self.serial and len(pieces) > 1:
            return torch.cat([self.read([piece]) for piece in pieces])
        slots: list[tuple[int, int]] = []
        tokens: list[int] = []
        for row, count in pieces:
            assert row.slot is not None
            slots.append((row.slot, count))
            tokens += row.ids[row.read : row.read + count]
            row.read += count
        step = self._pool.step(slots)
        hidden_ND = self.model.forward_cached(torch.tensor(tokens, device=self.model.embed.weight.device), step)
        return hidden_ND if len(tokens) == len(pieces) else hidden_ND[step.last_indices]
