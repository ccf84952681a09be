"""Chameleon's image tokenizer: a convolutional encoder, a codebook, a convolutional decoder (VQGAN, Esser et al. 2021).

Shapes: B pictures, C channels, H x W pixels or latent cells, N = H * W cells in raster order, D = width of a code.
Module names are those of the published checkpoints (`encoder.down.0.block.0.conv1`, `quantize.embedding`, ...).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twgi.model.config import VQConfig


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = group_norm(c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.nin_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x_BCHW)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x_BCHW) if hasattr(self, "nin_shortcut") else x_BCHW)


class AttnBlock(nn.Module):
    """Single-head self-attention over all cells of the latent picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.norm(x_BCHW)
        q_BNC, k_BNC, v_BNC = (f(h).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        out_BNC = F.scaled_dot_product_attention(q_BNC[:, None], k_BNC[:, None], v_BNC[:, None])[:, 0]
        return x_BCHW + self.proj_out(out_BNC.transpose(1, 2).reshape(x_BCHW.shape))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # not F.interpolate: torch 2.13's compiler gives it no gradient in bfloat16 on the CPU
        return self.conv(x_BCHW.repeat_interleave(2, 2).repeat_interleave(2, 3))


class Middle(nn.Module):
    def __init__(self, channels: int, attn_type: str) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels) if attn_type == "vanilla" else nn.Identity()
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x_BCHW)))


class Level(nn.Module):
    """Blocks at one resolution, then (not at the last level) a change of resolution."""

    def __init__(self, c_in: int, c_out: int, blocks: int, attend: bool, resample: str | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(c_in if i == 0 else c_out, c_out) for i in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(c_out) for _ in range(blocks if attend else 0))
        if resample == "down":
            self.downsample = Downsample(c_out)
        elif resample == "up":
            self.upsample = Upsample(c_out)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x_BCHW = block(x_BCHW)
            if self.attn:
                x_BCHW = self.attn[i](x_BCHW)
        resample = getattr(self, "downsample", None) or getattr(self, "upsample", None)
        return x_BCHW if resample is None else resample(x_BCHW)


class Encoder(nn.Module):
    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in config.channel_multiplier]
        last, resolution = len(widths) - 1, config.resolution
        self.conv_in = nn.Conv2d(config.in_channels, config.base_channels, 3, padding=1)
        levels, c_in = [], config.base_channels
        for i, c_out in enumerate(widths):
            attend = config.attends_at(resolution >> i)
            levels.append(Level(c_in, c_out, config.num_res_blocks, attend, "down" if i < last else None))
            c_in = c_out
        self.down = nn.ModuleList(levels)
        self.mid = Middle(c_in, config.attn_type)
        self.norm_out = group_norm(c_in)
        out = 2 * config.latent_channels if config.double_latent else config.latent_channels
        self.conv_out = nn.Conv2d(c_in, out, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.conv_in(x_BCHW)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """The encoder's mirror with one more block a level; `up.0` is the finest level, as in the published files."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in config.channel_multiplier]
        c_in = widths[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, c_in, 3, padding=1)
        self.mid = Middle(c_in, config.attn_type)
        levels: list[Level] = []
        for i in reversed(range(len(widths))):
            attend = config.attends_at(config.resolution >> i)
            levels.insert(0, Level(c_in, widths[i], config.num_res_blocks + 1, attend, "up" if i else None))
            c_in = widths[i]
        self.up = nn.ModuleList(levels)
        self.norm_out = group_norm(c_in)
        self.conv_out = nn.Conv2d(c_in, config.out_channels, 3, padding=1)

    def forward(self, z_BCHW: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z_BCHW))
        for level in reversed(list(self.up)):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Codebook(nn.Module):
    """The table of code vectors; a latent cell becomes the index of the nearest one."""

    def __init__(self, num_embeddings: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_embeddings, width)

    def nearest(self, z_ND: Tensor) -> Tensor:
        """Index of the nearest code for each row: [N, D] -> [N]."""
        table_KD = self.embedding.weight
        distance_NK = z_ND.pow(2).sum(1, keepdim=True) + table_KD.pow(2).sum(1) - 2 * z_ND @ table_KD.T
        return distance_NK.argmin(1)


class VQModel(nn.Module):
    """Pictures to codes and back: `encode` and `decode` are all that drawing and looking need.

    Without `draws` there is no decoder: some published checkpoints can only look.
    """

    def __init__(self, config: VQConfig, *, draws: bool = True) -> None:
        super().__init__()
        self.config, self.draws = config, draws
        self.encoder = Encoder(config)
        if draws:
            self.decoder = Decoder(config)
        self.quantize = Codebook(config.num_embeddings, config.embed_dim)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.embed_dim, 1)
        if draws:
            self.post_quant_conv = nn.Conv2d(config.embed_dim, config.latent_channels, 1)

    def latents(self, pixels_BCHW: Tensor) -> Tensor:
        """Latent cells before quantisation, [B, N, D]; pixels in -1..1."""
        return self.quant_conv(self.encoder(pixels_BCHW)).flatten(2).transpose(1, 2)

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """Codes in raster order, int64 [B, N]; pixels in -1..1."""
        z_BND = self.latents(pixels_BCHW)
        return self.quantize.nearest(z_BND.flatten(0, 1)).view(z_BND.shape[:2])

    def decode_latents(self, z_BND: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] from code vectors [B, N, D] of a square picture."""
        side = self.config.grid
        z_BDHW = z_BND.transpose(1, 2).reshape(z_BND.shape[0], -1, side, side)
        return self.decoder(self.post_quant_conv(z_BDHW.contiguous(memory_format=torch.channels_last)))

    def decode(self, codes_BN: Tensor) -> Tensor:
        """Pixels [B, 3, H, W], about -1..1 (not clamped), from codes in raster order."""
        return self.decode_latents(self.quantize.embedding(codes_BN))
