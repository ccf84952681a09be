"""From the logits of all rows to one drawn token for each sequence.

A draw is argmax(log p + noise) with Gumbel noise that is a pure function of (seed, prompt, sample, position, token):
counter-based, as Salmon et al. (2011), with SplitMix64's mixer. So a draw does not depend on what is drawn beside it,
before it, or after it.

Shapes: N rows of the step, R sequences that draw, W branches of one sequence, V vocabulary, A allowed ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from twgi.decoding.params import Filter
from twgi.errors import RunError

WeightedRows = Sequence[tuple[int, float]]
"""The rows of one sequence (places among the N) and their guidance weights."""

GAMMA = 0x9E3779B97F4A7C15
MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


class Noise:
    """The noise of one thought: where its stream starts at each position."""

    def __init__(self, *, seed: int, prompt: Sequence[int], sample: int = 0) -> None:
        text = f"{seed} {sample} {' '.join(map(str, prompt))}"
        self._key = blake2b(text.encode(), digest_size=32).digest()

    def start(self, position: int) -> int:
        """A signed 64-bit number, as good as random, for one position."""
        digest = blake2b(position.to_bytes(8, "little"), digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "little", signed=True)


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


def mixed(logits_NV: Tensor, rows: Sequence[WeightedRows], ids_A: Tensor) -> Tensor:
    """Weighted sums of rows at the allowed ids, RA in float32. Each sequence's own rows only, in their order."""
    width = max(map(len, rows))
    padded = [[*own, *[(own[0][0], 0.0)] * (width - len(own))] for own in rows]
    places_WR = torch.tensor([[own[w][0] for own in padded] for w in range(width)], device=logits_NV.device)
    if width == 1:
        return logits_NV[places_WR[0]].index_select(1, ids_A).float()
    weights_WR1 = torch.tensor([[[own[w][1]] for own in padded] for w in range(width)], device=logits_NV.device)
    logits_WRA = logits_NV[places_WR].index_select(2, ids_A).float() * weights_WR1
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


def draw(logits_RA: Tensor, ids_A: Tensor, by: Filter, starts: Sequence[int]) -> list[int]:
    """One token id for each row. At temperature 0 it is the likeliest; the lower id wins a tie.

    Raises:
        RunError: the model's logits are not numbers.
    """
    scores_RA = logits_RA
    if by.temperature > 0:
        starts_R = torch.tensor(starts, dtype=torch.int64, device=ids_A.device)
        scores_RA = filtered(logits_RA, by) + gumbel(starts_R, ids_A)
    best_R = scores_RA.argmax(-1)
    if not bool(scores_RA.gather(1, best_R.unsqueeze(1)).isfinite().all()):
        raise RunError(
            "the model's logits are not finite numbers: load it in float32 or bfloat16, and check its weights"
        )
    tokens: list[int] = ids_A[best_R].tolist()
    return tokens
