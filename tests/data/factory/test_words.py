"""What is read from answers: the JSON object in them, as it was asked for, or the reason why it cannot be used."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twgi.data.factory import words
from twgi.data.records import Part, parse_record
from twgi.replies import Unusable


@pytest.mark.parametrize("around", ["{}", "Here you are:\n```json\n{}\n```\nI hope it helps.", "\n\n{}"])
def test_an_object_is_found_in_what_is_said_around_it(around: str) -> None:
    answer = around.replace("{}", '{"parts": [" a cat ", "a dog"]}')
    assert words.read_list("parts", least=1, most=2)(answer) == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("I would rather not.", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ("{broken}", "no JSON object"),
        ("{" * 10_000 + "}", "no JSON object"),
        ({"part": ["a"]}, "no list of 1 to 2"),
        ({"parts": "a cat"}, "no list of 1 to 2"),
        ({"parts": []}, "no list of 1 to 2"),
        ({"parts": ["a", "b", "c"]}, "no list of 1 to 2"),
        ({"parts": ["a", 3]}, "no text of 1 to 4000"),
        ({"parts": ["a", " "]}, "no text of 1 to 4000"),
        ({"parts": ["a" * 4001]}, "no text of 1 to 4000"),
        ({"parts": ["a <image>"]}, "<image> or signs"),
        ({"parts": ["a\x1b[2J"]}, "<image> or signs"),
        ({"parts": ["\ud800"]}, "<image> or signs"),
    ],
)
def test_a_list_that_is_not_what_was_asked_for_is_refused(value: Any, problem: str) -> None:
    answer = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(Unusable, match=problem):
        words.read_list("parts", least=1, most=2)(answer)


@pytest.mark.parametrize(
    ("steps", "good"),
    [
        (["A cat.", "A dog.", "Now the whole picture."], True),
        (["The plan: parts, then the whole picture. First a cat.", "A dog.", "Now the complete image."], True),
        (["A cat.", "A dog in the whole picture.", "Now the whole picture."], False),
        (["A cat.", "A dog.", "Both together."], False),
        (["A cat.", "Now the whole picture."], False),
    ],
)
def test_only_the_last_words_of_a_subgoal_chain_announce_the_whole(steps: list[str], good: bool) -> None:
    answer = json.dumps({"steps": steps})
    if good:
        assert words.read_steps(2)(answer) == steps
    else:
        with pytest.raises(Unusable):
            words.read_steps(2)(answer)


def test_a_critique_is_read_as_one_text() -> None:
    flawed = {"matches": False, "fits": "Red.", "faults": "", "change": "Add a dog."}
    assert words.read_critique(json.dumps(flawed)) == (False, "Red. Add a dog.")
    right = {"matches": True, "fits": "All is there.", "faults": "", "change": None}
    assert words.read_critique(json.dumps(right)) == (True, "All is there.")


@pytest.mark.parametrize(
    "value",
    [
        {"matches": "no", "change": "Add a dog."},
        {"matches": False, "fits": "Red.", "faults": "No dog.", "change": ""},
        {"matches": True, "fits": "", "faults": "", "change": ""},
        {"matches": False, "change": ["Add a dog."]},
    ],
)
def test_a_critique_that_says_nothing_to_do_or_nothing_at_all_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(Unusable):
        words.read_critique(json.dumps(value))


def test_a_verdict_is_a_score_with_a_reason() -> None:
    assert words.read_judgement('{"score": 6.5, "reason": "No dog."}') == (6.5, "No dog.")


@pytest.mark.parametrize("score", ["7", True, None, -1, 11, "NaN"])
def test_a_score_outside_its_range_is_refused(score: Any) -> None:
    with pytest.raises(Unusable):
        words.read_judgement(f'{{"score": {score if score == "NaN" else json.dumps(score)}, "reason": "."}}')


@given(st.text())
def test_whatever_a_text_is_a_record_can_hold_it_or_it_is_refused(text: str) -> None:
    try:
        (kept,) = words.read_list("x", least=1, most=1)(json.dumps({"x": [text]}))
    except Unusable:
        return
    parts: tuple[Part, ...] = (Part("text", kept), Part("image", "a.png", loss=False))
    value = {"prompt": kept, "segments": [part.to_json() for part in parts]}
    record = parse_record(json.loads(json.dumps(value)), where="", folder=None)  # type: ignore[arg-type]
    assert record.turns[0].response == parts
