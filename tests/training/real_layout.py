"""A small random model in the layout of the published one: its 65,536 ids, its 1,024 tokens a picture."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import pre_tokenizers

from twgi.checkpoint.save import save
from twgi.decoding.engine import Engine
from twgi.decoding.events import Token
from twgi.decoding.grammar import Grammar
from twgi.decoding.guidance import Guidance
from twgi.decoding.params import Filter
from twgi.decoding.request import Request
from twgi.decoding.scheduler import most_positions
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.vocab import Vocab, image_name

SIZE, CODES = 65_536, 8_192
BEFORE = ["<s>", "<pad>", "</s>", "<unk>"]
AFTER = ["<eoss>", "<racm3:break>", *(f"<reserved{i:05d}>" for i in range(8198, 8710))]
VQ = VQConfig(base_channels=32, channel_multiplier=(1, 1, 1, 1, 1), num_res_blocks=1, attn_type="none",
              latent_channels=8, embed_dim=8, num_embeddings=CODES)  # fmt: skip


def tokenizer_json() -> str:
    """Marks and image tokens where the published tokenizer has them; the text tokens have made-up names."""
    names = [*BEFORE, *(image_name(code) for code in range(CODES)), *AFTER, "<reserved08706>", "<image>"]
    names += sorted(pre_tokenizers.ByteLevel.alphabet())
    names += [f"word{i}" for i in range(SIZE - len(names))]
    return json.dumps(
        {
            "version": "1.0",
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "vocab": {name: i for i, name in enumerate(names)}, "merges": []},
        }
    )


def save_real_layout(folder: Path, *, hidden: int = 128, layers: int = 2) -> Vocab:
    """Write the model; returns what its ids mean."""
    torch.manual_seed(0)
    text, vq = TextTokenizer.from_json(tokenizer_json()), VQModel(VQ)
    torch.nn.init.normal_(vq.quantize.embedding.weight, std=0.1)
    vocab = Vocab.from_names(text.names, tokens_per_image=VQ.tokens_per_image, size=SIZE, special=text.special_ids)
    config = TransformerConfig(
        vocab_size=SIZE, hidden_size=hidden, intermediate_size=2 * hidden, num_layers=layers, num_heads=2,
        num_kv_heads=2, max_positions=4096,
    )  # fmt: skip
    model = Transformer(config)
    model.init_weights()
    torch.nn.init.normal_(model.embed.weight, std=0.5)  # rows are told apart, and learnt by heart, many times sooner
    save(folder, model=model, vq=vq, tokenizer=MultimodalTokenizer(vocab, text, ImageTokenizer(vq, resolution=512)))
    return vocab


def greedy(model: Transformer, vocab: Vocab, prompt: Sequence[int], budget: int) -> list[int]:
    """The prompt and what the engine makes of it, each token the likeliest that the grammar allows; no guidance."""
    request = Request(
        id=0, prompt=tuple(prompt), text=Filter(temperature=0), image=Filter(temperature=0),
        grammar=Grammar(vocab=vocab, budget=budget, max_images=8), guidance={"picture": Guidance.normal(1.0)},
    )  # fmt: skip
    engine = Engine(model, vocab, tokens=most_positions(request))
    engine.submit(request)
    return [*prompt, *(event.token for event in engine.run() if isinstance(event, Token))]
