"""Two functions of the blocks with gradients of their own, for training: fewer passes over memory, the same numbers.

Autograd would copy the gradients of the halves of a tensor into one, and the halves themselves to swap them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class GatedSilu(torch.autograd.Function):
    """silu(gate) * up of [gate, up], which lie side by side in the last dimension: ...2F -> ...F."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        active = F.silu(gate)
        ctx.save_for_backward(gate_up, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (grad,) = grads
        gate_up, active = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        out_gate, out_up = out.chunk(2, dim=-1)
        torch.mul(grad, active, out=out_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=out_gate)
        return out


class Rotation(torch.autograd.Function):
    """Rotary embedding, halves layout: x * cos + swapped(x) * sin. cos and sin carry no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        out = x * cos
        for half, other, part in zip(out.chunk(2, -1), _swapped(x), sin.chunk(2, -1), strict=True):
            half.addcmul_(other, part)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (grad,) = grads
        cos, sin = ctx.saved_tensors
        out = grad * cos
        for half, other, part in zip(out.chunk(2, -1), _swapped(grad), _swapped(sin), strict=True):
            half.addcmul_(other, part)
        return out, None, None


def _swapped(x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = x.chunk(2, dim=-1)
    return second, first
