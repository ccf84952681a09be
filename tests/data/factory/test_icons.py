"""A build by the icon world: no endpoint, every chain true, each a function of the recipe; its page is right."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from twgi.cli import execute
from twgi.config import load_recipe
from twgi.data.factory.build import ITEMS, RECORDS, build
from twgi.data.factory.recipe import BuildRecipe
from twgi.evaluation.geneval.rules import GenEvalItem, judge
from twgi.evaluation.icons import IconDetector
from twgi.icons.sample import is_read_right
from twgi.thinking.modes import MODES

REPOSITORY = Path(__file__).parents[3]
RECIPE = REPOSITORY / "recipes" / "data_icons.yaml"
PAGE = REPOSITORY / "docs" / "data_build.md"
WEIGHTS = REPOSITORY / "src" / "twgi" / "icons" / "weights"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped recipe, a few scenes of it."""
    out = tmp_path_factory.mktemp("icons") / "out"
    report = build(load_recipe(BuildRecipe, RECIPE, ["count=16"]), out)
    assert report.count("kept") == 16 * len(MODES)
    return out


def items(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ITEMS).read_text().splitlines()]


def test_every_chain_is_right_by_the_rules_of_geneval(built: Path) -> None:
    asked = [item for item in items(built) if item["mode"] != "general"]
    assert len(asked) == 48
    detector = IconDetector()
    for number, item in enumerate(asked):
        images = [part["image"] for part in item["record"]["segments"] if part["type"] == "image"]
        picture = Image.open(built / images[-1])
        wanted = GenEvalItem.from_json(item["notes"]["request"], number)
        assert judge(wanted, picture, detector.detect([picture])[0], detector).correct, item["id"]
        assert wanted.prompt in item["record"]["prompt"]


def test_records_are_records_of_every_mode(built: Path) -> None:
    ids = [json.loads(line)["id"] for line in (built / RECORDS).read_text().splitlines()]
    assert ids == [f"{mode}-{number:06d}" for number in range(16) for mode in MODES]
    assert not (built / "answers.jsonl").exists()


def test_a_build_is_a_function_of_its_recipe(built: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    build(load_recipe(BuildRecipe, RECIPE, ["count=16", "workers=1"]), again)
    build(load_recipe(BuildRecipe, RECIPE, ["count=16", "icons.seed=1"]), other)
    assert (again / RECORDS).read_bytes() == (built / RECORDS).read_bytes() != (other / RECORDS).read_bytes()
    assert {p.name for p in (again / "images").iterdir()} == {p.name for p in (built / "images").iterdir()}


def test_tasks_take_turns(tmp_path: Path) -> None:
    overrides = ["count=4", "modes=[direct]", "icons.tasks=[counting, related]"]
    build(load_recipe(BuildRecipe, RECIPE, overrides), tmp_path / "out")
    tags = [item["notes"]["request"]["tag"] for item in sorted(items(tmp_path / "out"), key=lambda item: item["id"])]
    assert tags == ["counting", "related"] * 2


def test_a_chain_that_the_checker_misreads_is_dropped_and_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def misread(scene: Any) -> bool:
        seen.append(scene)
        return len(seen) > 1 and is_read_right(scene)

    monkeypatch.setattr("twgi.data.factory.chains.is_read_right", misread)
    recipe = load_recipe(BuildRecipe, RECIPE, ["count=3", "modes=[direct]", "workers=1"])
    report = build(recipe, tmp_path / "out")
    assert (report.count("kept"), report.count("dropped")) == (2, 1)
    first = items(tmp_path / "out")[0]
    assert (first["score"], first["reason"]) == (0, "the checker misreads 1 of 1 pictures")


def test_the_commands_of_the_page_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not any(WEIGHTS.glob("*.safetensors")):
        pytest.skip("needs the bundled model in icons/weights")
    (tmp_path / "recipes").symlink_to(REPOSITORY / "recipes")
    monkeypatch.chdir(tmp_path)
    shown = re.findall(r"^\$ twgi (.*)\n((?:[^$`].*\n)*)", PAGE.read_text(), re.MULTILINE)
    assert [command.split()[:2] for command, _ in shown] == [["data", "build"], ["data", "check"]]
    for command, expected in shown:
        assert execute(command.split()) == 0
        said = capsys.readouterr().out
        assert re.sub(r"[\d.]+ s$", "", said.strip()) == re.sub(r"[\d.]+ s$", "", expected.strip())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--recipe", "absent.yaml", "--out", "{out}"], "cannot read absent.yaml"),
        (["--recipe", "{recipe}", "--out", "{out}", "cuont=3"], 'unknown key "cuont"'),
        (["--recipe", "{recipe}", "--out", "{out}", "--reuse", "{out}"], "holds no answers.jsonl"),
        (["--recipe", "{recipe}", "--out", "{recipe}"], "Not a directory"),
    ],
)
def test_a_wrong_option_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    given = [part.format(recipe=RECIPE, out=tmp_path / "out") for part in arguments]
    assert execute(["data", "build", *given]) == 2
    complaint = capsys.readouterr().err
    assert problem in complaint
    assert len(complaint.splitlines()) == 1


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "build", "--recipe", str(RECIPE), "--out", str(tmp_path / "out"), "--json", "count=2"]
    assert execute(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "out" / "report.json").read_text())
    assert (told["planned"], told["kept"], told["failed"]) == (8, 8, 0)
