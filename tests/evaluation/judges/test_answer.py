"""What counts as an answer, what a picture's hash covers, and answers that outlive the process."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from twgi.answers import AnswerBook
from twgi.errors import ConfigError
from twgi.evaluation.icons import IconJudge
from twgi.evaluation.judges.answer import (
    Answer,
    Picture,
    Query,
    keep,
    kept,
    key,
    spellings,
    understood,
)
from twgi.evaluation.judges.named import judge_named
from twgi.evaluation.judges.replay import ReplayJudge

JUDGE = IconJudge()
RED = Picture(image=Image.new("RGB", (3, 2), (255, 0, 0)))


@pytest.mark.parametrize("raw", [
    "yes", "Yes", " YES.\n", "yes, there is", "Yes. It is red.", "**Yes**", '"yes"', "Yes the picture is red",
    "Yes - red", "Yes (red)", "Yes\u2014red", "yes indeed", "Answer: yes", "**Answer:** Yes", "The answer is yes.",
    "yes</s>", "yes<|im_end|>", "<b>Yes</b>", "<think>No? Yes.</think>\nYes", "[yes]", '{"answer": "yes"}',
])  # fmt: skip
def test_a_yes_may_be_said_in_many_ways(raw: str) -> None:
    assert understood(raw).parsed == "yes"


@pytest.mark.parametrize("raw", [
    "no", "No.", "no, there is none", "NO!", "No the picture is blue", "No it isn\u2019t", "No - blue", "No (blue)",
    "Answer: no", "no</s>", "no there is no bus",
])  # fmt: skip
def test_a_no_must_be_said(raw: str) -> None:
    assert understood(raw).parsed == "no"


@pytest.mark.parametrize("raw", [
    "", "no bus", "1000000000000", "maybe", "yes and no", "nothing", "yesterday", "n/a",
    "yes or no", "Yes/No", "yes, or no", "no or yes", "not yes", "I cannot tell.", "Answer:", "<think>yes", "3",
])  # fmt: skip
def test_what_is_neither_is_invalid(raw: str) -> None:
    assert understood(raw).parsed == "invalid"


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        ("four", "yes"), ("4", "yes"), ("4.0", "yes"), ("04", "yes"), ("Four cups", "yes"), ("There are four.", "yes"),
        ("Five.", "no"), ("12", "no"), ("fourteen", "no"), ("9" * 5000, "no"), ("a lot", "invalid"), ("yes", "invalid"),
        ("4 or 5", "invalid"), ("four cups and two dogs", "invalid"), ("blue", "invalid"), ("", "invalid"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wanted", ["four", "4", "Four"])
def test_a_number_is_right_in_words_and_digits(wanted: str, raw: str, parsed: str) -> None:
    assert understood(raw, expected=wanted).parsed == parsed


@pytest.mark.parametrize(("raw", "parsed"), [("No.", "yes"), ("no, none", "yes"), ("Yes", "no"), ("no bus", "invalid")])
def test_the_wanted_answer_may_be_a_no(raw: str, parsed: str) -> None:
    assert understood(raw, expected="no").parsed == parsed


@pytest.mark.parametrize(
    ("wanted", "raw", "parsed"),
    [
        ("red", "Red.", "yes"), ("red", "It is red", "yes"), ("red", "red, like a rose", "yes"), ("red", "blue", "no"),
        ("a dog", "dog", "yes"), ("dog", "a dog", "yes"), ("light blue", "dark blue", "no"),
        ("red", "red and white", "invalid"), ("red", "I cannot tell", "invalid"), ("red", "unknown", "invalid"),
        ("red", "yes", "invalid"), ("red", "", "invalid"),
    ],
)  # fmt: skip
def test_of_another_word_any_other_of_its_kind_is_a_no_and_what_evades_is_invalid(
    wanted: str, raw: str, parsed: str
) -> None:
    assert understood(raw, expected=wanted).parsed == parsed


def test_spellings_are_four_and_digits_for_numbers() -> None:
    assert set(spellings("yes")) == {"yes", " yes", "Yes", " Yes"}
    assert {"4", " 4", "four", " Four"} < set(spellings("four")) == set(spellings("4"))


def test_equal_bytes_of_another_shape_or_mode_are_another_picture() -> None:
    data = bytes(range(18))
    wide, high = (Picture(image=Image.frombytes("RGB", size, data)) for size in ((3, 2), (2, 3)))
    grey = Picture(image=Image.frombytes("L", (9, 2), data))
    assert len({wide.sha256, high.sha256, grey.sha256}) == 3


def query(question: str = "Is it red?") -> Query:
    return Query(picture=RED, question=question, item="a", sample=1, proposition=2)


def test_an_answer_is_kept_under_picture_question_judge_and_version() -> None:
    other = IconJudge()
    other.version = "2"
    blue = Query(picture=Picture(image=Image.new("RGB", (3, 2), (0, 0, 255))), question="Is it red?")
    elsewhere = Query(picture=RED, question="Is it red?", item="b")
    assert len({key(query(), JUDGE), key(query("Is it?"), JUDGE), key(query(), other), key(blue, JUDGE)}) == 4
    assert key(elsewhere, JUDGE) == key(query(), JUDGE), "the same question about the same picture is asked once"


def test_a_book_keeps_its_answers_and_is_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerBook(path) as book:
        assert kept(book, query(), JUDGE) is None
        keep(book, query(), JUDGE, understood("Yes.", p_yes=0.75))
        keep(book, query("Is it big?"), JUDGE, Answer(problem="HTTP 500"))
    with AnswerBook(path) as book:
        assert kept(book, query(), JUDGE) == Answer(raw="Yes.", parsed="yes", p_yes=0.75)
        assert kept(book, query("Is it big?"), JUDGE) is None, "what failed is asked again"
    ((_, answer),) = ReplayJudge(path).answer([query()])
    assert (answer.parsed, answer.p_yes) == ("yes", 0.75)
    row = json.loads(path.read_text())
    assert row["judge"] == {"name": "icons", "version": "1"}
    assert row["picture"] == RED.sha256


def test_what_was_kept_is_understood_anew_and_a_line_without_words_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    line = {"key": key(query(), JUDGE), "raw": "Yes the picture is red", "parsed": "invalid", "p_yes": None}
    with AnswerBook(path) as book:
        book.add(line)
        assert kept(book, query(), JUDGE) == Answer(raw="Yes the picture is red", parsed="yes")
        book.add({**line, "raw": None})
        assert kept(book, query(), JUDGE) is None


def test_numbers_as_pandas_writes_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "float.csv"
    path.write_text("item_id,question_id,sample,answer\na,1.0,0.0,yes\n")
    ((_, answer),) = ReplayJudge(path).answer([Query(picture=None, question="Is it?", item="a", proposition=1)])
    assert answer.parsed == "yes"
    for number in ("1.5", "nan", "inf", "one"):
        path.write_text(f"item_id,question_id,answer\na,{number},yes\n")
        with pytest.raises(ConfigError, match=r"float\.csv:2: .*whole number"):
            ReplayJudge(path)


def test_a_release_of_several_models_asks_which(tmp_path: Path) -> None:
    path = tmp_path / "mplug.csv"
    path.write_text("t2i_model,item_id,question,question_id,dependency_id,answer\n"
                    'sd1dot1,a,Is it?,1,0,no\nsd2dot1,a,Is it?,1,0,yes\nsd2dot1,a,Is it?,2,"1,4",no bus\n')  # fmt: skip
    with pytest.raises(ConfigError, match=r"sd1dot1, sd2dot1: say which, as replay:.*#sd1dot1"):
        ReplayJudge(path)
    with pytest.raises(ConfigError, match="no answers about 'dalle'"):
        ReplayJudge(path, model="dalle")
    judge = judge_named(f"replay:{path}#sd2dot1")
    asked = [Query(picture=None, question="Is it?", item="a", proposition=number) for number in (1, 2, 3)]
    assert [(a.parsed, a.problem) for _, a in judge.answer(asked)] == [
        ("yes", None), ("invalid", None), ("invalid", "not recorded"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    ['{"item_id": "a"}\n', "[]\n", "{", '{"item_id": "a", "proposition_id": "x", "answer": "yes"}\n',
     '{"item_id":"a","proposition_id":1,"answer":"yes"}\n{"item_id":"a","proposition_id":1,"answer":"no"}\n'],
)  # fmt: skip
def test_recordings_that_say_nothing_or_two_things_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "answers.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=r"answers\.jsonl"):
        ReplayJudge(tmp_path / "answers.jsonl")


@pytest.mark.parametrize("name", ["gpt", "openai:", "hf:", "icons:1", ""])
def test_an_unknown_judge_is_told_who_is_known(name: str) -> None:
    with pytest.raises(ConfigError, match="known are icons, hf:PATH"):
        judge_named(name)


RECORDED = {"item_id": "a", "sample": 0, "image": None, "proposition_id": 1, "answer": "yes", "question": "Is it red?"}
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.none(), max_size=1)


@given(st.dictionaries(st.sampled_from([*RECORDED, "p_yes", "prompt", "picture", "expected", "raw"]), VALUES))
def test_a_recording_of_any_kind_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("recording") / "answers.jsonl"
    path.write_text(json.dumps(RECORDED | change) + "\n")
    try:
        judge = ReplayJudge(path)
    except ConfigError:
        return
    judge.about({"a": "a red thing"})
    ((_, answer),) = judge.answer([Query(picture=None, question="Is it red?", item="a", proposition=1)])
    assert answer.problem in (None, "not recorded")
    assert answer.p_yes is None or 0 <= answer.p_yes <= 1


def recorded(folder: Path, *changes: dict[str, Any]) -> ReplayJudge:
    (folder / "a.jsonl").write_text("".join(json.dumps(RECORDED | change) + "\n" for change in changes))
    return ReplayJudge(folder / "a.jsonl")


def asked(judge: ReplayJudge, **query: Any) -> str | None:
    """What it says to one question; None where it was not recorded."""
    one = Query(**{"picture": None, "question": "Is it red?", "item": "a", "proposition": 1, **query})
    ((_, answer),) = judge.answer([one])
    return None if answer.problem else answer.raw


def test_an_answer_is_that_to_its_question_whatever_number_it_has(tmp_path: Path) -> None:
    judge = recorded(tmp_path, {}, {"proposition_id": 2, "question": "Is it big?", "answer": "no"})
    assert asked(judge, proposition=2) == "yes"
    assert asked(judge, question="Is it big?") == "no"
    assert asked(judge, question="Is it new?") is None
    twice = recorded(tmp_path, {}, {"proposition_id": 2, "answer": "no"})
    assert [asked(twice, proposition=number) for number in (1, 2, 3)] == ["yes", "no", None]


def test_an_answer_is_that_about_its_prompt_whatever_id_it_has(tmp_path: Path) -> None:
    judge = recorded(tmp_path, {"prompt": "a cat"}, {"item_id": "b", "prompt": "a dog", "answer": "no"})
    judge.about({"a": "a dog", "b": "a cow", "c": "a  cat"})
    assert [asked(judge, item=item) for item in "abc"] == ["no", None, "yes"]


def test_an_answer_is_that_about_its_picture_where_there_is_one(tmp_path: Path) -> None:
    blue = Picture(image=Image.new("RGB", (3, 2), (0, 0, 255)))
    judge = recorded(tmp_path, {"picture": RED.sha256}, {"item_id": "b", "picture": "0" * 64, "answer": "no"})
    assert asked(judge, picture=RED, item="b", proposition=7) == "yes"
    assert asked(judge, picture=blue) is None


def test_a_probability_is_that_of_the_answer_that_was_wanted(tmp_path: Path) -> None:
    judge = recorded(tmp_path, {"p_yes": 0.9, "expected": "yes"})
    for expected, chance in (("yes", 0.9), ("no", None)):
        one = Query(picture=None, question="Is it red?", item="a", proposition=1, expected=expected)
        assert [answer.p_yes for _, answer in judge.answer([one])] == [chance]


def test_photographs_are_unknown_to_the_judge_of_icons() -> None:
    photograph = Picture(image=Image.effect_noise((64, 64), 90).convert("RGB"))
    for picture, why in ((RED, "3 x 2 pixels, not 64 x 64"), (photograph, "nothing of its ground")):
        ((_, answer),) = IconJudge().answer([Query(picture=picture, question="Is there a cat?")])
        assert (answer.parsed, answer.p_yes) == ("invalid", None)
        assert why in answer.raw
