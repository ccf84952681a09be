"""GenEval's own folder shape: what is written can be judged as pictures from anywhere, and nothing is missed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from twgi.cli import execute
from twgi.errors import ConfigError, PromptError, RunError
from twgi.evaluation.frame import PromptSet
from twgi.evaluation.geneval.benchmark import FOLDER, GenEval, read_items
from twgi.evaluation.pictures import Generation, PictureRef, PictureSet
from twgi.evaluation.results import SCORES
from twgi.icons import world

NAMES = ("cat", "dog", "cow")


def record(name: str) -> dict[str, Any]:
    return {"tag": "single_object", "include": [{"class": name, "count": 1}], "prompt": f"a photo of a {name}"}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(record(name)) + "\n" for name in NAMES))
    return path


@pytest.fixture
def pictures(tmp_path: Path, prompts: Path) -> Path:
    """Two right pictures of each prompt, in GenEval's shape."""
    root = tmp_path / "pictures"
    for index, name in enumerate(NAMES):
        folder = root / f"{index:05d}"
        (folder / "samples").mkdir(parents=True)
        (folder / "metadata.jsonl").write_text(json.dumps(record(name)))
        for sample in range(2):
            thing = world.Placed(name, "red", sample, 1)
            world.render(world.Scene((thing,))).save(folder / "samples" / f"{sample:04d}.png")
    return root


def read(pictures: Path, prompts: Path, *, samples: int = 2) -> PictureSet:
    return GenEval().from_elsewhere(pictures, prompts, samples=samples)[1]


def score(pictures: Path, prompts: Path, *more: str) -> tuple[int, dict[str, Any]]:
    status = execute(["score", "geneval", str(pictures), "--prompts", str(prompts), "--samples", "2", *more])
    return status, json.loads((pictures / SCORES).read_text())


def test_pictures_made_elsewhere_are_judged(pictures: Path, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, scores = score(pictures, prompts)
    assert (status, scores["overall"], scores["partial"], scores["thoughts"]) == (0, 1.0, None, 6)
    assert "PARTIAL" not in capsys.readouterr().out


def test_json_is_all_that_is_printed(pictures: Path, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, scores = score(pictures, prompts, "--json", "--which", "first")
    assert json.loads(capsys.readouterr().out) == scores
    assert scores["which"] == "first"


def test_a_deleted_sample_makes_it_partial(pictures: Path, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "00001" / "samples" / "0000.png").unlink()
    status, scores = score(pictures, prompts)
    assert (status, scores["partial"]) == (2, "5/6")
    assert scores["missing"] == ["prompt 00001 (a photo of a dog), sample 0"]
    said = capsys.readouterr().out
    assert "PARTIAL 5/6" in said
    assert "prompt 00001 (a photo of a dog), sample 0" in said


def test_a_missing_prompt_makes_it_partial(pictures: Path, prompts: Path) -> None:
    shutil.rmtree(pictures / "00002")
    status, scores = score(pictures, prompts)
    assert (status, scores["partial"], len(scores["missing"])) == (2, "4/6", 2)


def test_a_picture_that_cannot_be_read_is_wrong_and_shown(
    pictures: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "00000" / "samples" / "0001.png").write_bytes(b"\x89PNG, or so it says")
    status, scores = score(pictures, prompts)
    assert (status, scores["partial"]) == (0, None)
    assert scores["correct_images"] == pytest.approx(5 / 6)
    assert "00000/samples/0001.png" in capsys.readouterr().out


def test_a_folder_of_another_prompt_is_refused(pictures: Path, prompts: Path) -> None:
    (pictures / "00001" / "metadata.jsonl").write_text(json.dumps(record("horse")))
    with pytest.raises(PromptError, match=r"00001/metadata.jsonl says 'a photo of a horse'"):
        read(pictures, prompts)
    shutil.copytree(pictures / "00000", pictures / "00007")
    with pytest.raises(PromptError, match="00007 is of no prompt"):
        read(pictures, prompts)


def test_more_pictures_than_said_are_refused(pictures: Path, prompts: Path) -> None:
    with pytest.raises(ConfigError, match="--samples 2"):
        read(pictures, prompts, samples=1)


def test_pictures_may_be_counted_from_one(pictures: Path, prompts: Path) -> None:
    samples = pictures / "00000" / "samples"
    (samples / "0000.png").rename(samples / "0002.png")
    assert len(read(pictures, prompts).generations) == 6


def test_what_the_judge_cannot_see_is_left_out_and_listed(pictures: Path, prompts: Path) -> None:
    prompts.write_text(prompts.read_text() + json.dumps(record("unicorn")) + "\n")
    status, scores = score(pictures, prompts)
    assert (status, scores["subset"], scores["left_out"]) == (0, "3/4", ["a photo of a unicorn"])


def test_a_folder_of_nothing_says_so(tmp_path: Path, prompts: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="no folders like 00000"):
        read(tmp_path / "empty", prompts)
    assert execute(["score", "geneval", str(tmp_path / "empty")]) == 2


def test_what_is_laid_out_reads_back_as_the_last_pictures(tmp_path: Path, pictures: Path, prompts: Path) -> None:
    asked = PromptSet(items=tuple(read_items(prompts)), whole=3)
    made = {
        ("00000", 0): ("00000/samples/0000.png", "00000/samples/0001.png"),
        ("00001", 1): ("00001/samples/0001.png",),
    }
    there = {
        key: Generation(pictures=tuple(PictureRef(file=pictures / file) for file in files))
        for key, files in made.items()
    }
    run = PictureSet(root=pictures, samples=2, generations=there | {("00002", 0): Generation(failed="why")})
    root = GenEval().lay_out(asked, run)
    GenEval().lay_out(asked, run)
    assert root == pictures / FOLDER
    last = pictures / "00000/samples/0001.png"
    assert (root / "00000/samples/00000.png").read_bytes() == last.read_bytes()
    assert sorted(read(root, prompts).generations) == [("00000", 0), ("00001", 1)]


def test_pictures_may_be_jpeg_or_webp_and_one_number_is_one_picture(pictures: Path, prompts: Path) -> None:
    for ending in ("jpg", "webp"):
        for path in (pictures / "00001" / "samples").glob("*.png"):
            with Image.open(path) as picture:
                picture.convert("RGB").save(path.with_suffix(f".{ending}"))
        with pytest.raises(RunError):
            read(pictures, prompts)
        for path in (pictures / "00001" / "samples").glob("*.png"):
            path.unlink()
        found = read(pictures, prompts)
        assert len(found.generations) == 6
        for path in (pictures / "00001" / "samples").glob(f"*.{ending}"):
            path.rename(path.with_suffix(".png"))
