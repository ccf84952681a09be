"""The tiny random model of `tests.thinking.tiny` as a checkpoint folder."""

from pathlib import Path

import torch
from tests.thinking.tiny import model, tokenizer

from twgi.checkpoint.save import save


def save_tiny(folder: Path, *, other: bool = False) -> Path:
    """Write the checkpoint into `folder`, or one whose weights are a little different."""
    vq, weights = tokenizer().image, model()
    assert vq is not None
    defaults = {"guidance": "icons", "text_temperature": 0.9}
    with torch.no_grad():
        weights.norm.weight.mul_(1.01 if other else 1.0)
        save(folder, model=weights, vq=vq.vq, tokenizer=tokenizer(), defaults=defaults)
        weights.norm.weight.div_(1.01 if other else 1.0)
    return folder
