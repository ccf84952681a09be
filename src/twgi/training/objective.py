"""What is trained: the decoder, the projection of the reconstruction loss, and how they become one number.

The terms of a batch are sums; `total` divides them by the counts of the whole step, so that neither padding, nor
accumulation, nor the number of devices changes what a token weighs.
"""

from __future__ import annotations

from dataclasses import dataclass

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
TERMS = ("text_ce", "image_ce", "reconstruction", "discrepancy")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Supervised tokens of a step: of text (marks of images are text here), and of images."""

    text: int
    image: int

    def divisors(self) -> dict[str, int]:
        """What each term's sum is divided by for its own mean."""
        return dict(zip(TERMS, (max(self.text, 1), *[max(self.image, 1)] * 3), strict=True))


class Objective(nn.Module):
    """Decoder and projection; a forward pass gives the terms of the loss, as sums.

    Args:
        decoder: the transformer; adapters may be injected into it.
        codebook_KC: the image tokenizer's code vectors, which stay as they are.
        vocab: which id is which code.
        weights: the terms that are added to the cross entropy. One of weight 0 is not computed.
    """

    def __init__(self, decoder: Transformer, codebook_KC: Tensor, vocab: Vocab, weights: LossWeights) -> None:
        super().__init__()
        self.decoder, self.weights, self.pad = decoder.unpack(), weights, vocab.pad
        self.projection = nn.Linear(decoder.config.hidden_size, codebook_KC.shape[1])
        self.projection.requires_grad_(weights.reconstruction > 0)
        self.codebook_KC: Tensor
        self.codes_V: Tensor
        self.image_ids_K: Tensor
        codes = codes_of_ids(vocab, weights.table)
        self.register_buffer("codebook_KC", codebook_KC.detach().clone(), persistent=False)
        self.register_buffer("codes_V", codes, persistent=False)
        self.register_buffer("image_ids_K", (codes != NO_CODE).nonzero()[:, 0][_order(codes)], persistent=False)

    def forward(self, ids_BT: Tensor, labels_BT: Tensor, documents_BT: Tensor | None = None) -> dict[str, Tensor]:
        """Sums of the terms in float32, by name (see `TERMS`)."""
        visible_BT = ids_BT != self.pad if self.weights.padding_carries_loss else None  # its states count then
        hidden_BTD = self.decoder(ids_BT, documents_BT=documents_BT, visible_BT=visible_BT)
        states_ND, targets_N = supervised(hidden_BTD, labels_BT)
        text, image, discrepancy = (term.clone() for term in self._token_terms(states_ND, targets_N))  # FSDP2: no views
        terms = {"text_ce": text, "image_ce": image}
        if self.weights.reconstruction > 0:
            codes_BT = label_codes(labels_BT, self.codes_V)
            errors_M = reconstruction_errors(
                hidden_BTD, codes_BT, self.projection, self.codebook_KC, self.weights.target
            )
            terms["reconstruction"] = errors_M.sum()
        return terms | ({"discrepancy": discrepancy} if self.weights.discrepancy > 0 else {})

    def _token_terms(self, states_ND: Tensor, targets_N: Tensor) -> Tensor:
        """[text CE, image CE, discrepancy], summed over the tokens: a piece at a time where logits would be many.

        Where even more would be kept for the gradient, a piece keeps none and makes them again: much less memory.
        """
        weight_VD = head_weight(self.decoder).to(activation_dtype(states_ND))
        size = max(1, PIECE_LOGITS[states_ND.device.type] // len(weight_VD))
        if len(states_ND) <= size:
            return self._piece(states_ND, targets_N, weight_VD)
        pieces = zip(states_ND.split(size), targets_N.split(size), strict=True)
        if len(states_ND) * len(weight_VD) <= KEPT_LOGITS:
            return torch.stack([self._piece(states, targets, weight_VD) for states, targets in pieces]).sum(0)
        parts = [checkpoint(self._piece, states, targets, weight_VD, use_reentrant=False) for states, targets in pieces]
        return torch.stack(parts).sum(0)

    def _piece(self, states_ND: Tensor, targets_N: Tensor, weight_VD: Tensor) -> Tensor:
        logits_NV = F.linear(states_ND.to(weight_VD.dtype), weight_VD)
        codes_N = self.codes_V[targets_N]
        drawn_N = codes_N != NO_CODE
        losses_N = cross_entropies(logits_NV, targets_N)
        sums = [losses_N[~drawn_N].sum(), losses_N[drawn_N].sum(), losses_N.new_zeros(())]
        if self.weights.discrepancy > 0:
            each_M = discrepancies(logits_NV[drawn_N], codes_N[drawn_N], self.image_ids_K, self.codebook_KC)
            sums[2] = each_M.sum()
        return torch.stack(sums)

    def count(self, labels_BT: Tensor) -> Tensor:
        """[text, image]: supervised tokens of a batch on the CPU, int64 [2]."""
        targets = labels_BT[:, 1:]
        targets = targets[targets != IGNORED].to(self.codes_V.device)
        image = (self.codes_V[targets] != NO_CODE).sum()
        return torch.stack((len(targets) - image, image))

    def total(self, terms: dict[str, Tensor], counts: Counts) -> Tensor:
        """The loss of a step, or this batch's part of it: CE + lambda x reconstruction + weight x discrepancy."""
        loss = (terms["text_ce"] + terms["image_ce"]) / max(counts.text + counts.image, 1)
        for name in ("reconstruction", "discrepancy"):
            if name in terms:
                loss = loss + getattr(self.weights, name) * terms[name] / max(counts.image, 1)
        return loss


def _order(codes_V: Tensor) -> Tensor:
    """The order that sorts the image ids by their code."""
    return codes_V[codes_V != NO_CODE].argsort()
