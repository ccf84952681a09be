"""The only caller of the model: from the pieces of a step to logits."""

from __future__ import annotations

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
        self.cache = KVCache(model.config, pages, device=device, dtype=weight.dtype, compute=weight.device)

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """Read everything; the logits RV after the last ids of all rows of the sequences that are ready, in order."""
        for copy in batch.copies:
            self.cache.copy(copy)
        parts = [[piece] for piece in batch.pieces] if self.serial else [batch.pieces]
        hidden_RD = torch.cat([self._read(pieces) for pieces in parts])[: len(batch.last)]
        return self.model.logits(hidden_RD) if batch.last else hidden_RD

    def _read(self, pieces: list[tuple[Row, int]]) -> Tensor:
        """RD, the hidden state after the last id of each piece."""
        tokens = [token for row, count in pieces for token in row.ids[row.read : row.read + count]]
        step = self.cache.step(pieces)
        hidden_ND = self.model.forward_cached(torch.tensor(tokens, device=self.device), step)
        return hidden_ND if len(tokens) == len(pieces) else hidden_ND[step.last_indices]
