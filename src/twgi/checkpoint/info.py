"""What a checkpoint is, in numbers, without loading it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch

from twgi.checkpoint import hf
from twgi.checkpoint.layout import Checkpoint
from twgi.checkpoint.load import sha256_of
from twgi.model.config import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers of weights: of the blocks and the final norm, of the embedding, of the head, of the image part."""

    body: int
    embedding: int
    head: int
    image: int

    @property
    def language(self) -> int:
        return self.body + self.embedding + self.head


def sizes(checkpoint: Checkpoint) -> Sizes:
    """Count the weights from what the files say."""
    counts: Counter[str] = Counter()
    for name, entry in checkpoint.tensors.stored.items():
        counts[_part(name)] += torch.Size(entry.shape).numel()
    return Sizes(body=counts["body"], embedding=counts["embedding"], head=counts["head"], image=counts["image"])


def _part(name: str) -> str:
    if name.startswith(hf.VQ_PREFIX):
        return "image"
    return {"model.embed_tokens.weight": "embedding", "lm_head.weight": "head"}.get(name, "body")


def kv_bytes_per_token(config: TransformerConfig, dtype: torch.dtype) -> int:
    """Keys and values of one position in all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that can be said of a checkpoint, ready for JSON."""
    counts, vocab = sizes(checkpoint), checkpoint.vocab
    dtypes = Counter(str(entry.dtype).removeprefix("torch.") for entry in checkpoint.tensors.stored.values())
    preset = checkpoint.preset
    return {
        "name": checkpoint.name,
        "folder": str(checkpoint.folder),
        "layout": layout_in_words(checkpoint),
        "files": [file.name for file in checkpoint.tensors.files],
        "sha256": sha256_of(checkpoint.tensors.files),
        "parameters": {**asdict(counts), "total": counts.language + counts.image},
        "dtypes": dict(dtypes),
        "model": asdict(checkpoint.config),
        "image_tokenizer": asdict(checkpoint.vq_config),
        "tokens": {
            "vocabulary": vocab.size, "text": len(vocab.text_ids), "reserved": len(vocab.reserved), **vocab.special,
            "image_tokens": [min(vocab.image_tokens), max(vocab.image_tokens)], "codes": len(vocab.image_tokens),
            "tokens_per_image": vocab.tokens_per_image, "config_bos": checkpoint.config_bos,
        },
        "draws": checkpoint.draws,
        "trained_for": list(preset.modes) if preset else None,
    }  # fmt: skip


def layout_in_words(checkpoint: Checkpoint) -> str:
    """The layout as people call it."""
    if checkpoint.layout == "meta":
        shards = sum(file.name.startswith("consolidated") for file in checkpoint.tensors.files)
        return f"Meta, {shards} shard{'s' * (shards > 1)}"
    return "Hugging Face, the fork's" if checkpoint.draws else "Hugging Face, upstream's: no image decoder"
