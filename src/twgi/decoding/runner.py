"""The only caller of the model: from the pieces of a step to hidden states."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from twgi.decoding.cache import KVCache
from twgi.decoding.pages import Pages, Row
from twgi.decoding.scheduler import Batch
from twgi.model.transformer import Transformer


class Runner:
    """A model and the cache it reads.

    Args:
        model: in eval mode, on the device and in the dtype it should run.
        pages: of the cache.
        serial: rows one after the other, and the cache in host memory: slow, and small on the device.
    """

    def __init__(self, model: Transformer, pages: Pages, *, serial: bool = False) -> None:
        weight = model.embed.weight
        device = torch.device("cpu") if serial else weight.device
        self.model, self.serial, self.device = model, serial, weight.device
        self.exact = model.packed is not None and not serial
        self.cache = KVCache(model.config, pages, device=device, dtype=weight.dtype, compute=weight.device)

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """Read everything; the hidden states ND after the last ids of all rows that are drawn from, in order."""
        for copy in batch.copies:
            self.cache.copy(copy)
        wanted = batch.drawn_after + [0] * len(batch.early)
        if not self.serial:
            return self._read(batch.pieces, wanted)
        return torch.cat([self._read([piece], [count]) for piece, count in zip(batch.pieces, wanted, strict=True)])

    def _read(self, pieces: list[tuple[Row, int]], wanted: list[int]) -> Tensor:
        """ND, the hidden states after so many of the last ids of each piece."""
        tokens = [token for row, count in pieces for token in row.ids[row.read : row.read + count]]
        step = self.cache.step(pieces)
        hidden_ND = self.model.forward_cached(torch.tensor(tokens, device=self.device), step)
        if len(tokens) == sum(wanted):
            return hidden_ND
        return hidden_ND[
            [i for last, n in zip(step.last_indices, wanted, strict=True) for i in range(last - n + 1, last + 1)]
        ]

    def forget(self, rows: Iterable[Row]) -> None:
        """Clear what these have in the cache: it may hold what is no number."""
        for row in rows:
            self.cache.clear(row)
