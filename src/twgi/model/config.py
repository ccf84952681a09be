"""Sizes of the two networks: plain values that check themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class VQConfig:
    """Sizes of the image tokenizer, with the meaning of Hugging Face's `ChameleonVQVAEConfig`."""

    resolution: int = 512
    in_channels: int = 3
    out_channels: int = 3
    base_channels: int = 128
    channel_multiplier: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = ()
    attn_type: str = "vanilla"
    latent_channels: int = 256
    double_latent: bool = False
    num_embeddings: int = 8192
    embed_dim: int = 256

    @property
    def grid(self) -> int:
        """Latent cells along one side of the picture."""
        return self.resolution >> (len(self.channel_multiplier) - 1)

    @property
    def tokens_per_image(self) -> int:
        return self.grid**2

    def attends_at(self, resolution: int) -> bool:
        return resolution in self.attn_resolutions and self.attn_type == "vanilla"
