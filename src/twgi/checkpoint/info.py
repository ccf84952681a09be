"""What a checkpoint is, in numbers, without loading it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from twgi.checkpoint.layout import Checkpoint
from twgi.checkpoint.load import sha256_of
from twgi.checkpoint.memory import sizes


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
        "modes": ["direct", "subgoal", "critique", "general"] if checkpoint.draws else ["general"],
        "trained_for": list(preset.modes) if preset else None,
    }  # fmt: skip


def layout_in_words(checkpoint: Checkpoint) -> str:
    """The layout as people call it."""
    if checkpoint.layout == "meta":
        shards = sum(file.name.startswith("consolidated") for file in checkpoint.tensors.files)
        return f"Meta, {shards} shard{'s' * (shards > 1)}"
    return "Hugging Face, the fork's" if checkpoint.draws else "Hugging Face, upstream's: no image decoder"
