"""What is trained, and its losses: plain functions, and the module in which they become one number.

Every loss is one number for each token, and the terms of a batch are sums; `total` divides them by the counts of the
whole step, so that neither padding, nor accumulation, nor the number of devices changes what a token weighs.
The shift between a token and what predicts it happens here and nowhere else.

Shapes: B rows, T positions, D hidden size, N supervised tokens, M supervised image tokens, V vocabulary, K codes,
C width of a code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from twgi.config import check_one_of
from twgi.errors import ConfigError
from twgi.model.transformer import Transformer, activation_dtype
from twgi.training.lora import head_weight
from twgi.vocab import Vocab

IGNORED = -100  # a label that carries no loss
NO_CODE = -1
PIECE_LOGITS = {"cpu": 2**26, "cuda": 2**27}  # logits that are made at once
KEPT_LOGITS = 2**28  # logits that are kept for the gradient at most

Batch = Mapping[str, Any]  # tensors of one forward pass by name, and `sources`: where its rows come from
Terms = dict[str, Tensor]


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


def reconstruction_errors(
    hidden_BTD: Tensor, codes_BT: Tensor, project: Callable[[Tensor], Tensor], codebook_KC: Tensor, target: str = "next"
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


class LossModule(nn.Module):
    """What the loop trains. A forward pass takes a `Batch` and gives the terms of its loss."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def count(self, batch: Batch) -> Tensor:
        """What a batch adds to the divisors of its step, int64."""
        raise NotImplementedError

    def total(self, terms: Terms, counts: Tensor) -> Tensor:
        """A batch's part of the step's loss; `counts` are those of the whole step."""
        raise NotImplementedError

    def means(self, terms: Terms, counts: Tensor) -> Terms:
        """A batch's part of what is logged of the step."""
        return terms

    def moving(self) -> dict[str, Tensor]:
        """Tensors that change, beside the parameters that train: they belong into a checkpoint."""
        return {}


class Objective(LossModule):
    """Decoder (with adapters in it or not) and projection over token rows; a term of weight 0 is not computed.

    Counts are of supervised tokens: [text with the marks of images, image]. The code vectors stay as they are.
    """

    def __init__(self, decoder: Transformer, codebook_KC: Tensor, vocab: Vocab, weights: LossWeights) -> None:
        super().__init__()
        self.decoder, self.weights, self.pad = decoder.unpack(), weights, vocab.pad
        self.projection = nn.Linear(decoder.config.hidden_size, codebook_KC.shape[1])
        self.projection.requires_grad_(weights.reconstruction > 0)
        codes_V = codes_of_ids(vocab, weights.table)
        image_ids_K = codes_V.argsort()[-len(vocab.image_tokens) :]  # after all that have NO_CODE
        self.codebook_KC = nn.Buffer(codebook_KC.detach().clone(), persistent=False)
        self.codes_V = nn.Buffer(codes_V, persistent=False)
        self.image_ids_K = nn.Buffer(image_ids_K, persistent=False)

    def forward(self, batch: Batch) -> Terms:
        """Sums of the terms, float32: text_ce, image_ce, reconstruction, discrepancy.

        `batch` has ids, labels, and perhaps documents (see `collate`), all [B, T]; and perhaps weights, float32
        [B, T], by which each label's cross entropy is multiplied (a policy's advantages; 1 where nothing is said).
        """
        ids_BT, labels_BT = batch["ids"], batch["labels"]
        visible_BT = ids_BT != self.pad if self.weights.padding_carries_loss else None  # its states count then
        hidden_BTD = self.decoder(ids_BT, documents_BT=batch.get("documents"), visible_BT=visible_BT)
        kept_BT = labels_BT[:, 1:] != IGNORED
        targets_N = labels_BT[:, 1:][kept_BT]
        weights_N = batch["weights"][:, 1:][kept_BT] if "weights" in batch else torch.ones_like(targets_N).float()
        sums = self._token_terms(hidden_BTD[:, :-1][kept_BT], targets_N, weights_N)
        text, image, discrepancy = (term.clone() for term in sums)  # FSDP2: no views
        terms = {"text_ce": text, "image_ce": image}
        if self.weights.reconstruction > 0:
            codes_BT = label_codes(labels_BT, self.codes_V)
            errors_M = reconstruction_errors(
                hidden_BTD, codes_BT, self.projection, self.codebook_KC, self.weights.target
            )
            terms["reconstruction"] = errors_M.sum()
        return terms | ({"discrepancy": discrepancy} if self.weights.discrepancy > 0 else {})

    def _token_terms(self, states_ND: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        """[text CE, image CE, discrepancy], summed over the tokens: a piece at a time where logits would be many.

        Where even more would be kept for the gradient, a piece keeps none and makes them again: much less memory.
        """
        weight_VD = head_weight(self.decoder).to(activation_dtype(states_ND))
        size = max(1, PIECE_LOGITS[states_ND.device.type] // len(weight_VD))
        pieces = zip(states_ND.split(size), targets_N.split(size), weights_N.split(size), strict=True)
        kept = len(states_ND) * len(weight_VD) <= KEPT_LOGITS
        run = self._piece if kept else partial(checkpoint, self._piece, use_reentrant=False)
        return torch.stack([run(*piece, weight_VD) for piece in pieces]).sum(0)

    def _piece(self, states_ND: Tensor, targets_N: Tensor, weights_N: Tensor, weight_VD: Tensor) -> Tensor:
        logits_NV = F.linear(states_ND.to(weight_VD.dtype), weight_VD)
        codes_N = self.codes_V[targets_N]
        drawn_N = codes_N != NO_CODE
        losses_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none") * weights_N
        sums = [losses_N[~drawn_N].sum(), losses_N[drawn_N].sum(), losses_N.new_zeros(())]
        if self.weights.discrepancy > 0:
            each_M = discrepancies(logits_NV[drawn_N], codes_N[drawn_N], self.image_ids_K, self.codebook_KC)
            sums[2] = each_M.sum()
        return torch.stack(sums)

    def count(self, batch: Batch) -> Tensor:
        """[text, image], int64."""
        targets = batch["labels"][:, 1:]
        targets = targets[targets != IGNORED].to(self.codes_V.device)
        image = (self.codes_V[targets] != NO_CODE).sum()
        return torch.stack((len(targets) - image, image))

    def total(self, terms: Terms, counts: Tensor) -> Tensor:
        """CE + lambda x reconstruction + weight x discrepancy, each a mean over the step's tokens."""
        text, image = counts.tolist()
        loss = (terms["text_ce"] + terms["image_ce"]) / max(text + image, 1)
        for name in ("reconstruction", "discrepancy"):
            if name in terms:
                loss = loss + getattr(self.weights, name) * terms[name] / max(image, 1)
        return loss

    def means(self, terms: Terms, counts: Tensor) -> Terms:
        """Each term over its own tokens, and `ce` over all of them."""
        text, image = counts.tolist()
        found = {name: term / max(text if name == "text_ce" else image, 1) for name, term in terms.items()}
        return found | {"ce": (terms["text_ce"] + terms["image_ce"]) / max(text + image, 1)}
