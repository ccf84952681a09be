"""The Chameleon decoder (arXiv 2405.09818; the maths of Hugging Face's `modeling_chameleon`).

Shapes: B batch, T positions, D hidden size, V vocabulary, F MLP width, N query heads, K key/value heads,
A = N + K, H head size, ... = B, T while training and one packed axis of tokens while decoding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from twgi.model.config import TransformerConfig
from twgi.model.fused import GatedSilu, RootMeanSquare, Rotation
from twgi.model.packed import QK_NORM_EPS, PackedDecoder
from twgi.model.step import Step

Rope = tuple[Tensor, Tensor]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q_...NH, k_...KH, v_...KH) -> mixed values of each query, ...NH."""

PLAIN = 128


class Linear(nn.Linear):
    """A matrix without bias."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__(size_in, size_out, bias=False)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x_D: Tensor) -> Tensor:
        if x_D.requires_grad and x_D.dtype == self.weight.dtype == torch.float32:
            return RootMeanSquare.apply(x_D, self.weight, self.eps)
        return F.rms_norm(x_D, self.weight.shape, self.weight, self.eps)


class HeadNorm(nn.Module):
    """LayerNorm inside each head, with one weight and bias per head; query and key heads in one call."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, head_dim))
        self.bias = nn.Parameter(torch.zeros(heads, head_dim))

    def forward(self, x_AH: Tensor) -> Tensor:
        normed_AH = F.layer_norm(x_AH, x_AH.shape[-1:], eps=QK_NORM_EPS)
        return torch.addcmul(self.bias.to(x_AH.dtype), normed_AH, self.weight.to(x_AH.dtype))


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.head_dim
        qk_heads = config.num_heads + config.num_kv_heads
        self.wqkv = Linear(config.hidden_size, (qk_heads + config.num_kv_heads) * self.head_dim)
        self.qk_norm = HeadNorm(qk_heads, self.head_dim)
        self.wo = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_D: Tensor, rope: Rope, layer: int, attend: Attend) -> Tensor:
        qkv_D = self.wqkv(x_D)
        qkv_SH = qkv_D.view(*qkv_D.shape[:-1], -1, self.head_dim)  # S = N + K + K
        qk_AH, v_KH = qkv_SH.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=-2)
        q_NH, k_KH = rotate(self.qk_norm(qk_AH), rope).split([self.num_heads, self.num_kv_heads], dim=-2)
        return self.wo(attend(layer, q_NH, k_KH, v_KH).flatten(-2))


class MLP(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.w_gate_up = Linear(config.hidden_size, 2 * config.intermediate_size)
        self.w_down = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_D: Tensor) -> Tensor:
        gate_up_F = self.w_gate_up(x_D)
        if gate_up_F.requires_grad:
            return self.w_down(GatedSilu.apply(gate_up_F))
        gate_F, up_F = gate_up_F.chunk(2, dim=-1)
        return self.w_down(F.silu(gate_F) * up_F)


class Block(nn.Module):
    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.swin_norm = layer, config.swin_norm
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x_D: Tensor, rope: Rope, attend: Attend) -> Tensor:
        if self.swin_norm:
            x_D = x_D + self.attention_norm(self.attention(x_D, rope, self.layer, attend))
            return x_D + self.mlp_norm(self.mlp(x_D))
        x_D = x_D + self.attention(self.attention_norm(x_D), rope, self.layer, attend)
        return x_D + self.mlp(self.mlp_norm(x_D))


class Transformer(nn.Module):
    """Tokens -> hidden states after the final norm -> logits. Embedding and head are separate matrices."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.packed: PackedDecoder | None = None
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = Linear(config.hidden_size, config.vocab_size)
        cos, sin = rope_table(config)
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """For training from nothing: normal(0.02), outputs into the residual stream zero, norms one."""
        for name, weight in self.named_parameters():
            if name.endswith(("wo.weight", "w_down.weight")) or name.endswith("bias"):
                weight.zero_()
            elif "norm" in name:
                weight.fill_(1.0)
            else:
                weight.normal_(0.0, 0.02, generator=generator)

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
        visible_BT: Tensor | None = None,
    ) -> Tensor:
        """Hidden states BTD after the final norm, for training. Right padding needs no mask.

        `documents_BT` (any integers) packs several rows into one: a position sees only its own document, and
        positions, when not given, start from 0 in each run of equal numbers. What is False in `visible_BT` is seen by
        no position, not even its own. With `recompute`, blocks keep no activations and run again for the gradient.
        """
        if positions_BT is None and documents_BT is not None:
            positions_BT = positions_in_documents(documents_BT)
        x_BTD = self.embed(tokens_BT)
        rope = self._rope(positions_BT, tokens_BT.shape[1], activation_dtype(x_BTD))
        attend = full_attention(documents_BT, visible_BT, tokens_BT.shape[1], rope[0])
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(block, x_BTD, rope, attend, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, rope, attend)
        return self.norm(x_BTD)

    @torch.inference_mode()
    def forward_cached(self, tokens_N: Tensor, step: Step) -> Tensor:
        """Append packed tokens to the cache rows of `step`; hidden states ND after the final norm, in their order.

        `hidden_ND[step.last_indices]` are the states that predict each row's next token.
        """
        assert tokens_N.shape == (step.tokens,), (tokens_N.shape, step.tokens)
        if self.packed is not None:
            return self.packed.forward(tokens_N, step)
        x_PD = self.embed(F.pad(tokens_N, (0, step.padding)))
        rope = self._rope(step.positions_P, len(x_PD), x_PD.dtype)
        for block in self.blocks:
            x_PD = block(x_PD, rope, step.attend)
        step.commit()
        return self.norm(x_PD)[: step.tokens]

    def logits(self, hidden_D: Tensor, ids_A: Tensor | None = None) -> Tensor:
        """Hidden states ...D -> logits ...V, or those of some ids ...A. While decoding on a CPU, with packed weights,
        those of a row do not depend on the other rows."""
        if self.packed is not None and hidden_D.ndim == 2:
            return self.packed.logits(hidden_D, ids_A)
        logits_V = self.head(hidden_D)
        return logits_V if ids_A is None else logits_V.index_select(-1, ids_A)

    def pack(self) -> Transformer:
        """Copy the weights into the layout that is fastest on a CPU, and whose bits do not depend on the batch.

        For decoding in float32 only: a change of the weights after it would go unseen.
        """
        self.packed = PackedDecoder(self)
        return self

    def unpack(self) -> Transformer:
        """Undo `pack`, so that weights may change."""
        self.packed = None
        return self

    def _rope(self, positions: Tensor | None, length: int, dtype: torch.dtype) -> Rope:
        places = slice(length) if positions is None else positions
        cos_H, sin_H = self.cos[places], self.sin[places]
        return cos_H.unsqueeze(-2).to(dtype), sin_H.unsqueeze(-2).to(dtype)


def rope_table(config: TransformerConfig) -> Rope:
    """cos and signed sin of every position and channel, TH each; the first half of sin carries the minus.

    On the CPU even where a model is built on the meta device: no checkpoint would fill them.
    """
    powers = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    positions = torch.arange(config.max_positions, dtype=torch.float32, device="cpu")
    angles = torch.outer(positions, 1.0 / config.rope_theta**powers)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x_AH: Tensor, rope: Rope) -> Tensor:
    """Rotary embedding, halves layout: channel i turns with channel i + H/2."""
    cos_H, sin_H = rope
    if x_AH.requires_grad:
        return Rotation.apply(x_AH, cos_H, sin_H)
    return torch.addcmul(x_AH * cos_H, x_AH.roll(x_AH.shape[-1] // 2, dims=-1), sin_H)


def activation_dtype(x: Tensor) -> torch.dtype:
    """What a linear layer returns for x: autocast's dtype where autocast is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def positions_in_documents(documents_BT: Tensor) -> Tensor:
    """0, 1, 2, ... in each run of equal document numbers."""
    index_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    starts_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    starts_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return index_T - torch.where(starts_BT, index_T, 0).cummax(dim=1).values


def full_attention(documents_BT: Tensor | None, visible_BT: Tensor | None, length: int, like: Tensor) -> Attend:
    """Causal attention over whole rows, inside documents where those are given; for training.

    On a CPU, and with a mask, the plain products are up to 3 times faster, forward and backward, than SDPA for rows of
    at most PLAIN positions. Without a mask SDPA is as fast for short rows, faster for long ones, and keeps no scores.
    """
    mask = None
    if documents_BT is not None or visible_BT is not None:
        mask = causal_mask(documents_BT, visible_BT, length, like)
    plain = mask is not None and like.device.type == "cpu" and length <= PLAIN

    def attend(_layer: int, q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor) -> Tensor:
        group = q_BTNH.shape[-2] // k_BTKH.shape[-2]
        if group > 1:
            k_BTKH, v_BTKH = k_BTKH.repeat_interleave(group, -2), v_BTKH.repeat_interleave(group, -2)
        q_BNTH, k_BNTH, v_BNTH = q_BTNH.transpose(1, 2), k_BTKH.transpose(1, 2), v_BTKH.transpose(1, 2)
        if plain and mask is not None:
            scores_BNTT = torch.matmul(q_BNTH * q_BNTH.shape[-1] ** -0.5, k_BNTH.mT).add_(mask)
            return torch.matmul(scores_BNTT.softmax(dim=-1), v_BNTH).transpose(1, 2)
        causal = mask is None
        return F.scaled_dot_product_attention(q_BNTH, k_BNTH, v_BNTH, mask, is_causal=causal).transpose(1, 2)

    return attend


def causal_mask(documents_BT: Tensor | None, visible_BT: Tensor | None, length: int, like: Tensor) -> Tensor:
    """0 where a position may look and minus infinity elsewhere: TT, or B1TT where rows differ."""
    allowed = torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    if documents_BT is not None:
        allowed = allowed & (documents_BT[:, None, :, None] == documents_BT[:, None, None, :])
    if visible_BT is not None:
        allowed = allowed & visible_BT[:, None, None, :]
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill_(~allowed, -torch.inf)
