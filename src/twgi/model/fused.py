"""Functions of the blocks with gradients of their own, for training: the same formulas in fewer passes over memory.

Autograd would copy the gradients of the halves of a tensor into one, and the halves themselves to swap them; and it
would go through a norm one operation at a time.
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


class RootMeanSquare(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in float32: (...D, D) -> ...D."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = (length.square() / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, None]:
        (grad,) = grads
        x, weight, scale = ctx.saved_tensors
        product = grad * x
        to_weight = scale.flatten() @ product.flatten(0, -2) if ctx.needs_input_grad[1] else None
        along = (product @ weight).unsqueeze(-1)  # of the gradient, that part which only makes x longer
        to_x = (grad * weight).mul_(scale)
        return to_x.addcmul_(x, along * scale**3, value=-1 / x.shape[-1]), to_weight, None


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
