"""Mask2Former and CLIP in their real architectures, tiny and random, as checkpoint folders."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from twgi.icons.world import NAMES


@cache
def mask2former() -> Any:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=12,
        id2label=dict(enumerate(NAMES)), label2id={name: i for i, name in enumerate(NAMES)},
    )  # fmt: skip
    torch.manual_seed(0)
    return Mask2FormerForUniversalSegmentation(config).eval()


@cache
def clip_parts() -> tuple[Any, dict[str, int]]:
    from transformers import CLIPConfig, CLIPModel

    alphabet = "abcdefghijklmnopqrstuvwxyz-"
    words = [*alphabet, *(f"{sign}</w>" for sign in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: index for index, word in enumerate(words)}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    marks = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = {**sizes, **marks, "vocab_size": len(words), "max_position_embeddings": 77}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    return model.eval(), vocab


def save_models(folder: Path) -> tuple[Path, Path]:
    """Folders of both, as `--weights` and `--clip` take them."""
    from transformers import CLIPTokenizer

    model, vocab = clip_parts()
    mask2former().save_pretrained(folder / "mask2former")
    model.save_pretrained(folder / "clip")
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder / "clip")
    return folder / "mask2former", folder / "clip"
