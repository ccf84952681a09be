"""The keys and values of all pages, and attention over them.

Law: on a CPU, what a position computes is a function of the tokens up to it, whatever shares the pass, however the row
was cut into pieces and wherever its pages are. So every query is a call of its own, and a pass has at least `MIN_TOKENS`
tokens. On other devices more than `SINGLE` new tokens of a row are one masked call.

Shapes: L layers, K key/value heads, N query heads, G = N / K, T positions, H head size, P packed tokens of a step
(padded to `MIN_TOKENS`), n new tokens of one row.
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
        shape = (config.num_layers, 1, config.num_kv_heads, pages.count * pages.size, config.head_dim)
        self.pages, self.max_positions = pages, config.max_positions
        self.keys_L1KTH = torch.empty(shape, device=device, dtype=dtype)
        self.values_L1KTH = torch.empty(shape, device=device, dtype=dtype)
        self.device = self.keys_L1KTH.device
        self.compute = torch.device(device if compute is None else compute)

    def copy(self, copy: Copy) -> None:
        """Do what opening a row asked for."""
        sources = torch.tensor(copy.sources, device=self.device)
        for cache_L1KTH in (self.keys_L1KTH, self.values_L1KTH):
            cache_L1KTH[..., copy.target : copy.target + len(sources), :] = cache_L1KTH.index_select(3, sources)

    def step(self, pieces: Sequence[tuple[Row, int]]) -> CacheStep:
        """One pass over the next ids of each row, so many of each; every row once."""
        return CacheStep(self, pieces)

    def history(self, row: Row, end: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values 1KTH of a row in each layer: views of its pages, where these lie one after the other."""
        assert row.start is not None
        span = slice(row.start, row.start + end)
        return list(
            zip(self.keys_L1KTH[..., span, :].unbind(0), self.values_L1KTH[..., span, :].unbind(0), strict=True)
        )


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

    def _past_of(self, row: Row, end: int) -> list[tuple[Tensor, Tensor]] | Tensor:
        """Of each layer the keys and values of a row, or where they are to be gathered from."""
        if row.start is None:
            return torch.tensor(self.cache.pages.places(row.pages, end), device=self.cache.device)
        return self.cache.history(row, end)

    def attend(self, layer: int, q_PNH: Tensor, k_PKH: Tensor, v_PKH: Tensor) -> Tensor:
        """Store the new keys and values, then let each row's new tokens look at that row alone: PNH."""
        caches = self.cache.keys_L1KTH[layer], self.cache.values_L1KTH[layer]
        for cache_1KTH, new_PKH in zip(caches, (k_PKH, v_PKH), strict=True):
            new_1KNH = new_PKH[: self.tokens].to(cache_1KTH.device).transpose(0, 1)[None]
            cache_1KTH.index_copy_(2, self._places_N, new_1KNH)
        heads, size = q_PNH.shape[1:]
        queries = q_PNH.view(len(q_PNH), 1, k_PKH.shape[1], -1, size).unbind(0)
        out: list[Tensor] = []
        for (_, count), past in zip(self.pieces, self._past, strict=True):
            if isinstance(past, Tensor):
                k_1KTH, v_1KTH = (cache_1KTH.index_select(2, past) for cache_1KTH in caches)
            else:
                k_1KTH, v_1KTH = past[layer]
            k_1KTH, v_1KTH = k_1KTH.to(q_PNH.device), v_1KTH.to(q_PNH.device)
            first = len(out)
            if count == 1:
                out.append(F.scaled_dot_product_attention(queries[first], k_1KTH, v_1KTH))
            else:
                out += attend_many(queries[first : first + count], k_1KTH, v_1KTH)
        out += [torch.zeros_like(queries[0])] * self.padding
        return torch.cat(out).view(len(q_PNH), heads, size)

    def commit(self) -> None:
        """Count the new tokens as read."""
        for row, count in self.pieces:
            row.read += count
            if count > 1 or row.read % self.cache.pages.size == 0:
                self.cache.pages.note(row)


def attend_many(queries: Sequence[Tensor], k_1KTH: Tensor, v_1KTH: Tensor) -> list[Tensor]:
    """The last n positions of one row look back: a 1KGH of each. A query of its own has nothing to mask."""
    before = k_1KTH.shape[2] - len(queries)
    if len(queries) <= SINGLE or k_1KTH.device.type == "cpu":
        return [
            F.scaled_dot_product_attention(q_1KGH, k_1KTH[:, :, :end], v_1KTH[:, :, :end])
            for end, q_1KGH in enumerate(queries, before + 1)
        ]
    q_1NnH = torch.stack([q_1KGH.flatten(1, 2) for q_1KGH in queries], dim=2)
    mask = q_1NnH.new_full((len(queries), k_1KTH.shape[2]), -torch.inf).triu(before + 1)
    out_1NnH = F.scaled_dot_product_attention(
        q_1NnH, k_1KTH, v_1KTH, mask, enable_gqa=q_1NnH.shape[1] != k_1KTH.shape[1]
    )
    return [out_1NH.reshape(queries[0].shape) for out_1NH in out_1NnH.unbind(2)]
