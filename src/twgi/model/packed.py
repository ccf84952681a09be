"""The decoder laid out once more for decoding on a CPU in float32, so that a step is few and large operations.

Law: what a token computes depends on what it may see, not on what shares the pass nor on how many tokens do, if there
are `MIN_TOKENS` or more. That is a property of the matrix kernels; `PackedMatrix` tries them and takes one that has it.

The maths is `transformer.Block`'s; what differs is rounding. The weights of the norms before a matrix are in it, and so
are the mean that the norm of q and k subtracts and the root of the size over which a square is a mean. Channels that
turn together lie side by side, so that turning is one complex product.

Shapes: P packed tokens, D hidden size, F MLP width, N query heads, K key/value heads, A = N + K, H head size,
C = H / 2, I and O what a matrix reads and writes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from twgi.model.step import MIN_TOKENS, Step

if TYPE_CHECKING:
    from twgi.model.transformer import Block, Transformer

QK_NORM_EPS = 1e-5  # fixed in Chameleon, whatever rms_norm_eps says
CHUNK = 768  # inputs that one product sums over: of longer sums the kernels choose the order by the number of rows
BLOCKED_ROWS = 16  # the number of rows that oneDNN's layout is made for; any number works
BLOCKED_LEAST = 4  # rows from which on its bits do not depend on their number
TRIED = (2, 3, 4, 5, 7, 8, 9, 13, 17, 33, 64, 100, 130)  # numbers of rows


class PackedMatrix:
    """x @ weight.T for few rows: plain products with the transposed weight, where their bits do not depend on the
    number of rows (MKL with AVX-512), else oneDNN's blocked layout, whose bits do not."""

    def __init__(self, weight_OI: Tensor) -> None:
        self.blocked = None
        self.parts_IO = [part.contiguous() for part in weight_OI.detach().t().split(CHUNK)]
        if not plain_is_alike(*weight_OI.shape, torch.get_num_threads()) and torch.backends.mkldnn.is_available():
            self.blocked = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach().contiguous(), BLOCKED_ROWS)
            self.parts_IO = []

    def __call__(self, x_PI: Tensor, onto_PO: Tensor | None = None) -> Tensor:
        """The product; added to `onto_PO` in place where that is given."""
        if self.blocked is not None:
            padded = F.pad(x_PI, (0, 0, 0, max(0, BLOCKED_LEAST - x_PI.shape[0])))
            product = torch.ops.mkldnn._linear_pointwise(padded, self.blocked, None, "none", [], "")[: x_PI.shape[0]]
            return product if onto_PO is None else onto_PO.add_(product)
        return _product(x_PI, self.parts_IO, onto_PO)


def _product(x_PI: Tensor, parts_IO: list[Tensor], onto_PO: Tensor | None = None) -> Tensor:
    if len(parts_IO) == 1:
        return torch.mm(x_PI, parts_IO[0]) if onto_PO is None else onto_PO.addmm_(x_PI, parts_IO[0])
    for x_PC, part_CO in zip(x_PI.split(CHUNK, 1), parts_IO, strict=True):
        onto_PO = torch.mm(x_PC, part_CO) if onto_PO is None else onto_PO.addmm_(x_PC, part_CO)
    assert onto_PO is not None
    return onto_PO


@cache
def plain_is_alike(size_out: int, size_in: int, threads: int) -> bool:
    """Whether plain products of this shape give a row the same bits in any company; tried with random numbers."""
    generator = torch.Generator().manual_seed(threads)
    x_PI = torch.randn(max(TRIED), size_in, generator=generator)
    parts_IO = list(torch.randn(size_in, min(size_out, 2 * CHUNK), generator=generator).split(CHUNK))
    parts_IO = [part.contiguous() for part in parts_IO]
    whole = _product(x_PI, parts_IO)
    return all(_product(x_PI[-n:], parts_IO).equal(whole[-n:]) for n in TRIED)


class PackedBlock:
    """One block."""

    def __init__(self, block: Block) -> None:
        attention, mlp = block.attention, block.mlp
        self.layer, self.swin_norm, self.heads = block.layer, block.swin_norm, attention.num_heads
        size, head = len(block.attention_norm.weight), attention.head_dim
        self.head_dim, self.qk_heads = head, attention.num_heads + attention.num_kv_heads
        before = [norm.weight * size**0.5 for norm in (block.attention_norm, block.mlp_norm)]
        self.norms = before if self.swin_norm else []
        wqkv, w_gate_up = attention.wqkv.weight, mlp.w_gate_up.weight
        if not self.swin_norm:
            wqkv, w_gate_up = wqkv * before[0], w_gate_up * before[1]
        turned = torch.arange(head, device=wqkv.device).view(2, -1).t().flatten()
        qk_AHD, v_KHD = wqkv.view(-1, head, size).split([self.qk_heads, attention.num_kv_heads])
        qk_AHD = (qk_AHD - qk_AHD.mean(1, keepdim=True))[:, turned]
        self.wqkv = PackedMatrix(torch.cat((qk_AHD, v_KHD)).flatten(0, 1))
        self.qk_weight_AH = (attention.qk_norm.weight * head**0.5)[:, turned].contiguous()
        self.qk_bias_AH = attention.qk_norm.bias[:, turned].contiguous()
        self.wo, self.w_gate_up, self.w_down = map(PackedMatrix, (attention.wo.weight, w_gate_up, mlp.w_down.weight))
        self.least, self.qk_least = size * block.attention_norm.eps, head * QK_NORM_EPS

    def __call__(self, x_PD: Tensor, turn_P1C: Tensor, step: Step) -> Tensor:
        """The residual stream after this block; `x_PD` is used up."""
        if self.swin_norm:
            x_PD = torch.addcmul(x_PD, over_size(self._attention(x_PD, turn_P1C, step), self.least), self.norms[0])
            return torch.addcmul(x_PD, over_size(self._mlp(x_PD), self.least), self.norms[1])
        self._attention(over_size(x_PD, self.least), turn_P1C, step, x_PD)
        return self._mlp(over_size(x_PD, self.least), x_PD)

    def _attention(self, x_PD: Tensor, turn_P1C: Tensor, step: Step, onto_PD: Tensor | None = None) -> Tensor:
        qkv_PSH = self.wqkv(x_PD).view(x_PD.shape[0], -1, self.head_dim)
        qk_PAH, v_PKH = qkv_PSH[:, : self.qk_heads], qkv_PSH[:, self.qk_heads :]
        qk_PAH = torch.addcmul(self.qk_bias_AH, over_size(qk_PAH, self.qk_least), self.qk_weight_AH)
        turned_PAC = torch.view_as_complex(qk_PAH.view(*qk_PAH.shape[:2], -1, 2)).mul_(turn_P1C)
        qk_PAH = torch.view_as_real(turned_PAC).flatten(-2)
        seen_PNH = step.attend(self.layer, qk_PAH[:, : self.heads], qk_PAH[:, self.heads :], v_PKH)
        return self.wo(seen_PNH.flatten(1), onto_PD)

    def _mlp(self, x_PD: Tensor, onto_PD: Tensor | None = None) -> Tensor:
        gate_PF, up_PF = self.w_gate_up(x_PD).chunk(2, dim=-1)
        return self.w_down(F.silu(gate_PF).mul_(up_PF), onto_PD)


def over_size(x: Tensor, least: float) -> Tensor:
    """x over the root of |x|^2 + least, along the last dimension. (`hypot` has other bits at the end of a tensor.)"""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().add_(least).sqrt_()


class PackedDecoder:
    """All blocks and the head. A later change of the model's weights goes unseen."""

    def __init__(self, model: Transformer) -> None:
        self.embed_VD, self.head_VD = model.embed.weight, model.head.weight
        self.blocks = [PackedBlock(block) for block in model.blocks]  # type: ignore[arg-type]
        size, half = model.config.hidden_size, model.config.head_dim // 2
        self.turns_TC = torch.complex(model.cos[:, :half], model.sin[:, half:])
        self.norm_D, self.least = model.norm.weight * size**0.5, size * model.norm.eps
        self._heads: dict[int, tuple[Tensor | None, PackedMatrix]] = {}  # by ids

    def forward(self, tokens_N: Tensor, step: Step) -> Tensor:
        """As `Transformer.forward_cached`."""
        x_PD = F.embedding(F.pad(tokens_N, (0, step.padding)), self.embed_VD)
        turn_P1C = self.turns_TC[step.positions_P].unsqueeze(1)
        for block in self.blocks:
            x_PD = block(x_PD, turn_P1C, step)
        step.commit()
        return over_size(x_PD[: step.tokens], self.least).mul_(self.norm_D)

    def logits(self, hidden_RD: Tensor, ids_A: Tensor | None = None) -> Tensor:
        """As `Transformer.logits`; the part of the head that belongs to some ids is kept."""
        if id(ids_A) not in self._heads:
            self._heads[id(ids_A)] = ids_A, PackedMatrix(self.head_VD if ids_A is None else self.head_VD[ids_A])
        padded_RD = F.pad(hidden_RD, (0, 0, 0, max(0, MIN_TOKENS - len(hidden_RD))))
        return self._heads[id(ids_A)][1](padded_RD)[: len(hidden_RD)]
