"""How sure a score is: bootstrap intervals, paired tests, and what the best of several samples would score.

The prompt is the unit. Samples of one prompt are alike, so whole prompts are drawn again, within their task; runs are
compared prompt by prompt. Every number is a function of its rows: the random generator has a fixed seed.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import comb, sqrt
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twgi.evaluation.results import Result

DRAWS, SEED = 4000, 0
LOW, HIGH = 2.5, 97.5  # percentiles of an interval of 95 %
_Z = 1.959964  # of the normal distribution, for the same

Floats = NDArray[np.float64]
Sums = dict[str, dict[str, tuple[float, float]]]
"""column -> prompt -> (sum of scores, how many)"""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score or a difference with its interval of 95 %, over so many prompts; `p` of a paired test."""

    value: float
    low: float
    high: float
    prompts: int
    p: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


def sums(rows: Iterable[Result], picture: int | None = None) -> Sums:
    """What each prompt gives to each column, its task or the parts of its rows; of the k-th picture if one is named."""
    found: Sums = defaultdict(lambda: defaultdict(lambda: (0.0, 0.0)))
    for row in rows:
        score = row.score if picture is None else row.score_of(picture)
        alone = {} if score is None else {row.task: (score, 1.0)}
        for column, (total, count) in (row.parts if picture is None and row.parts else alone).items():
            before = found[column][row.id]
            found[column][row.id] = (before[0] + total, before[1] + count)
    return {column: dict(prompts) for column, prompts in found.items()}


def scores(rows: Sequence[Result], picture: int | None = None, *, over: str = "tasks") -> dict[str, Estimate]:
    """Each column and `overall`, the mean over tasks or over prompts, with intervals."""
    if not rows:
        return {}
    rng = np.random.default_rng(SEED)
    columns = {column: _ratio(list(prompts.values()), rng) for column, prompts in sums(rows, picture).items()}
    found = {column: estimate for column, (estimate, _) in columns.items()}
    if over == "prompts":
        by_prompt: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            by_prompt[row.id].append(row.score if picture is None else row.score_of(picture) or 0.0)
        return found | {"overall": _ratio([(fmean(scores), 1.0) for scores in by_prompt.values()], rng)[0]}
    draws = np.mean([drawn for _, drawn in columns.values()], axis=0)
    count = sum(estimate.prompts for estimate in found.values())
    return found | {"overall": _estimate(fmean(estimate.value for estimate in found.values()), draws, count)}


def _ratio(prompts: Sequence[tuple[float, float]], rng: Any) -> tuple[Estimate, Floats]:
    """Sum over sum, and the same of prompts drawn with replacement."""
    pairs = np.array(prompts, dtype=np.float64)
    times = rng.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), size=DRAWS)
    drawn = times @ pairs
    draws = drawn[:, 0] / drawn[:, 1]
    value = float(pairs[:, 0].sum() / pairs[:, 1].sum())
    if value in (0.0, 1.0):  # drawing again from equal values says nothing
        low, high = wilson(value, len(pairs))
        return Estimate(value=value, low=low, high=high, prompts=len(pairs)), draws
    return _estimate(value, draws, len(pairs)), draws


def _estimate(value: float, draws: Floats, prompts: int, p: float | None = None) -> Estimate:
    low, high = np.percentile(draws, [LOW, HIGH])
    return Estimate(value=value, low=float(low), high=float(high), prompts=prompts, p=p)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's interval of a share of `count` things."""
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z * sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def differences(a: Sums, b: Sums) -> dict[str, Estimate]:
    """b minus a on the prompts that both have: each column, and the mean of the columns as `overall`.

    The test turns the sign of each prompt's difference at random: if the two were alike, either sign would be as
    likely. Of the overall only where columns are tasks, each with its own prompts.
    """
    rng = np.random.default_rng(SEED)
    found, draws, flips = {}, [], []
    for column in [column for column in a if column in b]:
        both = [prompt for prompt in a[column] if prompt in b[column]]
        if both:
            before, after = ([side[column][p][0] / side[column][p][1] for p in both] for side in (a, b))
            moved = np.subtract(after, before)
            draws.append(rng.multinomial(len(both), np.full(len(both), 1 / len(both)), size=DRAWS) @ moved / len(both))
            flips.append(rng.choice((-1.0, 1.0), size=(DRAWS, len(both))) @ moved / len(both))
            found[column] = _tested(float(moved.mean()), draws[-1], flips[-1], len(both))
    if found:
        value = fmean(estimate.value for estimate in found.values())
        prompts = sum(estimate.prompts for estimate in found.values())
        found["overall"] = _tested(value, np.mean(draws, axis=0), np.mean(flips, axis=0), prompts)
    return found


def _tested(value: float, draws: Floats, flips: Floats, prompts: int) -> Estimate:
    as_far = int((np.abs(flips) >= abs(value) - 1e-12).sum())
    return _estimate(value, draws, prompts, p=(1 + as_far) / (1 + len(flips)))


def by_prompt(rows: Iterable[Result]) -> dict[str, dict[str, list[Result]]]:
    """task -> prompt -> its rows."""
    found: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row.task][row.id].append(row)
    return found


def best_of(rows: Sequence[Result], n: int) -> float:
    """The score if the judge itself chose the best of `n` samples: an upper bound for any way to choose.

    Without bias from `m >= n` samples of a prompt of which `c` are right: 1 - C(m - c, n) / C(m, n).
    """
    return _task_mean(rows, lambda own: 1 - comb(len(own) - sum(r.score == 1 for r in own), n) / comb(len(own), n))


def best_by_verdict(rows: Sequence[Result], n: int, *, rounds: int = 1) -> float:
    """The score if of `n` critique thoughts one is taken that its own critique let pass, else any of them.

    The mean over all choices of `n` from the samples of a prompt.
    """

    def chosen(own: Sequence[Result]) -> float:
        passed = [row.score for row in own if let_pass(row, rounds)]
        others = [row.score for row in own if not let_pass(row, rounds)]
        none = comb(len(others), n) / comb(len(own), n)
        return (1 - none) * (fmean(passed) if passed else 0.0) + none * (fmean(others) if others else 0.0)

    return _task_mean(rows, chosen)


def let_pass(row: Result, rounds: int = 1) -> bool:
    """Whether a critique ended with no more to redraw, although it could have drawn again."""
    return row.detail.get("finish_reason") == "stop" and 0 < len(row.pictures) <= rounds


def _task_mean(rows: Sequence[Result], of: Any) -> float:
    return fmean(fmean(of(own) for own in prompts.values()) for prompts in by_prompt(rows).values())
