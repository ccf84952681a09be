"""The key/value cache, and which of its rows one forward pass is about.

A *row* is one sequence of tokens with its own length. A *step* gives any number of rows any number of new tokens
each, packed one after the other without padding: rows that prefill and rows that decode share the pass.

Law: what a row computes depends on its own tokens and on how they were cut into pieces, never on the other rows of
the step. So attention runs row by row, and every pass has at least `MIN_TOKENS` tokens, because the CPU's matrix
kernels sum in another order for one to three rows than for more.

Shapes: L layers, R rows of the pool, K key/value heads, N query heads, G = N / K, T positions, H head size,
P packed tokens of a step (padded to `MIN_TOKENS`), n new tokens of one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from twgi.model.config import TransformerConfig

MIN_TOKENS = 4


@dataclass(frozen=True, kw_only=True)
class Piece:
    """`count` new tokens of `row`, which stand from position `start` on and from `offset` on in the packed step."""

    row: int
    start: int
    count: int
    offset: int

    @property
    def end(self) -> int:
        return self.start + self.count


class KVPool:
    """Memory for `rows` sequences of up to `max_len` tokens. Pages of memory are taken when first written.

    `device` is where it lies, `compute` where the model runs (the same when left out): what a row needs of a cache in
    host memory goes to the model's device layer by layer, which is slow, and spares the device all of it.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        rows: int,
        max_len: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        compute: torch.device | str | None = None,
    ) -> None:
        assert rows > 0
        assert 0 < max_len <= config.max_positions, (max_len, config.max_positions)
        shape = (config.num_layers, rows, config.num_kv_heads, max_len, config.head_dim)
        self.keys_LRKTH = torch.empty(shape, device=device, dtype=dtype)
        self.values_LRKTH = torch.empty(shape, device=device, dtype=dtype)
        self.rows, self.max_len = rows, max_len
        self.compute = torch.device(device if compute is None else compute)
        self._lengths: dict[int, int] = {}
        self._free = list(range(rows))[::-1]

    @property
    def free_rows(self) -> int:
        return len(self._free)

    def alloc(self) -> int:
        """An empty row. It is the caller's duty to look at `free_rows` first."""
        assert self._free, "no free cache row"
        row = self._free.pop()
        self._lengths[row] = 0
        return row

    def free(self, row: int) -> None:
        """Give a row back; its number may be given out again at once."""
        del self._lengths[row]
        self._free.append(row)

    def length(self, row: int) -> int:
        """Tokens the row holds."""
        return self._lengths[row]

    def truncate(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens of the row."""
        assert 0 <= length <= self._lengths[row], (row, length)
        self._lengths[row] = length

    def fork(self, row: int, length: int | None = None) -> int:
        """A new row that holds a copy of the first `length` tokens (default: all) of this one."""
        length = self._lengths[row] if length is None else length
        assert 0 <= length <= self._lengths[row], (row, length)
        copy = self.alloc()
        for cache_LRKTH in (self.keys_LRKTH, self.values_LRKTH):
            cache_LRKTH[:, copy, :, :length] = cache_LRKTH[:, row, :, :length]
        self._lengths[copy] = length
        return copy

    def step(self, pieces: Sequence[tuple[int, int]]) -> Step:
        """(row, number of new tokens) of each row that takes part, each row once, in the order of the packed tokens."""
        assert pieces, "a step without rows"
        assert len({row for row, _ in pieces}) == len(pieces), pieces
        placed: list[Piece] = []
        offset = 0
        for row, count in pieces:
            piece = Piece(row=row, start=self._lengths[row], count=count, offset=offset)
            assert piece.start < piece.end <= self.max_len, (piece, self.max_len)
            placed.append(piece)
            offset += count
        return Step(self, placed)


class Step:
    """One forward pass over rows of a pool. Used once: `Transformer.forward_cached` appends the tokens to the rows."""

    def __init__(self, pool: KVPool, pieces: Sequence[Piece]) -> None:
        self.pool, self.pieces = pool, pieces
        self.tokens = sum(piece.count for piece in pieces)
        self.padding = max(0, MIN_TOKENS - self.tokens)
        device = pool.keys_LRKTH.device
        places = [position for piece in pieces for position in range(piece.start, piece.end)]
        self.positions_P = torch.tensor(places + [0] * self.padding, device=pool.compute)
        self._places_N = self.positions_P[: self.tokens].to(device)
        self._rows_N = torch.tensor([piece.row for piece in pieces for _ in range(piece.count)], device=device)
        self.last_indices = [piece.offset + piece.count - 1 for piece in pieces]  # of each piece, in the packed tokens
        keys = (pool.keys_LRKTH[:, piece.row, None, :, : piece.end].unbind(0) for piece in pieces)
        values = (pool.values_LRKTH[:, piece.row, None, :, : piece.end].unbind(0) for piece in pieces)
        self._history = list(zip(keys, values, strict=True))  # of each piece, of each layer: views, 1KTH

    def attend(self, layer: int, q_PNH: Tensor, k_PKH: Tensor, v_PKH: Tensor) -> Tensor:
        """Store the new keys and values, then let each row's new tokens look at that row alone: P,N*H."""
        for cache_LRKTH, new_PKH in ((self.pool.keys_LRKTH, k_PKH), (self.pool.values_LRKTH, v_PKH)):
            cache_LRKTH[layer][self._rows_N, :, self._places_N] = new_PKH[: self.tokens].to(cache_LRKTH.device)
        here = q_PNH.device
        out = [
            attend_one(q_PNH[piece.offset : piece.offset + piece.count], keys[layer].to(here), values[layer].to(here))
            for piece, (keys, values) in zip(self.pieces, self._history, strict=True)
        ]
        if self.padding:
            out.append(out[0].new_zeros(self.padding, *out[0].shape[1:]))
        return torch.cat(out)

    def commit(self) -> None:
        """Count the new tokens as part of their rows."""
        for piece in self.pieces:
            self.pool._lengths[piece.row] = piece.end


def attend_one(q_nNH: Tensor, k_1KTH: Tensor, v_1KTH: Tensor) -> Tensor:
    """The last n positions of one row look back: n,N,H. One new token is one query a group, with nothing to mask."""
    new, heads, size = q_nNH.shape
    kv_heads, length = k_1KTH.shape[1:3]
    if new == 1:
        q_1KGH = q_nNH.view(1, kv_heads, heads // kv_heads, size)
        return F.scaled_dot_product_attention(q_1KGH, k_1KTH, v_1KTH).view(1, heads, size)
    mask = None
    if new < length:
        mask = q_nNH.new_full((new, length), -torch.inf).triu(length - new + 1)
    out_1NnH = F.scaled_dot_product_attention(
        q_nNH.transpose(0, 1)[None], k_1KTH, v_1KTH, mask, is_causal=mask is None, enable_gqa=heads != kv_heads
    )
    return out_1NnH[0].transpose(0, 1)
