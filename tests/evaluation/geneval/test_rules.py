"""GenEval's rules, each at its boundary, and against a second formulation of the same rules."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from twgi.errors import PromptError
from twgi.evaluation.frame import Verdict
from twgi.evaluation.geneval.benchmark import read_items
from twgi.evaluation.geneval.rules import (
    RELATIONS,
    Detection,
    GenEvalItem,
    judge,
    overall,
    relative_position,
    select,
    task_scores,
)
from twgi.evaluation.icons import IconDetector
from twgi.icons import world

METADATA = Path(__file__).parents[4] / "shared" / "geneval" / "evaluation_metadata.jsonl"
BLANK = Image.new("RGB", (8, 8))


class Recorded:
    """Colours as the detections themselves say."""

    name, version = "recorded", "1"

    def classify(self, picture: Image.Image, detections: Sequence[Detection]) -> list[str]:
        return [detection.color or "" for detection in detections]


def cat(x: float = 0, y: float = 0, *, score: float = 0.95, color: str = "red", name: str = "cat") -> Detection:
    return Detection(name=name, box=(x, y, x + 10, y + 10), score=score, color=color)


def dog(x: float = 0, y: float = 0, *, score: float = 0.95, color: str = "blue") -> Detection:
    return cat(x, y, score=score, color=color, name="dog")


def asks(*include: dict[str, Any], exclude: Sequence[dict[str, Any]] = (), tag: str = "any") -> GenEvalItem:
    return GenEvalItem.from_json({"tag": tag, "prompt": "p", "include": list(include), "exclude": list(exclude)}, 0)


def verdict(item: GenEvalItem, *detections: Detection) -> Verdict:
    return judge(item, BLANK, detections, Recorded())


CAT = {"class": "cat", "count": 1}
TWO_CATS = {"class": "cat", "count": 2}
RED_CAT = {"class": "cat", "count": 1, "color": "red"}
THIRD_CAT = {"class": "cat", "count": 3}
DOG_LEFT = {"class": "dog", "count": 1, "position": ["left of", 0]}

RULES = [
    ("one is enough", asks(CAT), [cat()], True),
    ("more than asked for is no fault", asks(CAT), [cat(), cat(20)], True),
    ("other things are no fault", asks(CAT), [cat(), dog()], True),
    ("nothing is a fault", asks(CAT), [], False),
    ("another thing is a fault", asks(CAT), [dog()], False),
    ("fewer than asked for is a fault", asks(TWO_CATS), [cat()], False),
    ("overlapping boxes count apart", asks(TWO_CATS), [cat(), cat()], True),
    ("all clauses must hold", asks(CAT, {"class": "dog", "count": 1}), [cat()], False),
    ("a score must exceed 0.3", asks(CAT), [cat(score=0.3)], False),
    ("a score above 0.3 will do", asks(CAT), [cat(score=0.3001)], True),
    ("counting: a score must exceed 0.9", asks(CAT, tag="counting"), [cat(score=0.9)], False),
    ("counting: a score above 0.9 will do", asks(CAT, tag="counting"), [cat(score=0.9001)], True),
    ("exclude: as many as named is a fault", asks(TWO_CATS, exclude=[THIRD_CAT]), [cat(), cat(), cat()], False),
    ("exclude: fewer is none", asks(TWO_CATS, exclude=[THIRD_CAT]), [cat(), cat()], True),
    ("exclude: below the threshold is none", asks(TWO_CATS, exclude=[THIRD_CAT]), [cat(), cat(), cat(score=0.2)], True),
    ("the colour must match", asks(RED_CAT), [cat(color="blue")], False),
    ("only the best is asked for its colour", asks(RED_CAT), [cat(color="blue"), cat(score=0.5)], False),
    ("the best has the colour", asks(RED_CAT), [cat(score=0.5, color="blue"), cat()], True),
    ("every one asked for has the colour", asks({**RED_CAT, "count": 2}), [cat(), cat(color="blue")], False),
    ("the side is right", asks(CAT, DOG_LEFT), [cat(50), dog(0)], True),
    ("the side is wrong", asks(CAT, DOG_LEFT), [cat(0), dog(50)], False),
    ("no target, no side", asks(CAT, DOG_LEFT), [dog(0)], False),
    ("a target of a wrong colour is none", asks(RED_CAT, DOG_LEFT), [cat(50, color="blue"), dog(0)], False),
    ("every target has its side", asks(TWO_CATS, DOG_LEFT), [cat(50), cat(0), dog(25)], False),
    (
        "exclude counts above 0.9 in counting",
        asks(TWO_CATS, exclude=[THIRD_CAT], tag="counting"),
        [cat()] * 2 + [cat(score=0.9)],
        True,
    ),
    ("exclude never counts beyond sixteen", asks(CAT, exclude=[{"class": "cat", "count": 17}]), [cat()] * 20, True),
    (
        "a colour twice among two is enough",
        asks({**RED_CAT, "count": 2}),
        [cat(), cat(), cat(color="blue", score=0.5)],
        True,
    ),
    ("a diagonal holds on both sides", asks(CAT, DOG_LEFT), [cat(50, 50), dog(0, 0)], True),
    ("things upon each other have no side", asks(CAT, DOG_LEFT), [cat(0), dog(0)], False),
    ("a little aside is no side", asks(CAT, DOG_LEFT), [cat(2), dog(0)], False),
    ("too few have no side", asks(CAT, {**DOG_LEFT, "count": 2}), [cat(50), dog(0)], False),
    ("COCO's own name is none of GenEval's", asks({"class": "computer mouse", "count": 1}), [cat(name="mouse")], False),
    ("the renamed class is", asks({"class": "computer mouse", "count": 1}), [cat(name="computer mouse")], True),
    ("the best of each are compared", asks(CAT, DOG_LEFT), [cat(50), cat(0, score=0.5), dog(25)], True),
]


@pytest.mark.parametrize(("item", "detections", "correct"), [rule[1:] for rule in RULES], ids=[r[0] for r in RULES])
def test_rule(item: GenEvalItem, detections: list[Detection], correct: bool) -> None:
    result = verdict(item, *detections)
    assert result.correct is correct
    assert bool(result.reasons) is not correct


def test_reasons_say_what_was_expected_and_found() -> None:
    item = asks(RED_CAT, DOG_LEFT, exclude=[{"class": "bird", "count": 1}])
    result = verdict(item, cat(0, color="blue"), dog(0, 50), cat(name="bird"))
    assert result.reasons == (
        "expected red cat>=1, found blue",
        "no target for dog to be left of",
        "expected bird<1, found 1",
    )


def test_of_a_class_the_best_sixteen_are_kept() -> None:
    found = select([cat(score=0.4 + index / 100) for index in range(20)], counting=False)["cat"]
    assert [detection.score for detection in found] == sorted((0.4 + i / 100 for i in range(4, 20)), reverse=True)
    assert not verdict(asks({"class": "cat", "count": 17}), *[cat()] * 20).correct


@pytest.mark.parametrize(
    ("box", "relations"),
    [
        ((-40, 0, -30, 10), {"left of"}),
        ((40, 0, 50, 10), {"right of"}),
        ((0, -40, 10, -30), {"above"}),
        ((0, 40, 10, 50), {"below"}),
        ((40, 40, 50, 50), {"right of", "below"}),
        ((-40, -40, -30, -30), {"left of", "above"}),
        ((0, 0, 10, 10), set()),
        ((2, 0, 12, 10), set()),  # the slack of 0.1 * (10 + 10) eats the offset
        ((4, 0, 14, 10), set()),  # (4 - 2) / 4 is not more than one half
        ((4.1, 0, 14.1, 10), {"right of"}),
        ((40, 20, 50, 30), {"right of"}),  # (20 - 2) / 44.7 is less than one half
    ],
)
def test_relations_at_their_boundaries(box: tuple[float, float, float, float], relations: set[str]) -> None:
    assert relative_position(box, (0, 0, 10, 10)) == relations


boxes = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 30)] * 2).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)
detections = st.builds(
    Detection,
    name=st.sampled_from(["cat", "dog"]),
    box=boxes,
    score=st.sampled_from([0.2, 0.3, 0.31, 0.5, 0.9, 0.91, 1.0]),
    color=st.sampled_from(["red", "blue"]),
)
clauses = st.fixed_dictionaries(
    {"class": st.sampled_from(["cat", "dog"]), "count": st.integers(1, 3)},
    optional={"color": st.sampled_from(["red", "blue"])},
)


@st.composite
def metadata(draw: st.DrawFn) -> dict[str, Any]:
    include = draw(st.lists(clauses, min_size=1, max_size=3))
    for number, clause in enumerate(include):
        if number and draw(st.booleans()):
            clause["position"] = [draw(st.sampled_from(RELATIONS)), draw(st.integers(0, number - 1))]
    tag = draw(st.sampled_from(["counting", "position"]))
    return {"tag": tag, "prompt": "p", "include": include, "exclude": draw(st.lists(clauses, max_size=1))}


def angle_relations(a: Detection, b: Detection) -> set[str]:
    """The relations by vectors, as a whole, rather than axis by axis."""
    corners_a, corners_b = np.array(a.box).reshape(2, 2), np.array(b.box).reshape(2, 2)
    offset = corners_a.mean(axis=0) - corners_b.mean(axis=0)
    sizes = (corners_a[1] - corners_a[0]) + (corners_b[1] - corners_b[0])
    rest = np.sign(offset) * np.clip(np.abs(offset) - sizes / 10, 0, None)
    if np.abs(rest).max() < 1e-3:
        return set()
    unit = rest / math.hypot(*offset)
    directions = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
    return {name for name, direction in directions.items() if unit @ np.array(direction) > 0.5}


def plainly_right(record: dict[str, Any], things: list[Detection]) -> bool:
    """The whole check as one logical formula over each clause's best things."""
    limit = 0.9 if record["tag"] == "counting" else 0.3
    kept = [thing for thing in sorted(things, key=lambda t: t.score, reverse=True) if thing.score > limit]

    def best(clause: dict[str, Any]) -> list[Detection]:
        return [thing for thing in kept if thing.name == clause["class"]][: min(clause["count"], 16)]

    def holds(clause: dict[str, Any]) -> bool:
        mine = best(clause)
        if len(mine) != clause["count"] or any(thing.color != clause.get("color", thing.color) for thing in mine):
            return False
        relation, target = clause.get("position", (None, 0))
        other = record["include"][target]
        return relation is None or (
            holds(other) and all(relation in angle_relations(a, b) for a in mine for b in best(other))
        )

    forbidden = [sum(thing.name == c["class"] for thing in kept) >= c["count"] for c in record["exclude"]]
    return all(map(holds, record["include"])) and not any(forbidden)


@given(metadata(), st.lists(detections, max_size=6))
def test_the_rules_equal_a_second_formulation(record: dict[str, Any], things: list[Detection]) -> None:
    assert verdict(GenEvalItem.from_json(record, 0), *things).correct is plainly_right(record, things)


def test_overall_is_the_unweighted_mean_of_the_tasks() -> None:
    results = [("counting", True), ("counting", False), ("counting", False), ("counting", False), ("colors", True)]
    scores = task_scores(results)
    assert scores == {"counting": 0.25, "colors": 1.0}
    assert overall(scores) == 0.625
    assert overall({}) == 0


def test_the_real_prompts_are_read_as_they_are() -> None:
    if not METADATA.exists():
        pytest.skip("GenEval's metadata file is not here")
    items = read_items(METADATA)
    tags = [item.task for item in items]
    assert [(tag, tags.count(tag)) for tag in dict.fromkeys(tags)] == [
        ("single_object", 80),
        ("two_object", 99),
        ("counting", 80),
        ("colors", 94),
        ("position", 100),
        ("color_attr", 100),
    ]
    assert [item.id for item in items] == [f"{index:05d}" for index in range(553)]


def test_the_real_names_are_cocos_in_its_order_with_three_renamed() -> None:
    file = METADATA.with_name("object_names.txt")
    if not METADATA.exists() or not file.exists():
        pytest.skip("GenEval's files are not here")
    assert tuple(file.read_text().split("\n")[:80]) == world.NAMES
    assert {"computer mouse", "tv remote", "computer keyboard"} < set(world.NAMES)
    assert {name for item in read_items(METADATA) for name in item.names} <= set(world.NAMES)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"tag": "colors", "prompt": "p"}',
        '{"tag": "colors", "prompt": "p", "include": [{"class": "cat"}]}',
        '{"tag": "colors", "prompt": "p", "include": [{"class": "cat", "count": 0}]}',
        '{"tag": "colors", "prompt": "p", "include": [{"class": "cat", "count": 1, "position": ["near", 0]}]}',
        '{"tag": "colors", "prompt": "p", "include": [{"class": "cat", "count": 1, "position": ["above", 0]}]}',
    ],
)
def test_a_broken_metadata_line_is_named(tmp_path: Path, line: str) -> None:
    good = json.dumps({"tag": "colors", "prompt": "p", "include": [CAT]})
    (tmp_path / "prompts.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(PromptError, match=r"prompts\.jsonl:2"):
        read_items(tmp_path / "prompts.jsonl")


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_icon_detector_sees_a_scene_as_it_is(relation: str) -> None:
    place = {"left of": (0, 1), "right of": (5, 1), "above": (2, 0), "below": (2, 5)}[relation]
    center = {"left of": (4, 1), "right of": (0, 1), "above": (2, 4), "below": (2, 0)}[relation]
    scene = world.Scene((world.Placed("dog", "blue", *place), world.Placed("cat", "red", *center)))
    picture, detector = world.render(scene), IconDetector()
    found = detector.detect([picture])[0]

    def right(dog_relation: str, color: str) -> bool:
        clause = {"class": "dog", "count": 1, "color": color, "position": [dog_relation, 0]}
        return judge(asks(RED_CAT, clause, tag="counting"), picture, found, detector).correct

    assert [name for name in RELATIONS if right(name, "blue")] == [relation]
    assert not right(relation, "green")


CLAUSE = {"class": "cat", "count": 1}
SECOND = {"class": "dog", "count": 1, "position": ["left of", 0]}
RECORD = {"tag": "position", "prompt": "a dog left of a cat", "include": [CLAUSE, SECOND], "exclude": [CLAUSE]}


CLASSES: list[Any] = [["cat"], None, 3, "", {}]
COUNTS: list[Any] = [float("nan"), 1.0, 2.5, "2", True, 0, -1, 10**5000, None]
SHADES: list[Any] = ["gray", 3, ["red"], {}]
POSITIONS: list[Any] = [
    ["left of"], ["beside", 0], ["left of", "0"], ["left of", 0.0], ["left of", 1], ["left of", -1], "ab", 5,
    ["left of", None], [["left of"], 0],
]  # fmt: skip
MEANINGLESS: list[dict[str, Any]] = [
    {"include": "cat"}, {"include": []}, {"include": {}}, {"include": [3]}, {"include": [None]}, {"include": None},
    {"exclude": "cat"}, {"exclude": [3]}, {"tag": 3}, {"tag": None}, {"prompt": 3}, {"prompt": " "}, {"prompt": []},
    *({"include": [CLAUSE | {"class": value}]} for value in CLASSES),
    *({"include": [CLAUSE | {"count": value}]} for value in COUNTS),
    *({"include": [CLAUSE | {"color": value}]} for value in SHADES),
    *({"include": [CLAUSE, SECOND | {"position": value}]} for value in POSITIONS),
]  # fmt: skip


@pytest.mark.parametrize("change", MEANINGLESS)
def test_a_line_that_means_nothing_is_told_before_anything_is_drawn(change: dict[str, Any]) -> None:
    assert GenEvalItem.from_json(RECORD, 0).names == {"cat", "dog"}
    with pytest.raises(PromptError) as error:
        GenEvalItem.from_json(RECORD | change, 0)
    assert len(str(error.value)) < 400


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["tag", "prompt", "include", "exclude"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["cat", "red", "left of"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["class", "count", "color", "position"]), inner, max_size=4)
            ),
            max_leaves=8,
        ),
    )
)
def test_of_any_line_comes_an_item_or_the_users_error(change: dict[str, Any]) -> None:
    try:
        item = GenEvalItem.from_json(RECORD | change, 0)
    except PromptError:
        return
    assert item.names <= {"cat", "dog", "red", "left of"}
