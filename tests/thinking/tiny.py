"""A tiny random model with a tiny random image tokenizer, as one would load it from a checkpoint."""

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from tests.tokenizer.tiny import CODES, multimodal_tokenizer

from twgi.checkpoint.load import ModelDescription
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.thinking.thinker import Thinker
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer

SIDE, CONTEXT = 12, 400


def description(**defaults: Any) -> ModelDescription:
    return ModelDescription(name="tiny", sha256="0" * 64, defaults=defaults)


@cache
def tokenizer() -> MultimodalTokenizer:
    config = VQConfig(
        resolution=SIDE, base_channels=32, channel_multiplier=(1, 1, 1), num_res_blocks=1, latent_channels=8,
        num_embeddings=CODES, embed_dim=8, attn_type="none",
    )  # fmt: skip
    torch.manual_seed(0)
    vq = VQModel(config).eval().requires_grad_(False)
    return replace(multimodal_tokenizer(), image=ImageTokenizer(vq, resolution=SIDE))


def other_codebook(ours: MultimodalTokenizer) -> MultimodalTokenizer:
    """The same tokenizer with the codes in another order."""
    assert ours.image is not None
    vq = copy.deepcopy(ours.image.vq)
    vq.quantize.embedding.weight.data = vq.quantize.embedding.weight.data.flip(0)
    return replace(ours, image=replace(ours.image, vq=vq))


@cache
def model() -> Transformer:
    config = TransformerConfig(
        vocab_size=tokenizer().vocab.size, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4,
        num_kv_heads=4, max_positions=CONTEXT,
    )  # fmt: skip
    network = Transformer(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(0.0, 0.3, generator=generator)
        network.head.weight[tokenizer().vocab.boi] *= 2.0
    return network.eval().requires_grad_(False).pack()


def thinker(**defaults: Any) -> Thinker:
    return Thinker(model(), tokenizer(), description(**defaults))
