"""Guidance is a weighted sum of rows: the weights, the rows, and what the published arithmetic gives for both."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tokenizer.tiny import multimodal_tokenizer

from twgi.decoding.guidance import (
    KINDS,
    PRESETS,
    Branch,
    Guidance,
    Scales,
    branch_ids,
    merge_equal,
    plan_named,
)
from twgi.errors import ConfigError
from twgi.vocab import Vocab

SCALE = st.floats(0, 10)
F, I, U, N, P = Branch.FULL, Branch.IMAGE, Branch.UNCONDITIONAL, Branch.NEGATIVE, Branch.PROMPT  # noqa: E741


@pytest.fixture
def vocab() -> Vocab:
    return multimodal_tokenizer().vocab


@given(SCALE, SCALE, SCALE, SCALE)
def test_the_weights_of_every_scheme_add_to_one(full: float, image: float, negative: float, prompt: float) -> None:
    for guidance in (
        Guidance.normal(full, image),
        Guidance.obj(full, negative),
        Guidance.full(full, image, negative, prompt),
    ):
        assert sum(guidance.weights.values()) == pytest.approx(1)


def test_weights_that_do_not_add_to_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="add to one"):
        Guidance({F: 2.0})
    with pytest.raises(ConfigError, match="finite"):
        Guidance({F: float("nan")})


def test_a_branch_without_weight_does_not_run() -> None:
    assert Guidance.normal(1.0).weights == {F: 1.0}
    assert set(Guidance.obj(2.0, 0.0).weights) == {F, U}
    assert set(Guidance.full(2.0, 1.2, 0.0, 5.0).weights) == {F, I, U, P}


def test_full_scale_one_and_nothing_else_is_the_plain_model() -> None:
    assert Guidance.obj(1.0).weights == Guidance.normal(1.0).weights == {F: 1.0}


@pytest.mark.parametrize(
    ("scales", "problem"),
    [
        ({"scheme": "full", "full": -1.0}, "scale-full must be 0 or more"),
        ({"scheme": "obj", "full": 1.0, "negative": -2.0}, "scale-negative must be 0 or more"),
        ({"scheme": "normal", "full": 1.0, "image": float("inf")}, "scale-image must be 0 or more"),
        ({"scheme": "full", "image": 1.0}, "no weight on the prompt"),
        ({"scheme": "obj", "full": 1.0, "prompt": 1.0}, "'obj' has no scale-prompt; it has scale-full, scale-negative"),
        ({"scheme": "odd", "full": 1.0}, "unknown guidance scheme 'odd'; known are normal, obj, full"),
    ],
)
def test_scales_that_cannot_guide_are_refused(scales: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Scales(**scales)


@pytest.mark.parametrize("plan", PRESETS.values(), ids=list(PRESETS))
def test_a_preset_guides_every_kind_of_picture(plan: Any) -> None:
    assert set(plan.scales) == set(KINDS)
    assert plan.branches >= {F, U}


def test_the_papers_scales_are_those_of_its_table() -> None:
    paper = PRESETS["paper"]
    assert paper.for_picture("part").weights == Guidance.obj(5.0, 3.0).weights
    assert paper.for_picture("whole").weights == Guidance.full(2.0, 1.2, 3.0, 5.0).weights
    for kind in ("draft", "redraw"):
        assert paper.for_picture(kind).weights == Guidance.full(1.5, 0.8, 3.0, 5.0).weights


def test_a_custom_scale_goes_where_its_scheme_has_it() -> None:
    plan = PRESETS["paper"].with_scales(negative=1.0)
    assert plan.scales["part"].negative == plan.scales["whole"].negative == 1.0
    assert plan.scales["free"] == PRESETS["paper"].scales["free"]


def test_a_custom_scale_that_no_picture_has_is_an_error() -> None:
    with pytest.raises(ConfigError, match="scale-negative has no effect: guidance normal has no such scale"):
        PRESETS["icons"].with_scales(negative=1.0)
    with pytest.raises(ConfigError, match="scale-prompt has no effect"):
        PRESETS["paper"].only(["part"]).with_scales(prompt=1.0)


def test_a_plan_is_found_by_name() -> None:
    assert plan_named("paper") is PRESETS["paper"]
    assert plan_named("obj").for_picture("direct").weights == Guidance.obj(2.0).weights
    with pytest.raises(ConfigError, match="unknown guidance 'best'; known are paper, reference, icons, normal"):
        plan_named("best")


def test_rows_of_equal_tokens_run_once() -> None:
    assert merge_equal([((1, 2), 2.0), ((2,), -0.5), ((2,), -0.5)]) == (((1, 2), 2.0), ((2,), -1.0))
    assert merge_equal([((1, 2), 1.0), ((2,), 0.5), ((2,), -0.5)]) == (((1, 2), 1.0),)


def test_a_branch_holds_what_it_is_conditioned_on(vocab: Vocab) -> None:
    word, picture = vocab.text_ids[5], (vocab.boi, *vocab.image_tokens[:16], vocab.eoi)
    history = (vocab.bos, word, vocab.separator, *picture, word, vocab.boi)
    ids = {b: branch_ids(b, history, prompt=(word,), negative=(word, word), vocab=vocab) for b in Branch}
    assert ids == {
        F: history, I: (vocab.bos, *picture, vocab.boi), U: (vocab.boi,),
        N: (word, word, vocab.boi), P: (word, vocab.boi),
    }  # fmt: skip
