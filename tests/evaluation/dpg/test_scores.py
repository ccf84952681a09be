"""DPG's arithmetic against sums made by hand, and gating against a second formulation."""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twgi.errors import PromptError
from twgi.evaluation.dpg.official import PictureFile, official_scores
from twgi.evaluation.dpg.questions import DpgItem, Question, QuestionSet, Row, read_questions
from twgi.evaluation.dpg.scores import AnsweredPicture, Rule, Share, Truth, categories, gate, score, soft_scores
from twgi.evaluation.judges.answer import Answer, Parsed, Query
from twgi.evaluation.judges.replay import ReplayJudge

FIXTURES = Path(__file__).parents[2] / "fixtures" / "dsg_like"
WORDS: dict[Truth, Parsed] = {True: "yes", False: "no", None: "invalid"}


def questions() -> QuestionSet:
    return read_questions(FIXTURES / "questions.csv")


def judged(item: DpgItem, sample: int) -> AnsweredPicture:
    asked = [
        Query(picture=None, question=q.text, item=item.id, sample=sample, proposition=q.id) for q in item.questions
    ]
    answers = ReplayJudge(FIXTURES / "answers.jsonl").answer(asked)
    return AnsweredPicture(item=item, said={query.proposition: answer for query, answer in answers})


def answered(item: DpgItem, answers: Mapping[int, Truth]) -> AnsweredPicture:
    return AnsweredPicture(item=item, said={n: Answer(parsed=WORDS[truth]) for n, truth in answers.items()})


def likely(item: DpgItem, p_yes: Mapping[int, float]) -> AnsweredPicture:
    return AnsweredPicture(item=item, said={number: Answer(p_yes=p) for number, p in p_yes.items()})


def recorded() -> list[AnsweredPicture]:
    return [judged(item, sample) for item in questions().items.values() for sample in (0, 1)]


def said(item: str, sample: int) -> dict[int, str]:
    asked = [Query(picture=None, question="", item=item, sample=sample, proposition=number) for number in range(1, 5)]
    return {
        q.proposition: a.text for q, a in ReplayJudge(FIXTURES / "answers.jsonl").answer(asked) if a.problem is None
    }


# By hand, with y, n, ? (unknown) for the answers after gating, samples 0 and 1:
#               cascade             one level           none
# tifa160_7     yyny nynn -> 1/2    yyny nynn -> 1/2    yyny nyy? -> (3/4 + 2/3) / 2
# drawtext_3    nnn  yy?  -> 1/2    nny  yy?  -> 2/3    nyy  yy?  -> (2/3 + 1) / 2
# whoops_12     nny  ?y?  -> 2/3    nny  ?y?  -> 2/3    yny  yy?  -> (2/3 + 1) / 2
# vrd_5         yy   yn   -> 3/4    yy   yn   -> 3/4    yy   yn   -> 3/4
BY_HAND: dict[Rule, float] = {
    "cascade": (1 / 2 + 1 / 2 + 2 / 3 + 3 / 4) / 4,
    "one-level": (1 / 2 + 2 / 3 + 2 / 3 + 3 / 4) / 4,
    "none": (17 / 24 + 5 / 6 + 5 / 6 + 3 / 4) / 4,
}


@pytest.mark.parametrize("rule", BY_HAND)
def test_recorded_answers_give_the_scores_made_by_hand(rule: Rule) -> None:
    assert score(recorded(), rule)["overall"] == pytest.approx(100 * BY_HAND[rule])


def test_the_bounds_take_every_unknown_for_a_no_and_for_a_yes() -> None:
    low = (1 / 2 + (0 + 2 / 3) / 2 + (1 / 3 + 1 / 3) / 2 + 3 / 4) / 4
    high = (1 / 2 + (0 + 1) / 2 + (1 / 3 + 1) / 2 + 3 / 4) / 4
    assert score(recorded())["bounds"] == pytest.approx([100 * low, 100 * high])


def test_categories_hold_the_ungated_answers_about_every_picture() -> None:
    broad = categories(recorded(), broad=True)
    assert list(broad) == ["entity", "attribute", "relation", "other"]
    assert broad["entity"] == Share(yes=8, no=3, invalid=1)
    assert broad["attribute"] == Share(yes=3, no=2, invalid=1)
    assert broad["relation"] == Share(yes=3, no=0, invalid=1)
    assert broad["other"] == Share(yes=2)


def test_each_of_four_pictures_counts_for_the_categories() -> None:
    item = DpgItem(id="a", prompt="", questions=(Question(id=1, text="?", category="entity - whole"),))
    four = [answered(item, {1: n == 3}) for n in range(4)]
    assert score(four)["l2"]["entity - whole"]["score"] == 25
    files = [PictureFile(name="a.png", crops=[{1: "yes" if n == 3 else "no"} for n in range(4)])]
    lead, row = record("first", 1, "0"), record("a", 1, "0")
    assert official_scores([lead, row], files)["l2"]["entity - whole"] == 100


def record(item: str, number: int, dependency: str) -> Row:
    return {
        "where": f"q.csv:{number}", "item_id": item, "prompt": "", "proposition": str(number),
        "dependency": dependency, "tuple": "entity - whole (dog)", "question": "?",
    }  # fmt: skip


def test_the_official_scores_are_those_made_by_hand_with_its_faults() -> None:
    # tifa160_7: its question 1 was the first row, so question 3 waits for nothing: gone. whoops_12: question 9: gone.
    # drawtext_3: nnn, yyn (the invalid answer is no "yes") -> (0 + 2/3) / 2. vrd_5, its broken row aside: y, y -> 1.
    records = [row for row in questions().records if row["dependency"] != "entity"]
    items = ("tifa160_7", "drawtext_3", "whoops_12", "vrd_5")
    files = [PictureFile(name=f"{item}.png", crops=[said(item, 0), said(item, 1)]) for item in items]
    scores = official_scores(records, files)
    assert scores["overall"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert scores["l1"] == {"attribute": 0.0, "entity": 100.0, "other": 100.0}  # the last pictures alone
    assert list(scores["vanished"]) == ["tifa160_7.png", "whoops_12.png"]


def test_the_official_program_stops_at_a_dependency_of_words() -> None:
    with pytest.raises(PromptError, match=r"questions\.csv:13.*'entity'"):
        official_scores(questions().records, [])


def test_the_official_program_loses_the_first_row_and_ours_does_not() -> None:
    rows = [record("a", 1, "0"), record("a", 2, "0"), record("b", 1, "0")]
    files = [PictureFile(name=f"{item}.png", crops=[{1: "yes", 2: "no"}]) for item in ("a", "b")]
    assert official_scores(rows, files)["overall"] == 50  # a: 0/1, b: 1/1
    a, b = (DpgItem(id=name, prompt="", questions=tuple(Question(id=n, text="?") for n in ids)) for name, ids in
            (("a", (1, 2)), ("b", (1,))))  # fmt: skip
    pictures = [answered(a, {1: True, 2: False}), answered(b, {1: True})]
    assert score(pictures)["overall"] == 75


def test_what_fails_vanishes_officially_and_counts_as_wrong_here() -> None:
    rows = [record("first", 1, "0"), record("a", 1, "0"), record("b", 1, "0")]
    files = [PictureFile(name="a.png", crops=[{1: "yes"}]), PictureFile(name="b.png", crops=None)]
    scores = official_scores(rows, files)
    assert (scores["overall"], scores["files"]) == (100, 1)
    assert scores["vanished"] == {"b.png": "cannot be opened"}
    a, b = (DpgItem(id=name, prompt="", questions=(Question(id=1, text="?"),)) for name in "ab")
    pictures = [answered(a, {1: True}), AnsweredPicture(item=b, problem="a damaged picture")]
    assert score(pictures)["overall"] == 50
    assert categories(pictures, broad=True)["other"] == Share(yes=1, no=1)


def test_a_name_ends_at_its_first_dot_officially() -> None:
    rows = [record("first", 1, "0"), record("a.b", 1, "0")]
    files = [PictureFile(name="a.b.png", crops=[{1: "yes"}])]
    assert official_scores(rows, files)["vanished"] == {"a.b.png": "no prompt is called 'a'"}


def test_rows_that_do_not_stand_together_are_forgotten_officially() -> None:
    rows = [record("first", 1, "0"), record("a", 1, "0"), record("b", 1, "0"), record("a", 2, "0")]
    files = [PictureFile(name="a.png", crops=[{1: "no", 2: "yes"}])]
    assert official_scores(rows, files)["overall"] == 100


def test_no_pictures_have_no_score() -> None:
    assert score([])["overall"] is None
    assert official_scores([], [])["overall"] is None


@st.composite
def families(draw: st.DrawFn) -> tuple[list[Question], dict[int, Truth]]:
    """Questions in an order in which parents come first, and answers, some of them unknown or missing."""
    count = draw(st.integers(1, 8))
    asked = [
        Question(id=n, text="?", parents=tuple(draw(st.sets(st.integers(1, n - 1), max_size=3))) if n > 1 else ())
        for n in range(1, count + 1)
    ]
    answers = draw(st.dictionaries(st.integers(1, count), st.sampled_from([True, False, None])))
    return asked, answers


def ancestors(asked: list[Question]) -> dict[int, set[int]]:
    """Transitive closure, by squaring the parent relation until nothing is added."""
    reach = {question.id: set(question.parents) for question in asked}
    for _ in asked:
        reach = {child: above | {far for near in above for far in reach[near]} for child, above in reach.items()}
    return reach


@given(families())
def test_gating_is_the_least_answer_of_a_question_and_all_it_depends_on(
    family: tuple[list[Question], dict[int, Truth]],
) -> None:
    """A second formulation: no < unknown < yes, and the minimum over the closure (cascade) or the parents (one
    level)."""
    asked, answers = family
    order: dict[Truth, int] = {False: 0, None: 1, True: 2}
    rank = defaultdict(lambda: 1, {number: order[answer] for number, answer in answers.items()})
    for rule, above in (("cascade", ancestors(asked)), ("one-level", {q.id: set(q.parents) for q in asked})):
        expected = {q.id: min(rank[number] for number in {q.id} | above[q.id]) for q in asked}
        found = gate(asked, answers, "cascade" if rule == "cascade" else "one-level")
        assert {number: order[value] for number, value in found.items()} == expected


@given(families())
def test_the_score_lies_in_its_bounds_and_the_bounds_are_scores(
    family: tuple[list[Question], dict[int, Truth]],
) -> None:
    asked, answers = family
    item = DpgItem(id="a", prompt="", questions=tuple(asked))
    found = score([answered(item, answers)])
    for side, guess in enumerate((False, True)):
        filled = {q.id: guess if answers.get(q.id) is None else answers[q.id] for q in asked}
        assert found["bounds"][side] == pytest.approx(score([answered(item, filled)])["overall"])
    if found["overall"] is not None:
        assert found["bounds"][0] - 1e-9 <= found["overall"] <= found["bounds"][1] + 1e-9


def test_soft_tifa_is_the_mean_over_prompts_of_arithmetic_and_geometric_means() -> None:
    items = [DpgItem(id=n, prompt="", questions=(Question(id=1, text="?", category="count"), Question(id=2, text="?",
             category="object"))) for n in "ab"]  # fmt: skip
    pictures = [
        likely(items[0], {1: 0.9, 2: 0.4}),
        likely(items[1], {1: 0.5, 2: 0.5}),
    ]
    found = soft_scores(pictures)
    assert found["am"] == pytest.approx(100 * (0.65 + 0.5) / 2)
    assert found["gm"] == pytest.approx(100 * (math.sqrt(0.36) + 0.5) / 2)
    assert found["skills"] == pytest.approx({"count": 70, "object": 45})
    unreadable = soft_scores([AnsweredPicture(item=items[0], problem="damaged")])
    assert unreadable["am"] == 0
    assert unreadable["gm"] == pytest.approx(0)
    assert soft_scores([AnsweredPicture(item=items[0])])["gm"] is None
