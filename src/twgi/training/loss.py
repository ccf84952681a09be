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

from twgi.config import check_one_of
from twgi.errors import ConfigError
from twgi.vocab import Vocab

IGNORED = -100  # a label that carries no loss
NO_CODE = -1

Project = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """What is added to the cross entropy, and how much of it.

    A code vector is compared with the state that predicts its token (`next`), or has read it (`same`); a token finds
    it by its `name`, or by its place among the image `id`s. `same`, `id` and loss on padding are the published code's.
    """

    reconstruction: float = 1.0  # lambda of the visual feature reconstruction (arXiv 2505.22525)
    target: str = "next"
    discrepancy: float = 0.0  # of the token discrepancy loss (MVoT, arXiv 2501.07542)
    table: str = "name"
    padding_carries_loss: bool = False

    def __post_init__(self) -> None:
        for name in ("reconstruction", "discrepancy"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"loss.{name} must be 0 or more, got {getattr(self, name)}")
        check_one_of("loss.target", self.target, ("next", "same"))
        check_one_of("loss.table", self.table, ("name", "id"))


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
    """Mean squared error between projected hidden state (by `target`) and code vector of each supervised image token.

    `codes_BT` is as `label_codes` gives it; the result is float32 [M].
    """
    kept_BT = codes_BT[:, 1:] != NO_CODE
    states_BTD = hidden_BTD[:, :-1] if target == "next" else hidden_BTD[:, 1:]
    vectors_MC = codebook_KC[codes_BT[:, 1:][kept_BT]]
    return (project(states_BTD[kept_BT]).float() - vectors_MC.float()).square().mean(-1)


def discrepancies(logits_MV: Tensor, codes_M: Tensor, image_ids_K: Tensor, codebook_KC: Tensor) -> Tensor:
    """MVoT's token discrepancy (section 3.3 there) of each image token, float32 [M].

    That is the sum over image tokens k of P(k) * MSE(vector of k, true vector); `image_ids_K` are the codebook's ids.
    """
    table_KC = codebook_KC.float()
    chance_MK = logits_MV.index_select(1, image_ids_K).float().softmax(-1)
    squares_K = table_KC.square().sum(-1)
    products_MK = table_KC[codes_M] @ table_KC.T
    distances_MK = (squares_K[codes_M, None] + squares_K - 2 * products_MK).clamp(min=0) / table_KC.shape[1]
    return (chance_MK * distances_MK).sum(-1)
