"""Losses, each a plain function; the shift between a token and what predicts it happens here and nowhere else.

Shapes: B rows, T positions, D hidden size, N supervised tokens, M supervised image tokens, V vocabulary, K codes,
C width of a code. Every function gives one number for each token, not their mean: what they are divided by is known
only where all rows of a step are, on all devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from twgi.errors import ConfigError
from twgi.vocab import Vocab

IGNORED = -100  # a label that carries no loss
NO_CODE = -1
TARGETS = ("next", "same")
TABLES = ("name", "id")

Project = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """What is added to the cross entropy, and how much of it.

    Args:
        reconstruction: of the visual feature reconstruction (arXiv 2505.22525); lambda in the paper.
        target: the hidden state that is compared with a code vector: the one that predicts the token (`next`), or
            the one that has read it (`same`, as the published code does).
        discrepancy: of the token discrepancy loss (MVoT, arXiv 2501.07542).
        table: how a token finds its code vector: by its `name`, or by its place among the image `id`s (as the
            published code does).
        padding_carries_loss: the published code's labels of padding; no use but to compare with it.
    """

    reconstruction: float = 1.0
    target: str = "next"
    discrepancy: float = 0.0
    table: str = "name"
    padding_carries_loss: bool = False

    def __post_init__(self) -> None:
        for name in ("reconstruction", "discrepancy"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"loss.{name} must be 0 or more, got {getattr(self, name)}")
        if self.target not in TARGETS:
            raise ConfigError(f"loss.target must be one of {', '.join(TARGETS)}, got {self.target!r}")
        if self.table not in TABLES:
            raise ConfigError(f"loss.table must be one of {', '.join(TABLES)}, got {self.table!r}")


def as_published(weights: LossWeights) -> LossWeights:
    """The same terms, computed as the published trainer does."""
    return replace(weights, target="same", table="id", padding_carries_loss=True)


def codes_of_ids(vocab: Vocab, table: str = "name") -> Tensor:
    """Row of the codebook for every id, int64 [V]; NO_CODE for what is no image token."""
    ids = vocab.image_tokens if table == "name" else sorted(vocab.image_tokens)
    codes = torch.full((vocab.size,), NO_CODE)
    codes[torch.tensor(ids)] = torch.arange(len(ids))
    return codes


def label_codes(labels_BT: Tensor, codes_of_ids_V: Tensor) -> Tensor:
    """Code of every supervised image token, NO_CODE elsewhere, [B, T]; the first label of a row predicts nothing."""
    codes_BT = torch.where(labels_BT >= 0, codes_of_ids_V[labels_BT.clamp(min=0)], NO_CODE)
    return F.pad(codes_BT[:, 1:], (1, 0), value=NO_CODE)


def supervised(hidden_BTD: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """(hidden states [N, D], labels [N]): position t predicts label t + 1, and IGNORED ones are left out."""
    targets = labels_BT[:, 1:].flatten()
    kept = targets != IGNORED
    return hidden_BTD[:, :-1].flatten(0, 1)[kept], targets[kept]


def cross_entropies(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Cross entropy of each token, float32 [N]."""
    return F.cross_entropy(logits_NV.float(), targets_N, reduction="none")


def reconstruction_errors(
    hidden_BTD: Tensor, codes_BT: Tensor, project: Project, codebook_KC: Tensor, target: str = "next"
) -> Tensor:
    """Mean squared error between projected hidden state and code vector, of each supervised image token, float32 [M].

    `codes_BT` is as `label_codes` gives it. `target` says which hidden state belongs to a token: see `LossWeights`.
    """
    kept_BT = codes_BT[:, 1:] != NO_CODE
    states_BTD = hidden_BTD[:, :-1] if target == "next" else hidden_BTD[:, 1:]
    vectors_MC = codebook_KC[codes_BT[:, 1:][kept_BT]]
    return (project(states_BTD[kept_BT]).float() - vectors_MC.float()).square().mean(-1)


def discrepancies(logits_MV: Tensor, codes_M: Tensor, image_ids_K: Tensor, codebook_KC: Tensor) -> Tensor:
    """MVoT's token discrepancy of each image token, float32 [M].

    The expected mean squared distance, over what the model would draw among the image tokens, between the code vector
    of that and the true one: sum over k of P(k) * MSE(vector of k, true vector) (section 3.3 there). `image_ids_K`
    are the ids of the codebook's rows, in their order.
    """
    table_KC = codebook_KC.float()
    chance_MK = logits_MV.index_select(1, image_ids_K).float().softmax(-1)
    squares_K = table_KC.square().sum(-1)
    products_MK = table_KC[codes_M] @ table_KC.T
    distances_MK = (squares_K[codes_M, None] + squares_K - 2 * products_MK).clamp(min=0) / table_KC.shape[1]
    return (chance_MK * distances_MK).sum(-1)
