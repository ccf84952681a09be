"""Pictures in folders as people have them: grids, single files, folders, names with dots, and what is missing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twgi.errors import ConfigError, ImageError, RunError
from twgi.evaluation.dpg.benchmark import grid
from twgi.evaluation.pictures import PictureReader, PictureRef, PictureSet, read_named

COLORS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
IDS = {"a": 0, "a.b": 0, "0": 0, "c_1": 0}


def plain(color: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new("RGB", size, color)


def put(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        plain(COLORS[number % 4]).save(root / name)
    return root


def colors(folder: PictureSet, item: str) -> list[Any]:
    keys = sorted(key for key in folder.generations if key[0] == item)
    return [opened(folder.generations[key].pictures[-1]).getpixel((0, 0)) for key in keys]


def opened(ref: PictureRef) -> Image.Image:
    return PictureReader().open(ref)[1]


def missing(folder: PictureSet, *ids: str) -> list[tuple[str, int]]:
    return [(name, n) for name in ids for n in range(folder.samples) if (name, n) not in folder.generations]


@pytest.mark.parametrize("size", [(6, 4), (5, 5), (64, 64)])
def test_a_grid_is_four_pictures_of_half_its_size_in_the_published_order(tmp_path: Path, size: tuple[int, int]) -> None:
    grid([plain(color, size) for color in COLORS]).save(tmp_path / "a.b.png")
    folder = read_named(tmp_path, IDS, crops=4)
    pictures = [opened(folder.generations["a.b", n].pictures[0]) for n in range(4)]
    assert [picture.size for picture in pictures] == [size] * 4
    assert [np.unique(np.asarray(p).reshape(-1, 3), axis=0).tolist() for p in pictures] == [[list(c)] for c in COLORS]


def test_a_name_ends_at_its_last_dot(tmp_path: Path) -> None:
    folder = read_named(put(tmp_path, "a.b.png", "a.jpg"), IDS, crops=1)
    assert set(folder.generations) == {("a.b", 0), ("a", 0)}
    assert folder.samples == 1


@pytest.mark.parametrize(
    "names",
    [
        ["0_0.png", "0_1.png", "0_2.png", "0_3.png"],
        ["0-1.png", "0-2.png", "0-3.png", "0-4.png"],
        ["0/0.png", "0/1.png", "0/2.png", "0/3.png"],
        ["0/0001.webp", "0/0002.png", "0/0003.png", "0/0004.png"],
    ],
)
def test_samples_may_have_their_own_files_counted_from_0_or_1(tmp_path: Path, names: list[str]) -> None:
    folder = read_named(put(tmp_path, *names), IDS)
    assert sorted(folder.generations) == [("0", n) for n in range(4)]
    assert np.abs(np.subtract(colors(folder, "0"), COLORS)).max() < 6  # WebP is not exact


def test_an_id_that_looks_numbered_is_itself(tmp_path: Path) -> None:
    assert set(read_named(put(tmp_path, "c_1.png"), IDS, crops=1).generations) == {("c_1", 0)}


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    folder = read_named(put(tmp_path, "0_0.png", "0_1.png", "0_3.png", "a_0.png"), IDS)
    assert missing(folder, "0", "a", "a.b") == [
        ("0", 2), ("a", 1), ("a", 2), ("a", 3), ("a.b", 0), ("a.b", 1), ("a.b", 2), ("a.b", 3),
    ]  # fmt: skip


def test_more_pictures_than_wanted_are_not_dropped_in_silence(tmp_path: Path) -> None:
    put(tmp_path, "0_0.png", "0_1.png", "a_0.png")
    with pytest.raises(ConfigError, match="picture 2 of 0, not 1: say --samples 2"):
        read_named(tmp_path, IDS, samples=1)
    assert missing(read_named(tmp_path, IDS, samples=2), "0", "a") == [("a", 1)]


def test_files_of_no_prompt_are_reported_and_other_files_are_not_pictures(tmp_path: Path) -> None:
    put(tmp_path, "0.png", "who.png", "who/0.png")
    (tmp_path / "dpg-bench_results.txt").write_text("")
    (tmp_path / ".hidden.png").write_text("")
    assert read_named(tmp_path, IDS, crops=1).unknown == ("who/0.png", "who.png")


def test_nobody_guesses_whether_a_file_is_one_picture_or_four(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Say --crops 1 or --crops 4"):
        read_named(put(tmp_path, "0.png"), IDS)


@pytest.mark.parametrize("names", [["0.png", "0.jpg"], ["0.png", "0_0.png"], ["0/0.png", "0_0.png"]])
def test_two_files_for_one_picture_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(RunError, match="two files for picture 0 of 0"):
        read_named(put(tmp_path, *names), IDS, crops=1)


def test_an_empty_folder_and_one_of_strangers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        read_named(tmp_path / "nowhere", IDS)
    with pytest.raises(RunError, match="2 picture files and none of a known prompt"):
        read_named(put(tmp_path, "x.png", "y.png"), IDS, crops=1)


def test_a_file_too_small_for_four_pictures_and_a_broken_one_say_so(tmp_path: Path) -> None:
    plain(COLORS[0], (1, 8)).save(tmp_path / "0.png")
    with pytest.raises(ImageError, match="cannot hold four pictures"):
        opened(PictureRef(file=tmp_path / "0.png", crop=0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(ImageError, match=r"a\.png: not a picture"):
        opened(PictureRef(file=tmp_path / "a.png"))
