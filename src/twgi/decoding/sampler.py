"""From the logits of all rows to one drawn token for each sequence: tensors in, tensors out.

A draw is argmax(log p + noise) with Gumbel noise that is a pure function of (seed, prompt, sample, position, token):
counter-based, as Salmon et al. (2011), with SplitMix64's mixer. So a draw does not depend on what is drawn beside it,
before it, or after it.

Shapes: N rows of the step, R draws, W branches of one sequence, A allowed ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twgi.decoding.params import Filter

WeightedRows = Sequence[tuple[int, float]]
"""The rows of one sequence (places among the N) and their guidance weights."""

GAMMA = 0x9E3779B97F4A7C15
MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def gumbel(starts_R: Tensor, ids_A: Tensor) -> Tensor:
    """Standard Gumbel noise RA (float64) for each start of a stream and each token id, both int64."""
    bits_RA = starts_R.unsqueeze(1) + (ids_A + 1) * _signed(GAMMA)
    for shift, factor in MIXERS:
        bits_RA = (bits_RA ^ _shifted(bits_RA, shift)) * _signed(factor)
    bits_RA = bits_RA ^ _shifted(bits_RA, 31)
    uniform_RA = (_shifted(bits_RA, 12).double() + 0.5) * 2.0**-52  # never 0 and never 1
    return uniform_RA.log_().neg_().log_().neg_()


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _shifted(words: Tensor, count: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (words >> count) & (2 ** (64 - count) - 1)


def combined(logits_NA: Tensor, rows: Sequence[WeightedRows]) -> Tensor:
    """Weighted sums of rows, RA in float32. Each sequence's own rows only, in their order."""
    width = max(map(len, rows))
    padded = [[*own, *[(own[0][0], 0.0)] * (width - len(own))] for own in rows]
    places_WR = torch.tensor([[own[w][0] for own in padded] for w in range(width)], device=logits_NA.device)
    if width == 1:
        return logits_NA[places_WR[0]].float()
    weights_WR1 = torch.tensor([[[own[w][1]] for own in padded] for w in range(width)], device=logits_NA.device)
    logits_WRA = logits_NA[places_WR].float() * weights_WR1
    total_RA = logits_WRA[0]
    for w in range(1, width):
        total_RA = total_RA + logits_WRA[w]
    return total_RA


def filtered(logits_RA: Tensor, by: Filter) -> Tensor:
    """Log probabilities (float64, up to a constant): temperature, then top-k, then top-p; minus infinity if cut off.

    Ties at the k-th place stay; of top-p, the token that crosses p stays (the meaning of both in `transformers`).
    """
    scores_RA = logits_RA.double() / by.temperature
    if 0 < by.top_k < scores_RA.shape[-1]:
        least_R1 = scores_RA.topk(by.top_k).values[:, -1:]
        scores_RA = scores_RA.masked_fill(scores_RA < least_R1, -torch.inf)
    if by.top_p < 1:
        sorted_RA, order_RA = scores_RA.sort(dim=-1, stable=True)
        cut_RA = sorted_RA.softmax(-1).cumsum(-1) <= 1 - by.top_p
        cut_RA[:, -1] = False
        scores_RA = scores_RA.masked_fill(torch.zeros_like(cut_RA).scatter(1, order_RA, cut_RA), -torch.inf)
    return scores_RA


@dataclass(frozen=True, slots=True)
class Draws:
    """Of each sequence: the token, whether the logits were numbers, and where asked for log p of the token."""

    tokens_R: Tensor
    finite_R: Tensor
    logprobs_R: Tensor | None


def draw(
    logits_RA: Tensor, ids_A: Tensor, by: Filter, starts_R: Tensor | None = None, *, logprobs: bool = False
) -> Draws:
    """One token id for each row. At temperature 0 it is the likeliest, the lower id wins a tie, and p is 1."""
    if by.temperature == 0:
        log_p_RA = scores_RA = logits_RA
    else:
        assert starts_R is not None
        log_p_RA = filtered(logits_RA, by)
        scores_RA = log_p_RA + gumbel(starts_R, ids_A)
    best_R1 = scores_RA.argmax(-1, keepdim=True)
    finite_R = scores_RA.gather(1, best_R1).isfinite().squeeze(1)
    told = None
    if logprobs and by.temperature == 0:
        told = torch.zeros(len(logits_RA), dtype=torch.float64, device=logits_RA.device)
    elif logprobs:
        told = log_p_RA.log_softmax(-1).gather(1, best_R1).squeeze(1)
    return Draws(ids_A[best_R1.squeeze(1)], finite_R, told)
