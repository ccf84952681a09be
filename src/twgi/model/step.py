"""What the decoder knows of a cache: one pass over packed tokens, each of which finds its own past. No cache here."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

MIN_TOKENS = 2  # of a pass: the CPU's matrix kernels sum in another order for one row than for more


class Step(Protocol):
    """N new tokens of any rows, packed one after the other; P = N + padding, at least `MIN_TOKENS`."""

    tokens: int
    padding: int
    positions_P: Tensor
    last_indices: list[int]  # of each row, among the N

    def attend(self, layer: int, q_PNH: Tensor, k_PKH: Tensor, v_PKH: Tensor) -> Tensor:
        """Keep the new keys and values; what each query sees of its own row, PNH."""

    def commit(self) -> None:
        """Every layer has been read: the new tokens count from now on."""
