"""The keys and values of all pages, and attention over them.

Law: on a CPU, in float32 and with packed matrices, what a position computes is a function of the tokens up to it,
whatever shares the pass, however the row was cut into pieces, and wherever its pages are. So every query is a call of
its own, and a pass has at least `MIN_TOKENS` tokens. (In bfloat16 the matrices sum in another order from some 40 tokens
on.) On other devices more than `SINGLE` new tokens of a row are one masked call.

Shapes: L twice the layers, K key/value heads, N query heads, G = N / K, T positions, H head size, P packed tokens of a
step (padded to `MIN_TOKENS`), n new tokens of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from twgi.decoding.pages import Copy, Pages, Row
from twgi.model.config import TransformerConfig
from twgi.model.step import MIN_TOKENS

SINGLE = 16  # the most new tokens of a row whose queries are calls of their own on every device


class KVCache:
    """Memory for the positions of all pages. The system hands it out when it is first written.

    `device` is where it lies, `compute` where the model runs (the same when left out): what a row needs of a cache in
    host memory goes to the model's device layer by layer, which is slow, and spares the device all of it.
    """

    def __init__(
        self,
        config: TransformerConfig,
        pages: Pages,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        compute: torch.device | str | None = None,
    ) -> None:
        shape = (2 * config.num_layers, 1, config.num_kv_heads, pages.count * pages.size, config.head_dim)
        self.pages, self.max_positions = pages, config.max_positions
        self.kv_L1KTH = torch.empty(shape, device=device, dtype=dtype)  # keys of a layer, then its values
        self.by_place_LTKH = [kv_1KTH[0].transpose(0, 1) for kv_1KTH in self.kv_L1KTH]
        self.device = self.kv_L1KTH.device
        self.compute = torch.device(device if compute is None else compute)

    def copy(self, copy: Copy) -> None:
        """Do what opening a row asked for."""
        sources = torch.tensor(copy.sources, device=self.device)
        self.kv_L1KTH.narrow(3, copy.target, len(sources)).copy_(self.kv_L1KTH.index_select(3, sources))

    def step(self, pieces: Sequence[tuple[Row, int]]) -> CacheStep:
        """One pass over the next ids of each row, so many of each; every row once."""
        return CacheStep(self, pieces)


class CacheStep:
    """One forward pass, see `model.step.Step`. Used once: committing it counts its tokens as read."""

    def __init__(self, cache: KVCache, pieces: Sequence[tuple[Row, int]]) -> None:
        assert pieces, "a step without rows"
        self.cache, self.pieces = cache, pieces
        self.tokens = sum(count for _, count in pieces)
        self.padding = max(0, MIN_TOKENS - self.tokens)
        positions: list[int] = []
        places: list[int] = []
        for row, count in pieces:
            begin, end = row.read, row.read + count
            assert begin < end <= min(row.most, cache.max_positions), (begin, end, row.most)
            positions += range(begin, end)
            if row.start is None:
                places += cache.pages.places(row.pages, end, begin)
            else:
                places += range(row.start + begin, row.start + end)
        assert len(set(places)) == len(places), "a row twice in one step"
        self.positions_P = torch.tensor(positions + [0] * self.padding, device=cache.compute)
        self._places_N = torch.tensor(places, device=cache.device)
        self.last_indices = [end - 1 for end in accumulate(count for _, count in pieces)]  # of each row, in N
        self._past = [self._past_of(row, row.read + count) for row, count in pieces]

    def _past_of(self, row: Row, end: int) -> tuple[Tensor, ...] | Tensor:
        """Keys and values 1KTH of a row in each layer, in turn; or where they are to be gathered from."""
        if row.start is None:
            return torch.tensor(self.cache.pages.places(row.pages, end), device=self.cache.device)
        return self.cache.kv_L1KTH.narrow(3, row.start, end).unbind(0)

    def attend(self, layer: int, q_PNH: Tensor, k_PKH: Tensor, v_PKH: Tensor) -> Tensor:
        """Store the new keys and values, then let each row's new tokens look at that row alone: PNH."""
        heads, size = q_PNH.shape[1:]
        for new_PKH, cache_TKH in zip((k_PKH, v_PKH), self.cache.by_place_LTKH[2 * layer : 2 * layer + 2], strict=True):
            cache_TKH.index_copy_(0, self._places_N, new_PKH[: self.tokens].to(self.cache.device))
        queries = q_PNH.view(len(q_PNH), 1, k_PKH.shape[1], -1, size).unbind(0)
        out: list[Tensor] = []
        for (_, count), past in zip(self.pieces, self._past, strict=True):
            k_1KTH, v_1KTH = self._of_layer(layer, past)
            if count == 1:
                out.append(F.scaled_dot_product_attention(queries[len(out)], k_1KTH, v_1KTH))
            else:
                attend = attend_singly if count <= SINGLE or q_PNH.device.type == "cpu" else attend_masked
                out += attend(queries[len(out) : len(out) + count], k_1KTH, v_1KTH)
        out += [torch.zeros_like(queries[0])] * self.padding
        return torch.cat(out).view(len(q_PNH), heads, size)

    def _of_layer(self, layer: int, past: tuple[Tensor, ...] | Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(past, tuple):
            keys, values = past[2 * layer], past[2 * layer + 1]
        else:
            keys, values = self.cache.kv_L1KTH[2 * layer : 2 * layer + 2].index_select(3, past)
        if self.cache.device != self.cache.compute:
            return keys.to(self.cache.compute), values.to(self.cache.compute)
        return keys, values

    def commit(self) -> None:
        """Count the new tokens as read."""
        for row, count in self.pieces:
            row.read += count
            if count > 1 or row.read % self.cache.pages.size == 0:
                self.cache.pages.note(row)


def attend_singly(queries: Sequence[Tensor], k_1KTH: Tensor, v_1KTH: Tensor) -> list[Tensor]:
    """The last n positions of a row look back, a 1KGH of each: a query of its own has nothing to mask."""
    first = k_1KTH.shape[2] - len(queries) + 1
    return [
        F.scaled_dot_product_attention(q_1KGH, k_1KTH.narrow(2, 0, end), v_1KTH.narrow(2, 0, end))
        for end, q_1KGH in enumerate(queries, first)
    ]


def attend_masked(queries: Sequence[Tensor], k_1KTH: Tensor, v_1KTH: Tensor) -> list[Tensor]:
    """The same up to rounding, in one call."""
    q_1NnH = torch.stack([q_1KGH.flatten(1, 2) for q_1KGH in queries], dim=2)
    length, grouped = k_1KTH.shape[2], q_1NnH.shape[1] != k_1KTH.shape[1]
    mask = q_1NnH.new_full((len(queries), length), -torch.inf).triu(length - len(queries) + 1)
    out_1NnH = F.scaled_dot_product_attention(q_1NnH, k_1KTH, v_1KTH, mask, enable_gqa=grouped)
    return [out_1NH.reshape(queries[0].shape) for out_1NH in out_1NnH.unbind(2)]
