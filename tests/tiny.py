"""A tiny random checkpoint that likes to draw: 12 x 12 pixels, 9 tokens a picture, 16 codes."""

from pathlib import Path

import torch
from tests.tokenizer.tiny import CODES, multimodal_tokenizer

from twgi.checkpoint.load import save
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer

CONTEXT = 400


def save_tiny(folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint into `folder`; another seed is another model."""
    torch.manual_seed(seed)
    light = multimodal_tokenizer()
    vq = VQModel(
        VQConfig(
            resolution=12, base_channels=32, channel_multiplier=(1, 1, 1), num_res_blocks=1, latent_channels=8,
            num_embeddings=CODES, embed_dim=4,
        )
    )  # fmt: skip
    model = Transformer(
        TransformerConfig(
            vocab_size=light.vocab.size, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4,
            num_kv_heads=2, max_positions=CONTEXT,
        )
    )  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3)
        for often in (light.vocab.boi, light.vocab.eos):
            model.head.weight[often] *= 5.0
    tokenizer = MultimodalTokenizer(light.vocab, light.text, ImageTokenizer(vq, resolution=12))
    save(folder, model=model, vq=vq, tokenizer=tokenizer, defaults={"guidance": "icons", "text_temperature": 0.9})
    return folder
