"""The same random weights in Hugging Face's Chameleon and in ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from twgi.checkpoint import hf
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel

TINY: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 112, "num_layers": 2, "num_heads": 4,
    "num_kv_heads": 4, "max_positions": 256,
}  # fmt: skip
TINY_VQ: dict[str, Any] = {
    "resolution": 16, "base_channels": 32, "channel_multiplier": (1, 2), "num_res_blocks": 1, "embed_dim": 8,
    "num_embeddings": 32, "latent_channels": 8,
}  # fmt: skip


def chameleon(config: TransformerConfig, vq_config: VQConfig) -> Any:
    """Hugging Face's model of these sizes, with random weights; norms and their biases are not trivial."""
    from transformers import ChameleonConfig, ChameleonForConditionalGeneration

    raw = hf.write_config(config, vq_config) | {"vocabulary_map": {"<image>": 3}}
    drop = ("architectures", "model_type", "quantization_config", "rope_scaling")
    settings = {key: value for key, value in raw.items() if key not in drop}
    model = ChameleonForConditionalGeneration(ChameleonConfig(**settings)).eval()
    randomise(model)
    return model


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            weight.copy_(noise * 0.3 + name.endswith("weight"))
        elif name.endswith("bias"):
            weight.copy_(noise * 0.1)
        else:
            weight.copy_(noise * (1.0 if "embed" in name else 0.7 * weight[0].numel() ** -0.5))


def ours(config: TransformerConfig, theirs: Any) -> Transformer:
    """Our decoder with the weights of theirs."""
    tensors: dict[str, Tensor] = theirs.state_dict()
    model = Transformer(config).eval().requires_grad_(False)
    names = hf.names(config).items()
    model.load_state_dict({name: torch.cat([tensors[part] for part in parts]) for name, parts in names})
    return model


def our_vq(config: VQConfig, theirs: Any) -> VQModel:
    """Our image tokenizer with the weights of theirs, which has no decoder."""
    vq = VQModel(config).eval().requires_grad_(False)
    loaded = vq.load_state_dict(theirs.model.vqmodel.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.startswith("decoder.") for key in loaded.missing_keys)
    return vq


def states(theirs: Any, tokens_BT: Tensor, **options: Any) -> Any:
    """Their decoder's output. Not their whole forward pass: that one masks the logits of image tokens."""
    with torch.no_grad():
        return theirs.model(input_ids=tokens_BT, **options)
