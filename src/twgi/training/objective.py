"""What is trained: the decoder, the projection of the reconstruction loss, and how they become one number.

The terms of a batch are sums; `total` divides them by the counts of the whole step, so that neither padding, nor
accumulation, nor the number of devices changes what a token weighs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from twgi.model.transformer import Transformer, activation_dtype
from twgi.training.lora import head_weight
from twgi.training.loss import (
    IGNORED,
    NO_CODE,
    LossWeights,
    codes_of_ids,
    cross_entropies,
    discrepancies,
    label_codes,
    reconstruction_errors,
    supervised,
)
from twgi.vocab import Vocab

PIECE_LOGITS = {"cpu": 2**26, "cuda": 2**27}  # logits that are made at once
KEPT_LOGITS = 2**28  # logits that are kept for the gradient at most

Batch = Mapping[str, Any]
"""Tensors of one forward pass by name, and `sources`: where its rows come from."""
Terms = dict[str, Tensor]


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
        states_ND, targets_N = supervised(hidden_BTD, labels_BT)
        weights_N = torch.ones(len(targets_N), device=targets_N.device)
        if "weights" in batch:
            weights_N = batch["weights"][:, 1:][labels_BT[:, 1:] != IGNORED]
        sums = self._token_terms(states_ND, targets_N, weights_N)
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
        losses_N = cross_entropies(logits_NV, targets_N) * weights_N
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
