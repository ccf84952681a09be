"""What a run scores: the last picture counts, a failed thought is wrong, a missing one makes the score partial."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from twgi.errors import ConfigError
from twgi.evaluation.evaluate import score
from twgi.evaluation.frame import PromptSet
from twgi.evaluation.geneval.benchmark import GenEval
from twgi.evaluation.geneval.rules import GenEvalItem
from twgi.evaluation.icons import icon_suite
from twgi.evaluation.pictures import Generation, PictureRef, PictureSet
from twgi.evaluation.results import RESULTS, SCORES, Result, read_results
from twgi.icons import world

RECORDS: list[dict[str, Any]] = [
    {"tag": "single_object", "prompt": "a photo of a cat", "include": [{"class": "cat", "count": 1}]},
    {"tag": "colors", "prompt": "red dog", "include": [{"class": "dog", "count": 1, "color": "red"}]},
]
ITEMS = tuple(GenEvalItem.from_json(record, index) for index, record in enumerate(RECORDS))
BENCHMARK = GenEval(icon_suite())
Thoughts = dict[tuple[int, int], Generation]


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


@pytest.fixture
def thought(folder: Path) -> Callable[..., Generation]:
    """A thought with these pictures; None is one that is not whole."""

    def make(*pictures: str | None, kinds: Sequence[str] = (), **more: Any) -> Generation:
        refs = tuple(
            PictureRef(file=folder / name if name else None, kind=kind, image_tokens=66)
            for name, kind in zip_longest(pictures, kinds[: len(pictures)])
        )
        whole = bool(pictures) and all(pictures)
        return Generation(**{"pictures": refs, "well_formed": whole, "finish_reason": "stop", **more})

    return make


@pytest.fixture
def scored(tmp_path: Path, folder: Path) -> Callable[..., "Scored"]:
    """Judge thoughts, by (place of the prompt, sample)."""

    def run(thoughts: Thoughts, *, samples: int = 1, which: str = "each", **more: Any) -> "Scored":
        asked = PromptSet(**{"items": ITEMS, "whole": 2, **more})
        keyed = {(f"{number:05d}", sample): one for (number, sample), one in thoughts.items()}
        pictures = PictureSet(root=folder, samples=samples, generations=keyed, made=MADE)
        content = score(BENCHMARK, asked, pictures, tmp_path, which=which, counting=lambda *_: nullcontext(int))
        assert content == json.loads((tmp_path / SCORES).read_text())
        return Scored(content, BENCHMARK.table(content), list(read_results(tmp_path).rows))

    return run


class Scored(NamedTuple):
    content: dict[str, Any]
    table: str
    rows: list[Result]


MADE = {"model": {"name": "m", "sha256": "0"}, "settings": {"seed": 0}, "versions": {"twgi": "1"}}
Make = Callable[..., Generation]
Run = Callable[..., Scored]


def test_a_task_scores_the_share_of_its_right_pictures(thought: Make, scored: Run) -> None:
    other, blue = thought("red-horse.png"), thought("blue-dog.png")
    cat, dog = thought("red-cat.png"), thought("red-dog.png")
    found = scored({(0, 0): cat, (0, 1): other, (1, 0): dog, (1, 1): blue}, samples=2).content
    assert found["tasks"] == {"single_object": 0.5, "colors": 0.5}
    assert (found["correct_prompts"], found["partial"]) == (1.0, None)


def two(thought: Make, *kinds: str) -> Thoughts:
    """The first becomes right, the second is lost."""
    return {
        (0, 0): thought("red-horse.png", "red-cat.png", kinds=kinds),
        (1, 0): thought("red-dog.png", None, kinds=kinds),
    }


def test_the_last_picture_counts_and_the_first_is_scored_beside_it(thought: Make, scored: Run) -> None:
    found = scored(two(thought))
    assert found.content["tasks"] == {"single_object": 1.0, "colors": 0.0}
    assert found.content["first_picture"]["tasks"] == {"single_object": 0.0, "colors": 1.0}
    assert [picture.score for picture in found.rows[0].pictures] == [0.0, 1.0]


@pytest.mark.parametrize(("which", "tasks"), [("final", (1.0, 0.0)), ("first", (0.0, 1.0)), ("each", (1.0, 0.0))])
def test_which_picture_counts_can_be_said(thought: Make, scored: Run, which: str, tasks: tuple[float, float]) -> None:
    found = scored(two(thought), which=which)
    assert found.content["tasks"] == dict(zip(("single_object", "colors"), tasks, strict=True))
    looked_at = [[picture.score is not None for picture in row.pictures] for row in found.rows]
    assert looked_at[0] == [which != "final", which != "first"]


@pytest.mark.parametrize(
    ("kinds", "beside"), [(("draft", "redraw"), True), ((), True), (("part", "whole"), False), (("direct",), False)]
)
def test_first_pictures_stand_in_the_table_only_where_they_are_drafts(
    thought: Make, scored: Run, kinds: tuple[str, ...], beside: bool
) -> None:
    found = scored(two(thought, *kinds))
    assert ("first" in found.table.splitlines()[0]) == beside
    assert found.rows[0].pictures[0].kind == next(iter(kinds), None)


def test_another_which_is_refused(thought: Make, scored: Run) -> None:
    with pytest.raises(ConfigError, match="which must be"):
        scored(two(thought), which="best")


def test_scores_by_picture_stay_at_the_last_one_and_tell_its_costs(thought: Make, scored: Run) -> None:
    draft = thought("red-horse.png", "red-cat.png", seconds=(1.0, 2.0, 4.0))
    found = scored({(0, 0): draft, (1, 0): thought("red-dog.png", seconds=(2.0, 3.0))})
    first, second = found.content["by_picture"]
    assert (first["overall"], first["image_tokens"], first["seconds"]) == (0.5, 66, 1.5)
    assert (second["overall"], second["image_tokens"], second["seconds"]) == (1.0, 99, 2.5)


@pytest.mark.parametrize(
    ("pictures", "failed", "status"),
    [
        ((), None, "no picture"),
        ((None,), None, "no picture"),
        (("broken.png",), None, "unreadable"),
        ((), "too long", "failed"),
    ],
)
def test_nothing_to_look_at_is_wrong_not_missing_and_listed(
    thought: Make, scored: Run, pictures: tuple[str | None, ...], failed: str | None, status: str
) -> None:
    found = scored({(0, 0): thought("red-cat.png"), (1, 0): thought(*pictures, failed=failed)})
    assert found.content["tasks"] == {"single_object": 1.0, "colors": 0.0}
    assert found.content["partial"] is None
    assert found.rows[1].status == status
    assert any(status in line for line in found.content["wrong_without_a_look"])
    assert f"sample 0: {status}" in found.table


def test_a_missing_thought_makes_the_score_partial_and_is_listed(thought: Make, scored: Run) -> None:
    cat, dog = thought("red-cat.png"), thought("red-dog.png")
    found = scored({(0, 0): cat, (1, 0): dog, (1, 1): dog}, samples=2)
    assert found.content["partial"] == "3/4"
    assert found.content["missing"] == ["prompt 00000 (a photo of a cat), sample 1"]
    assert found.content["overall"] == 1.0
    assert found.content["overall_if_missing_were_wrong"] == 0.75
    assert "PARTIAL 3/4" in found.table
    assert "PARTIAL" not in scored({(0, 0): cat, (1, 0): dog}).table


def test_prompts_that_were_not_asked_for_make_it_a_subset(thought: Make, scored: Run) -> None:
    found = scored({(0, 0): thought("red-cat.png")}, items=ITEMS[:1])
    assert (found.content["partial"], found.content["subset"]) == (None, "1/2")
    assert "SUBSET 1/2" in found.table


def test_what_made_and_what_judged_a_result_stand_beside_all_rows_once(
    thought: Make, scored: Run, tmp_path: Path
) -> None:
    found = scored({(0, 0): thought("red-cat.png"), (1, 0): thought("red-dog.png")})
    results = read_results(tmp_path)
    assert (results.benchmark, results.made) == ("geneval", MADE)
    assert results.judged["detector"] == {"name": "icons", "version": "1"}
    assert results.judged["colors"]["name"] == "icons"
    assert results.judged["rules"] == {"threshold": 0.3, "counting_threshold": 0.9, "max_objects": 16}
    assert (tmp_path / RESULTS).read_text().count('"rules"') == 1
    assert all(len(picture.sha256 or "") == 64 for row in found.rows for picture in row.pictures)


def test_nothing_scores_nothing(scored: Run) -> None:
    empty = scored({})
    assert (empty.content["overall"], empty.content["partial"], empty.content["tasks"]) == (0.0, "0/2", {})
    assert empty.table
