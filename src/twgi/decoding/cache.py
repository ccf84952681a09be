"""The keys and values of all pages, and attention over them.

Law: on a CPU, in float32 and with packed matrices, what a position computes is a function of the tokens up to it,
whatever shares the pass, however the row was cut into pieces, and wherever its pages are. So on a CPU in float32 no
product has fewer than `LEAST` queries (the kernels then give one the same bits in any company), what is looked at is
padded to whole lines of `LINE` positions, and sums run over `BLOCK` positions at a time. Elsewhere up to `SINGLE` new
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

LINE, BLOCK, LEAST = 32, 256, 16
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
        shape = (config.num_layers, pages.count * pages.size + LINE, config.num_kv_heads, config.head_dim)
        self.pages, self.max_positions, self.device = pages, config.max_positions, torch.device(device)
        self.compute = torch.device(device if compute is None else compute)
        self.exact = self.device.type == self.compute.type == "cpu" and dtype == torch.float32
        # zeros, not whatever there was: positions beyond the end of a row are multiplied by zero
        self.k_LTKH, self.v_LTKH = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        self.together = plain_is_alike(2 * LINE, config.head_dim, torch.get_num_threads())  # queries of a row at once
        self._causal_TT = torch.empty(0, 0)

    def copy(self, copy: Copy) -> None:
        """Do what opening a row asked for."""
        sources, end = torch.tensor(copy.sources, device=self.device), copy.target + len(copy.sources)
        for memory_LTKH in (self.k_LTKH, self.v_LTKH):
            memory_LTKH[:, copy.target : end] = memory_LTKH.index_select(1, sources)

    def clear(self, row: Row) -> None:
        """Forget numbers that may not be finite."""
        places = torch.tensor(self.pages.places(row.pages, len(row.pages) * self.pages.size), device=self.device)
        for memory_LTKH in (self.k_LTKH, self.v_LTKH):
            memory_LTKH.index_fill_(1, places.long(), 0)

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

    def _past_of(self, row: Row, end: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | Tensor:
        """Keys KHT and values KTH of a row in each layer; or the places they are to be gathered from."""
        cache, length = self.cache, -(-end // LINE) * LINE if self.cache.exact else end
        if row.start is None:
            places = cache.pages.places(row.pages, end)
            return torch.tensor(places + places[-1:] * (length - end), device=cache.device)
        keys, values = (memory.narrow(1, row.start, length) for memory in (cache.k_LTKH, cache.v_LTKH))
        return keys.permute(0, 2, 3, 1).unbind(), values.transpose(1, 2).unbind()

    def attend(self, layer: int, q_PNH: Tensor, k_PKH: Tensor, v_PKH: Tensor) -> Tensor:
        """Store the new keys and values, then let each row's new tokens look at that row alone: PNH."""
        cache, shape = self.cache, q_PNH.shape
        for memory_LTKH, new_PKH in ((cache.k_LTKH, k_PKH), (cache.v_LTKH, v_PKH)):
            memory_LTKH[layer].index_copy_(0, self._places_N, new_PKH[: self.tokens].to(cache.device))
        if cache.exact:
            q_PNH = F.pad(q_PNH, (0, 0, 0, 0, 0, LEAST))
        q_PKGH = q_PNH.view(q_PNH.shape[0], k_PKH.shape[1], -1, shape[2])
        out: list[Tensor] = []
        begin = 0
        for (row, count), past in zip(self.pieces, self._past, strict=True):
            k_KHT, v_KTH = self._of_layer(layer, past)
            if cache.exact:
                for first in (0,) if cache.together else range(count):
                    n = count if cache.together else 1
                    causal_nT = cache.causal(row.read + first, row.read + first + max(n, 2), k_KHT.shape[2])
                    out.append(attend_together(q_PKGH, begin + first, n, k_KHT, v_KTH, causal_nT))
            else:
                single = count <= SINGLE or q_PNH.device.type == "cpu"
                attend = attend_singly if single else attend_masked
                out += attend(q_PKGH[begin : begin + count, None].unbind(), k_KHT.mT[None], v_KTH[None])
            begin += count
        if self.padding:
            out.append(q_PNH.new_zeros(self.padding, *out[0].shape[1:]))
        return torch.cat(out).view(shape)

    def _of_layer(
        self, layer: int, past: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | Tensor
    ) -> tuple[Tensor, Tensor]:
        if isinstance(past, tuple):
            k_KHT, v_KTH = past[0][layer], past[1][layer]
        else:
            k_KHT = self.cache.k_LTKH[layer].index_select(0, past).permute(1, 2, 0)
            v_KTH = self.cache.v_LTKH[layer].index_select(0, past).transpose(0, 1)
        if self.cache.device != self.cache.compute:
            return k_KHT.to(self.cache.compute), v_KTH.to(self.cache.compute)
        return k_KHT, v_KTH

    def commit(self) -> None:
        """Count the new tokens as read."""
        for row, count in self.pieces:
            row.read += count
            size = self.cache.pages.size
            if row.read // size > row.noted // size or (count > 1 and not row.drafts):
                self.cache.pages.note(row)


def attend_together(q_PKGH: Tensor, begin: int, n: int, k_KHT: Tensor, v_KTH: Tensor, causal_nT: Tensor) -> Tensor:
    """The n tokens from `begin` on look back at their row, nKGH. There are `LEAST` queries from there on."""
    _, heads, group, size = q_PKGH.shape
    length = k_KHT.shape[2]
    if group == 1:
        q_KQH = q_PKGH[begin : begin + max(n, LEAST), :, 0].transpose(0, 1)
        queries = max(n, 2)
    else:
        q_KQH = q_PKGH[begin : begin + max(n, LEAST)].transpose(0, 1).reshape(heads, -1, size)
        queries = n * group
        causal_nT = causal_nT[:n, None].expand(n, group, length).reshape(queries, length)
    scores_KQT = torch.bmm(q_KQH, k_KHT)[:, :queries]
    seen_KQT = torch.add(causal_nT, scores_KQT, alpha=size**-0.5).softmax(-1)
    out_KQH = torch.bmm(seen_KQT[..., :BLOCK], v_KTH[:, :BLOCK])
    for first in range(BLOCK, length, BLOCK):
        out_KQH.baddbmm_(seen_KQT[..., first : first + BLOCK], v_KTH[:, first : first + BLOCK])
    return out_KQH[:, : n * group].reshape(heads, n, group, size).transpose(0, 1)


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
