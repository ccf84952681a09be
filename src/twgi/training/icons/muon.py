"""Muon for the matrices of the blocks, AdamW for everything else, in one optimizer.

Muon (Jordan et al., 2024): momentum whose matrix is replaced by the nearest orthogonal one, by Newton-Schulz steps.
Here it needs about half the rows that AdamW needs for the same loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonalize(matrices_GRC: Tensor, rounds: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix to each of a batch, roughly: singular values end in about 0.7..1.2."""
    a, b, c = 3.4445, -4.7750, 2.0315  # of the quintic iteration, from Muon's description
    x = matrices_GRC.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices_GRC.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Parameter groups with `parts` (matrices stacked in one tensor, by rows) use Muon, the others AdamW."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        defaults = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "momentum": 0.95, "weight_decay": 0.0, "parts": 0}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            update = self._muon if group["parts"] else self._adamw
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, group, self.state[parameter])

    @staticmethod
    def _muon(parameter: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(parameter.grad, 1 - group["momentum"])  # type: ignore[arg-type]
        direction = parameter.grad.lerp(momentum, group["momentum"])  # type: ignore[union-attr]
        stacked = direction.reshape(group["parts"], -1, parameter[0].numel())  # a convolution is the matrix of its taps
        scale = max(1.0, stacked.shape[1] / stacked.shape[2]) ** 0.5
        parameter.add_(orthogonalize(stacked).reshape(parameter.shape), alpha=-group["lr"] * scale)

    @staticmethod
    def _adamw(parameter: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        if not state:
            state["step"] = torch.zeros(())
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        (beta1, beta2), grad = group["betas"], parameter.grad
        assert grad is not None
        state["step"] += 1
        state["first"].lerp_(grad, 1 - beta1)
        state["second"].lerp_(grad.square(), 1 - beta2)
        t = float(state["step"])
        denominator = (state["second"] / (1 - beta2**t)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["first"], denominator, value=-group["lr"] / (1 - beta1**t))


def build_optimizer(model: torch.nn.Module, *, matrix_lr: float, other_lr: float, weight_decay: float) -> MuonAdamW:
    """Muon on every matrix inside the blocks (fused ones part by part), AdamW on embedding, head and norms."""
    parts = {"wqkv": 3, "wo": 1, "w_gate_up": 2, "w_down": 1}
    weights: dict[int, list[Tensor]] = {}
    for name, weight in model.named_parameters():
        weights.setdefault(parts.get(name.split(".")[-2], 0), []).append(weight)
    others = {"params": weights.pop(0), "lr": other_lr}
    matrices = {"lr": matrix_lr, "weight_decay": weight_decay}
    return MuonAdamW([*({"params": params, "parts": count, **matrices} for count, params in weights.items()), others])
