"""What a run scores: the last picture counts, a failed thought is wrong, a missing one makes the score partial."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from twgi.errors import ConfigError
from twgi.evaluation.collection import Collection, Entry
from twgi.evaluation.detectors.icons import icon_eyes
from twgi.evaluation.geneval import Item
from twgi.evaluation.results import RESULTS, SCORES, read_results
from twgi.evaluation.score import Scores, score, table, write_scores
from twgi.icons import world

RECORDS: list[dict[str, Any]] = [
    {"tag": "single_object", "prompt": "a photo of a cat", "include": [{"class": "cat", "count": 1}]},
    {"tag": "colors", "prompt": "red dog", "include": [{"class": "dog", "count": 1, "color": "red"}]},
]
ITEMS = tuple(Item.from_json(record, index) for index, record in enumerate(RECORDS))
EYES = icon_eyes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture of each kind: cat, red dog, blue dog, horse; and a file that is no picture."""
    root = tmp_path_factory.mktemp("pictures")
    for name, color in (("cat", "red"), ("dog", "red"), ("dog", "blue"), ("horse", "red")):
        drawn(name, color).save(root / f"{color}-{name}.png")
    (root / "broken.png").write_bytes((root / "red-cat.png").read_bytes()[:60])
    return root


def drawn(name: str, color: str) -> Image.Image:
    return world.render(world.Scene((world.Placed(name, color, 1, 1),)))


def thought(*pictures: str | None, **more: Any) -> Entry:
    whole = all(pictures) and bool(pictures)
    tokens = (66,) * len(pictures)
    return Entry(**{"pictures": pictures, "tokens": tokens, "well_formed": whole, "finish_reason": "stop", **more})


CAT, DOG = thought("red-cat.png"), thought("red-dog.png")


def scored(folder: Path, entries: dict[tuple[int, int], Entry], *, samples: int = 1, which: str = "each") -> Scores:
    collection = Collection(folder=folder, items=ITEMS, samples=samples, entries=entries, whole=len(ITEMS))
    return score(collection, EYES, which=which)


def test_a_task_scores_the_share_of_its_right_pictures(folder: Path) -> None:
    other, blue = thought("red-horse.png"), thought("blue-dog.png")
    scores = scored(folder, {(0, 0): CAT, (0, 1): other, (1, 0): DOG, (1, 1): blue}, samples=2)
    assert scores.tasks() == {"single_object": 0.5, "colors": 0.5}
    assert scores.to_json()["correct_prompts"] == 1.0
    assert scores.partial is None


TWO = {(0, 0): thought("red-horse.png", "red-cat.png"), (1, 0): thought("red-dog.png", None)}


def test_the_last_picture_counts_and_the_first_is_scored_beside_it(folder: Path) -> None:
    scores = scored(folder, TWO)
    assert scores.tasks() == {"single_object": 1.0, "colors": 0.0}
    assert scores.tasks(0) == {"single_object": 0.0, "colors": 1.0}
    assert [picture.score for picture in scores.rows[0].pictures] == [0.0, 1.0]


@pytest.mark.parametrize(("which", "tasks"), [("final", (1.0, 0.0)), ("first", (0.0, 1.0)), ("each", (1.0, 0.0))])
def test_which_picture_counts_can_be_said(folder: Path, which: str, tasks: tuple[float, float]) -> None:
    scores = scored(folder, TWO, which=which)
    assert scores.tasks() == dict(zip(("single_object", "colors"), tasks, strict=True))
    looked_at = [[picture.score is not None for picture in row.pictures] for row in scores.rows]
    assert looked_at[0] == [which != "final", which != "first"]
    assert table(scores.to_json())


@pytest.mark.parametrize(("mode", "beside"), [("critique", True), (None, True), ("subgoal", False), ("direct", False)])
def test_first_pictures_stand_in_the_table_only_where_they_are_drafts(
    folder: Path, mode: str | None, beside: bool
) -> None:
    content = scored(folder, TWO).to_json() | ({"settings": {"mode": mode}} if mode else {})
    assert ("first" in table(content).splitlines()[0]) == beside


def test_another_which_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="which must be"):
        scored(folder, TWO, which="best")


def test_scores_by_picture_stay_at_the_last_one_and_tell_its_costs(folder: Path) -> None:
    draft = thought("red-horse.png", "red-cat.png", seconds=(1.0, 2.0, 4.0))
    scores = scored(folder, {(0, 0): draft, (1, 0): thought("red-dog.png", seconds=(2.0, 3.0))})
    first, second = scores.to_json()["by_picture"]
    assert (first["overall"], first["image_tokens"], first["seconds"]) == (0.5, 66, 1.5)
    assert (second["overall"], second["image_tokens"], second["seconds"]) == (1.0, 99, 2.5)


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        (thought(), "no picture"),
        (thought(None), "no picture"),
        (thought("broken.png"), "unreadable"),
        (Entry(failed="too long"), "failed"),
    ],
)
def test_nothing_to_look_at_is_wrong_not_missing_and_listed(folder: Path, entry: Entry, status: str) -> None:
    scores = scored(folder, {(0, 0): CAT, (1, 0): entry})
    assert scores.tasks() == {"single_object": 1.0, "colors": 0.0}
    assert scores.partial is None
    assert scores.rows[1].status == status
    assert any(status in line for line in scores.to_json()["wrong_without_a_look"])
    assert f"sample 0: {status}" in table(scores.to_json())


def test_a_missing_thought_makes_the_score_partial_and_is_listed(folder: Path) -> None:
    scores = scored(folder, {(0, 0): CAT, (1, 0): DOG, (1, 1): DOG}, samples=2).to_json()
    assert scores["partial"] == "3/4"
    assert scores["missing"] == ["prompt 00000 (a photo of a cat), sample 1"]
    assert scores["overall"] == 1.0
    assert scores["overall_if_missing_were_wrong"] == 0.75
    assert "PARTIAL 3/4" in table(scores)
    assert "PARTIAL" not in table(scored(folder, {(0, 0): CAT, (1, 0): DOG}).to_json())


def test_prompts_that_were_not_asked_for_make_it_a_subset(folder: Path) -> None:
    collection = Collection(folder=folder, items=ITEMS[:1], samples=1, entries={(0, 0): CAT}, whole=2)
    scores = score(collection, EYES).to_json()
    assert (scores["partial"], scores["subset"]) == (None, "1/2")
    assert "SUBSET 1/2" in table(scores)


def test_what_the_judge_cannot_see_is_left_out_and_listed(folder: Path) -> None:
    record = {"tag": "colors", "prompt": "a unicorn", "include": [{"class": "unicorn", "count": 1}]}
    items = (ITEMS[0], Item.from_json(record, 1))
    collection = Collection(folder=folder, items=items, samples=1, entries={(0, 0): CAT, (1, 0): DOG}, whole=2)
    scores = score(collection, EYES).to_json()
    assert scores["left_out"] == ["a unicorn"]
    assert scores["subset"] == "1/2"


def test_every_row_says_what_made_it_and_what_judged_it(folder: Path, tmp_path: Path) -> None:
    made = {"model": {"name": "m", "sha256": "0"}, "settings": {"seed": 0}, "versions": {"twgi": "1"}}
    collection = Collection(
        folder=folder, items=ITEMS, samples=1, entries={(0, 0): CAT, (1, 0): DOG}, whole=2, made=made
    )
    written = write_scores(score(collection, EYES), tmp_path)
    assert written == json.loads((tmp_path / SCORES).read_text())
    assert (tmp_path / RESULTS).exists()
    for row in read_results(tmp_path):
        assert row.made == made
        assert row.judged["detector"] == {"name": "icons", "version": "1"}
        assert row.judged["colors"]["name"] == "icons"
        assert row.judged["rules"] == {"threshold": 0.3, "counting_threshold": 0.9, "max_objects": 16}
        assert all(len(picture.sha256 or "") == 64 for picture in row.pictures)


def test_nothing_scores_nothing(folder: Path) -> None:
    empty = scored(folder, {}).to_json()
    assert (empty["overall"], empty["partial"], empty["tasks"]) == (0.0, "0/2", {})
    assert table(empty)
