"""Intervals, paired tests and best-of-n, against counting by hand and against what is known of them."""

from fractions import Fraction
from itertools import combinations, product
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twgi.evaluation.report.statistics import (
    Estimate,
    best_by_verdict,
    best_of,
    differences,
    let_pass,
    scores,
    sums,
    wilson,
)
from twgi.evaluation.results import PictureResult, Result


def row(prompt: int, sample: int, score: float, task: str = "colors", **more: Any) -> Result:
    fields: dict[str, Any] = {"pictures": (PictureResult(score=score),), "status": "scored"}
    fields |= {"id": f"{prompt:05d}", "sample": sample, "task": task, "prompt": "p", "score": score}
    return Result(**(fields | more))


def run(shares: list[list[float]], task: str = "colors", first: int = 0) -> list[Result]:
    return [row(first + p, s, score, task) for p, own in enumerate(shares) for s, score in enumerate(own)]


def test_overall_is_the_mean_of_the_tasks_not_of_the_rows() -> None:
    rows = run([[1.0]] * 9) + run([[0.0]], "position", first=9)
    found = scores(rows)
    assert [found[column].value for column in ("colors", "position", "overall")] == [1.0, 0.0, 0.5]
    assert found["overall"].prompts == 10


def test_dpg_overall_is_the_mean_of_the_prompts_and_its_columns_are_parts() -> None:
    parts = [{"entity": (3.0, 4.0), "relation": (0.0, 1.0)}, {"entity": (1.0, 1.0)}]
    rows = [row(n, 0, score, parts=p) for n, (score, p) in enumerate(zip((0.6, 1.0), parts, strict=True))]
    found = scores(rows, over="prompts")
    assert found["overall"].value == 0.8
    assert found["entity"].value == pytest.approx(0.8)
    assert found["relation"].value == 0.0


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        chances = rng.beta(2, 2, size=60)  # of each prompt; the truth is one half
        found = scores(run([list((rng.random(4) < chance).astype(float)) for chance in chances]))["colors"]
        covered += found.low <= 0.5 <= found.high
    assert 0.88 <= covered / 60 <= 0.99


def test_samples_of_one_prompt_are_not_independent() -> None:
    alike = run([[1.0] * 8, [0.0] * 8] * 20)
    mixed = run([[1.0, 0.0] * 4] * 40)
    assert scores(alike)["colors"].high - scores(alike)["colors"].low > 0.2
    assert scores(mixed)["colors"].high == scores(mixed)["colors"].low == 0.5


def test_where_all_are_right_the_interval_is_wilsons() -> None:
    found = scores(run([[1.0]] * 20))["colors"]
    assert (found.low, found.high) == wilson(1.0, 20)
    assert found.low == pytest.approx(0.8389, abs=1e-4)  # as tables have it
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_intervals_do_not_depend_on_the_order_of_a_call() -> None:
    rows = run([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert scores(rows) == scores(rows)


def test_of_equal_runs_nothing_differs() -> None:
    one = sums(run([[1.0, 0.0], [0.0, 0.0]]))
    assert differences(one, one)["overall"] == Estimate(value=0, low=0, high=0, prompts=2, p=1)


def test_a_paired_test_equals_all_sign_flips_counted() -> None:
    a, b = run([[0.0]] * 6), run([[1.0]] * 5 + [[0.0]])
    found = differences(sums(a), sums(b))["colors"]
    moved = [1.0] * 5 + [0.0]
    flips = [sum(sign * d for sign, d in zip(signs, moved, strict=True)) for signs in product((-1, 1), repeat=6)]
    exact = fmean(abs(flip) >= 5 for flip in flips)
    assert found.value == pytest.approx(5 / 6)
    assert found.p == pytest.approx(exact, abs=0.015)


def test_only_prompts_that_both_have_are_compared() -> None:
    a, b = run([[0.0]] * 4), run([[1.0]] * 2)
    found = differences(sums(a), sums(b))
    assert (found["colors"].prompts, found["colors"].value) == (2, 1.0)
    assert differences(sums(a), sums(run([[1.0]], "position"))) == {}


def test_a_random_difference_is_seldom_significant() -> None:
    rng = np.random.default_rng(1)
    pairs = [[run([[float(rng.random() < 0.5)] for _ in range(40)]) for _ in "ab"] for _ in range(60)]
    found = [differences(sums(a), sums(b))["colors"].p or 0 for a, b in pairs]
    assert np.mean([p < 0.05 for p in found]) <= 0.1


right_or_wrong = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6)


@given(st.lists(right_or_wrong, min_size=1, max_size=4), st.integers(1, 6))
def test_best_of_n_is_the_mean_over_all_choices(shares: list[list[float]], n: int) -> None:
    n = min(n, min(map(len, shares)))
    exact = [fmean(max(choice) for choice in combinations(own, n)) for own in shares]
    assert best_of(run(shares), n) == pytest.approx(fmean(exact))


def thought(prompt: int, sample: int, score: float, passed: bool) -> Result:
    pictures = (PictureResult(score=score),) * (1 if passed else 2)
    return row(prompt, sample, score, pictures=pictures, detail={"finish_reason": "stop"})


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.booleans()), min_size=1, max_size=5), st.integers(1, 5))
def test_best_by_verdict_is_the_mean_over_all_choices_and_draws(own: list[tuple[float, bool]], n: int) -> None:
    n = min(n, len(own))
    values = []
    for choice in combinations(own, n):
        pool = [score for score, passed in choice if passed] or [score for score, _ in choice]
        values.append(sum(map(Fraction, pool)) / len(pool))
    rows = [thought(0, sample, score, passed) for sample, (score, passed) in enumerate(own)]
    assert best_by_verdict(rows, n) == pytest.approx(float(sum(values) / len(values)))


def test_a_critique_let_pass_what_it_did_not_redraw() -> None:
    assert let_pass(thought(0, 0, 1.0, True))
    assert not let_pass(thought(0, 0, 1.0, False))
    assert not let_pass(row(0, 0, 0.0, pictures=(), status="no picture"))
