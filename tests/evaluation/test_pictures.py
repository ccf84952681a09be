"""Identity is content: a picture is of the prompt whose words it was drawn from; what was not read is unknown."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from twgi.cli import execute
from twgi.errors import ImageError, RefusedImageError, RunError
from twgi.evaluation.pictures import Generation, PictureReader, PictureRef, PictureSet, matched, told_of
from twgi.icons import world
from twgi.runs.folder import Description
from twgi.thinking.settings import Settings
from twgi.tokenizer import image
from twgi.trace import ModelId

NAMES = ("cat", "dog", "cow")


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["a cat", "a dog", "a  cat", "a cow", ""]), max_size=6), st.randoms())
def test_prompts_are_matched_by_their_words_whatever_their_names_are(prompts: list[str], random: Any) -> None:
    told = {str(number): text for number, text in enumerate(prompts)}
    asked = dict(zip(random.sample(list(told), len(told)), told.values(), strict=True))
    found = matched(told, asked)
    assert len(set(found.values())) == len(found), "no prompt is taken twice"
    for name, other in found.items():
        same = told[name].split() == asked[other].split()
        assert same or (name == other and not (told[name] and asked[other])), "without words there is the name alone"
    assert {name for name, text in told.items() if text} <= {n for n in told if n in found or not all(asked.values())}


def test_of_several_prompts_with_the_same_words_that_of_the_same_name_is_meant() -> None:
    assert matched({"a": "x", "b": "x"}, {"b": "x", "a": " x "}) == {"a": "a", "b": "b"}
    assert matched({"a": "x", "b": "y"}, {"a": "y", "b": "z"}) == {"b": "a"}


def test_pictures_of_other_prompts_are_refused_or_shown() -> None:
    there = {(name, 0): Generation() for name in ("0", "1")}
    drawn = PictureSet(root=Path("run"), samples=1, generations=there, prompts={"0": "a cat", "1": "a dog"})
    found = drawn.about({"0": "a dog", "5": "a cow"})
    assert (set(found.generations), found.unknown, found.by_name) == ({("0", 0)}, ("0, sample 0 (a cat)",), ())
    assert drawn.about({"0": "", "1": "a dog"}).by_name == ("0",)
    with pytest.raises(RunError, match="run is of other prompts than are asked about: it has 0, sample 0"):
        drawn.about({"0": "a cow", "1": "a horse"})


def test_what_a_run_says_of_its_benchmark_is_checked() -> None:
    told = {"name": "dpg", "whole": 1, "left_out": [], "lines": [{}], "ids": ["a"]}
    changes: list[dict[str, Any]] = [
        {"ids": []}, {"ids": [3]}, {"ids": 5}, {"lines": [5]}, {"lines": "x"}, {"lines": [{"prompt": 3}]},
        {"whole": "x"}, {"left_out": 3}, {"name": None, "lines": None},
    ]  # fmt: skip
    for change in ({}, *changes):
        about = {"benchmark": told | change}
        run = Description(settings=Settings(), model=ModelId(name="m", sha256="0" * 64), about=about)
        if not change:
            assert told_of(Path("run"), run)["ids"] == ["a"]
            continue
        with pytest.raises(RunError, match=r"run: what its run\.json says|run is a run of no benchmark"):
            told_of(Path("run"), run)


def save(path: Path, side: int) -> PictureRef:
    Image.new("RGB", (side, side), (9, 9, 9)).save(path)
    return PictureRef(file=path)


def test_a_grid_of_four_pictures_within_the_limits_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "MAX_SIDE", 40)
    monkeypatch.setattr(image, "MAX_PIXELS", 1024)
    grid = save(tmp_path / "grid.png", 64)
    assert PictureReader().open(PictureRef(file=grid.file, crop=3))[1].size == (32, 32)
    with pytest.raises(RefusedImageError, match="66 x 66 pixels; at most 80 pixels a side and 0 megapixels are read"):
        PictureReader().open(save(tmp_path / "larger.png", 66))


def test_a_grid_of_four_pictures_of_2048_pixels_is_read(tmp_path: Path) -> None:
    Image.new("L", (4096, 4096), 9).save(tmp_path / "0.png")
    assert PictureReader().open(PictureRef(file=tmp_path / "0.png", crop=1))[1].size == (2048, 2048)


def test_a_picture_is_not_read_before_its_size_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twgi.evaluation.pictures.read_picture", lambda content, **_: pytest.fail("it was read"))
    with (tmp_path / "0.png").open("wb") as file:
        file.truncate(8 * 2**30)
    with pytest.raises(RefusedImageError, match=r"0\.png: more than 128 MiB"):
        PictureReader().open(PictureRef(file=tmp_path / "0.png"))


def test_a_device_a_pipe_and_a_folder_are_refused_and_a_file_that_is_gone_is_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for file in (Path("/dev/zero"), tmp_path / "pipe.png", tmp_path, Path("a\0b.png")):
        with pytest.raises(RefusedImageError, match="cannot be read"):
            PictureReader().open(PictureRef(file=file))
    with pytest.raises(ImageError) as gone:
        PictureReader().open(PictureRef(file=tmp_path / "gone.png"))
    assert not isinstance(gone.value, RefusedImageError)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two right pictures of each of three prompts in GenEval's shape, whose prompts lie beside them."""
    lines = []
    for index, name in enumerate(NAMES):
        line = {"tag": "single_object", "include": [{"class": name, "count": 1}], "prompt": f"a photo of a {name}"}
        folder = tmp_path / "pictures" / f"{index:05d}"
        (folder / "samples").mkdir(parents=True)
        (folder / "metadata.jsonl").write_text(json.dumps(line))
        for sample in range(2):
            scene = world.Scene((world.Placed(name, "red", sample, 1),))
            world.render(scene).save(folder / "samples" / f"{sample:05d}.png")
        lines.append(json.dumps(line) + "\n")
    (tmp_path / "prompts.jsonl").write_text("".join(lines))
    return tmp_path / "pictures"


def score(pictures: Path) -> tuple[int, Any]:
    prompts = pictures.parent / "prompts.jsonl"
    status = execute(["score", "geneval", str(pictures), "--prompts", str(prompts), "--samples", "2"])
    file = pictures / "scores.json"
    return status, json.loads(file.read_text()) if file.exists() else None


def too_large(file: Path) -> None:
    with file.open("wb") as out:
        out.truncate(200 * 2**20)


def device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def photograph(file: Path) -> None:
    Image.effect_noise((512, 512), 90).convert("RGB").save(file)


def small_photograph(file: Path) -> None:
    Image.effect_noise((64, 64), 90).convert("RGB").save(file)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (too_large, "more than 128 MiB"),
        (device, "a pipe or a device"),
        (photograph, "not a picture of the icon world (512 x 512 pixels"),
        (small_photograph, "nothing of its ground is to be seen"),
    ],
)
def test_a_picture_that_nobody_looked_at_is_unknown_and_never_wrong(
    pictures: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], why: str
) -> None:
    spoil(pictures / "00001" / "samples" / "00000.png")
    status, scores = score(pictures)
    assert (status, scores["overall"], scores["partial"]) == (2, 1.0, "5/6")
    assert scores["statuses"] == {"scored": 5, "not looked at": 1}
    assert why in scores["missing"][0]
    assert why in capsys.readouterr().out


def test_a_judge_that_knows_none_of_the_pictures_is_refused(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in pictures.glob("*/samples/*.png"):
        photograph(file)
    assert score(pictures) == (2, None)
    assert "none of the 6 pictures could be judged: not a picture of the icon world" in capsys.readouterr().err


def test_a_folder_that_does_not_say_what_it_is_of_is_told(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "00001" / "metadata.jsonl").unlink()
    (pictures / "notes").mkdir()
    (pictures / "notes" / "metadata.jsonl").write_text("{}")
    status, scores = score(pictures)
    assert (status, scores["by_name"]) == (0, ["00001"])
    assert "of what prompt, only the name of a folder says" in capsys.readouterr().out


def test_metadata_are_not_read_before_their_size_is_known(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (pictures / "00001" / "metadata.jsonl").open("wb") as file:
        file.truncate(8 * 2**30)
    assert score(pictures) == (2, None)
    assert "metadata.jsonl: larger than 1024 KiB" in capsys.readouterr().err


def test_a_model_of_photographs_is_not_drawn_for_the_icon_checker(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.tiny import save_tiny

    command = ["eval", "geneval", "--prompts", f"{pictures.parent}/prompts.jsonl", "--out", f"{tmp_path}/out"]
    assert execute([*command, "--model", str(save_tiny(tmp_path / "model"))]) == 2
    assert "knows pictures of 64 pixels a side, and" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
