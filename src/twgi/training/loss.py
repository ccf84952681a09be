"""Losses, each a plain function; the shift between a token and what predicts it happens here and nowhere else."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # a label that carries no loss


def token_loss_sum(hidden_BTD: Tensor, labels_BT: Tensor, head: Tensor) -> Tensor:
    """Summed cross entropy of every label but the ignored ones; position t predicts label t + 1."""
    targets = labels_BT[:, 1:].flatten()
    kept = targets != IGNORED
    logits_NV = F.linear(hidden_BTD[:, :-1].flatten(0, 1)[kept], head)
    return F.cross_entropy(logits_NV.float(), targets[kept], reduction="sum")
