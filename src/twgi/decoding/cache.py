"""The keys and values of all pages, and attention over them.

Law: on a CPU, in float32 and with packed matrices, what a position computes is a function of the tokens up to it,
whatever shares the pass, however the row was cut into pieces, and wherever its pages are. So on a CPU in float32 keys
lie transposed (the kernels for that give a query the same bits in any company, from two queries on), what is looked at
is padded to whole lines of `LINE` positions, and sums run over `BLOCK` positions at a time. Elsewhere up to `SINGLE` new
tokens of a row are calls of their own, and more are one masked call, whose bits depend on their number.

Shapes: L layers, K key/value heads, N query heads, G = N / K, T positions, H head size, P packed tokens of a step
(padded to `MIN_TOKENS`), n new tokens of one row, Q = n G.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from twgi.decoding.pages import Copy, Pages, Row
from twgi.model.config import TransformerConfig
from twgi.model.packed import plain_is_alike
from twgi.model.step import MIN_TOKENS

LINE, BLOCK = 32, 256  # positions
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
        heads, size, count = config.num_kv_heads, config.head_dim, pages.count * pages.size + LINE
        self.pages, self.max_positions, self.device = pages, config.max_positions, torch.device(device)
        self.compute = torch.device(device if compute is None else compute)
        self.exact = self.device.type == self.compute.type == "cpu" and dtype == torch.float32
        turned = (size, count) if self.exact else (count, size)
        # zeros, not whatever there was: positions beyond the end of a row are multiplied by zero
        self.k_LKHT = torch.zeros((config.num_layers, heads, *turned), device=device, dtype=dtype)
        self.v_LKTH = torch.zeros((config.num_layers, heads, count, size), device=device, dtype=dtype)
        if not self.exact:
            self.k_LKHT = self.k_LKHT.mT
        self.together = plain_is_alike(2 * LINE, size, torch.get_num_threads())  # many queries of a row in one call
        self._causal_TT = torch.empty(0, 0)

    def copy(self, copy: Copy) -> None:
        """Do what opening a row asked for."""
        sources, end = torch.tensor(copy.sources, device=self.device), copy.target + len(copy.sources)
        self.k_LKHT[..., copy.target : end] = self.k_LKHT.index_select(3, sources)
        self.v_LKTH[:, :, copy.target : end] = self.v_LKTH.index_select(2, sources)

    def clear(self, row: Row) -> None:
        """Forget numbers that may not be finite."""
        places = torch.tensor(self.pages.places(row.pages, len(row.pages) * self.pages.size), device=self.device)
        self.k_LKHT.index_fill_(3, places, 0)
        self.v_LKTH.index_fill_(2, places, 0)

    def step(self, pieces: Sequence[tuple[Row, int]]) -> CacheStep:
        """One pass over the next ids of each row, so many of each; every row once."""
        return CacheStep(self, pieces)

    def causal(self, first: int, end: int, length: int) -> Tensor:
        """0 where the queries at these positions may look, minus infinity beyond: a view, QT."""
        if len(self._causal_TT) < max(end, length):
            side = 2 * max(end, length)
            self._causal_TT = torch.full((side, side), -torch.inf).triu_(1)
        return self._causal_TT[first:end, :length]


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

    def _past_of(self, row: Row, end: int) -> tuple[Tensor, Tensor] | Tensor:
        """Keys LKHT and values LKTH of a row; or the places they are to be gathered from."""
        cache, length = self.cache, -(-end // LINE) * LINE if self.cache.exact else end
        if row.start is None:
            places = cache.pages.places(row.pages, end)
            return torch.tensor(places + places[-1:] * (length - end), device=cache.device)
        return cache.k_LKHT.narrow(3, row.start, length), cache.v_LKTH.narrow(2, row.start, length)

    def attend(self, layer: int, q_PNH: Tensor, k_PKH: Tensor, v_PKH: Tensor) -> Tensor:
        """Store the new keys and values, then let each row's new tokens look at that row alone: PNH."""
        cache, new = self.cache, slice(self.tokens)
        cache.k_LKHT[layer].index_copy_(2, self._places_N, k_PKH[new].permute(1, 2, 0).to(cache.device))
        cache.v_LKTH[layer].index_copy_(1, self._places_N, v_PKH[new].transpose(0, 1).to(cache.device))
        q_PKGH = q_PNH.view(len(q_PNH), k_PKH.shape[1], -1, q_PNH.shape[-1])
        out: list[Tensor] = []
        begin = 0
        for (row, count), past in zip(self.pieces, self._past, strict=True):
            k_KHT, v_KTH = self._of_layer(layer, past)
            if cache.exact:
                out += self._exactly(q_PKGH, k_KHT, v_KTH, begin, row.read, count)
            else:
                single = count <= SINGLE or q_PNH.device.type == "cpu"
                attend = attend_singly if single else attend_masked
                out += attend(q_PKGH[begin : begin + count, None].unbind(), k_KHT.mT[None], v_KTH[None])
            begin += count
        out += [torch.zeros_like(q_PKGH[:1])] * bool(self.padding) * self.padding
        return torch.cat(out).view(q_PNH.shape)

    def _exactly(
        self, q_PKGH: Tensor, k_KHT: Tensor, v_KTH: Tensor, begin: int, position: int, count: int
    ) -> list[Tensor]:
        """nKGH of the n tokens from `begin` on, which stand from `position` on."""
        alone = [count] if self.cache.together else [1] * count
        out: list[Tensor] = []
        for n in alone:
            queries = 2 if n * q_PKGH.shape[2] == 1 else n  # the second of two is for company
            q_nKGH = q_PKGH[begin : begin + queries]
            if len(q_nKGH) < queries:
                q_nKGH = q_nKGH.expand(queries, -1, -1, -1)
            causal_nT = self.cache.causal(position, position + queries, k_KHT.shape[2])
            out.append(attend_together(q_nKGH, k_KHT, v_KTH, causal_nT)[:n])
            begin, position = begin + n, position + n
        return out

    def _of_layer(self, layer: int, past: tuple[Tensor, Tensor] | Tensor) -> tuple[Tensor, Tensor]:
        cache = self.cache
        if isinstance(past, tuple):
            keys, values = past[0][layer], past[1][layer]
        else:
            keys, values = cache.k_LKHT[layer].index_select(2, past), cache.v_LKTH[layer].index_select(1, past)
        if cache.device != cache.compute:
            return keys.to(cache.compute), values.to(cache.compute)
        return keys, values

    def commit(self) -> None:
        """Count the new tokens as read."""
        for row, count in self.pieces:
            row.read += count
            size = self.cache.pages.size
            if row.read // size > row.noted // size or (count > 1 and not row.drafts):
                self.cache.pages.note(row)


def attend_together(q_nKGH: Tensor, k_KHT: Tensor, v_KTH: Tensor, causal_nT: Tensor) -> Tensor:
    """New tokens of one row look back, nKGH; T is whole lines."""
    (count, heads, group, size), length = q_nKGH.shape, k_KHT.shape[2]
    if group == 1:
        q_KQH = q_nKGH.squeeze(2).transpose(0, 1)
    else:
        q_KQH = q_nKGH.transpose(0, 1).reshape(heads, count * group, size)
        causal_nT = causal_nT.unsqueeze(1).expand(count, group, length).reshape(count * group, length)
    seen_KQT = torch.baddbmm(causal_nT.expand(heads, -1, -1), q_KQH, k_KHT, alpha=size**-0.5).softmax(-1)
    out_KQH = torch.bmm(seen_KQT[..., :BLOCK], v_KTH[:, :BLOCK])
    for first in range(BLOCK, length, BLOCK):
        block = slice(first, first + BLOCK)
        out_KQH = out_KQH.baddbmm_(seen_KQT[..., block], v_KTH[:, block])
    return out_KQH.view(heads, count, group, size).transpose(0, 1)


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
