"""Sizes of the two networks: plain values that check themselves."""

from __future__ import annotations

from dataclasses import dataclass

from twgi.errors import ConfigError


def _require_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not value > 0:
            raise ConfigError(f"{type(owner).__name__}.{name} must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of the decoder. `num_kv_heads` below `num_heads` is grouped-query attention; `swin_norm` puts the
    norms after attention and MLP (Chameleon-30B) instead of before them (7B)."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    max_positions: int = 4096
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    swin_norm: bool = False

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        _require_positive(self, *sizes, "max_positions", "rope_theta", "rms_norm_eps")
        if self.hidden_size % (2 * self.num_heads):
            raise ConfigError(f"hidden_size {self.hidden_size} must be a multiple of 2 x num_heads ({self.num_heads})")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads {self.num_heads} must be a multiple of num_kv_heads {self.num_kv_heads}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


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

    def __post_init__(self) -> None:
        sizes = ("resolution", "in_channels", "out_channels", "base_channels", "num_res_blocks")
        _require_positive(self, *sizes, "latent_channels", "num_embeddings", "embed_dim")
        if not self.channel_multiplier or min(self.channel_multiplier) < 1:
            raise ConfigError(f"channel_multiplier must be positive numbers, got {self.channel_multiplier}")
        if self.attn_type not in ("vanilla", "none"):
            raise ConfigError(f"attn_type must be 'vanilla' or 'none', got {self.attn_type!r}")
        if self.base_channels % 32:
            raise ConfigError(f"base_channels must be a multiple of 32 (group norm), got {self.base_channels}")
        if self.grid << (len(self.channel_multiplier) - 1) != self.resolution:
            raise ConfigError(f"resolution {self.resolution} cannot be halved {len(self.channel_multiplier) - 1} times")

    @property
    def grid(self) -> int:
        """Latent cells along one side of the picture."""
        return self.resolution >> (len(self.channel_multiplier) - 1)

    @property
    def tokens_per_image(self) -> int:
        return self.grid**2

    def attends_at(self, resolution: int) -> bool:
        return resolution in self.attn_resolutions and self.attn_type == "vanilla"
