"""A record of detections: what was seen once is not looked at again, and judges as if it had been."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twgi.errors import RunError
from twgi.evaluation.detectors.eyes import Eyes
from twgi.evaluation.detectors.icons import IconDetector, icon_eyes
from twgi.evaluation.detectors.replay import RECORD, picture_hash, recorded, replay_eyes
from twgi.evaluation.geneval import Detection, Item, judge
from twgi.icons import world

ITEM = Item.from_json(
    {"tag": "colors", "prompt": "a red dog", "include": [{"class": "dog", "count": 1, "color": "red"}]}, 0
)


class Slow(IconDetector):
    """Counts its looks; a thing has an outline only just after it was seen, and colour needs one."""

    def __init__(self) -> None:
        self.looks, self.asked = 0, 0

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        self.looks += len(pictures)
        mask = np.ones((64, 64), bool)
        weak = Detection(name="cat", box=(0, 0, 4, 4), score=0.3)
        return [[replace(thing, mask=mask) for thing in things] + [weak] for things in super().detect(pictures)]

    def classify(self, picture: Image.Image, detections: Sequence[Detection]) -> list[str]:
        self.asked += len(detections)
        assert all(thing.mask is not None for thing in detections)
        return [checked.color or "" for checked in detections]


def eyes(slow: Slow) -> Eyes:
    return replace(icon_eyes(), detector=slow, colors=slow, slow=True)


def drawn(color: str, col: int = 1) -> Image.Image:
    return world.render(world.Scene((world.Placed("dog", color, col, 1),)))


def right(by: Eyes, picture: Image.Image) -> bool:
    return judge(ITEM, picture, by.detector.detect([picture])[0], by.colors).correct


def test_a_record_judges_as_the_eyes_did_and_looks_once(tmp_path: Path) -> None:
    slow = Slow()
    pictures = [drawn("red"), drawn("blue"), drawn("red", 3)]
    first = [right(recorded(eyes(slow), tmp_path), picture) for picture in pictures]
    looks = slow.looks
    assert [right(recorded(eyes(slow), tmp_path), picture) for picture in pictures] == first == [True, False, True]
    assert (slow.looks, slow.asked) == (looks, 3)
    assert [right(replay_eyes(tmp_path / RECORD), picture) for picture in pictures] == first
    assert replay_eyes(tmp_path / RECORD).detector.name == "icons"


def test_weak_detections_are_not_kept_and_a_new_folder_is_made(tmp_path: Path) -> None:
    seen = recorded(eyes(Slow()), tmp_path / "new" / "folder").detector.detect([drawn("red")])[0]
    assert [thing.name for thing in seen] == ["dog"]


def test_another_version_looks_for_itself(tmp_path: Path) -> None:
    slow = Slow()
    right(recorded(eyes(slow), tmp_path), drawn("red"))
    slow.version = "2"
    looks = slow.looks
    right(recorded(eyes(slow), tmp_path), drawn("red"))
    assert slow.looks > looks
    with pytest.raises(RunError, match="2 detectors"):
        replay_eyes(tmp_path / RECORD)


def test_a_replay_of_other_pictures_is_refused(tmp_path: Path) -> None:
    right(recorded(eyes(Slow()), tmp_path), drawn("red"))
    with pytest.raises(RunError, match="no picture"):
        right(replay_eyes(tmp_path / RECORD), drawn("green"))


def test_a_colour_that_was_never_asked_is_refused(tmp_path: Path) -> None:
    by = recorded(eyes(Slow()), tmp_path)
    by.detector.detect([drawn("red")])
    right(by, drawn("blue"))
    with pytest.raises(RunError, match="never asked"):
        right(replay_eyes(tmp_path / RECORD), drawn("red"))


def test_a_torn_last_line_is_cut_off_and_any_other_is_named(tmp_path: Path) -> None:
    right(recorded(eyes(Slow()), tmp_path), drawn("red"))
    whole = (tmp_path / RECORD).read_text()
    (tmp_path / RECORD).write_text(whole + whole[:30])
    assert right(recorded(eyes(Slow()), tmp_path), drawn("red"))
    assert (tmp_path / RECORD).read_text() == whole
    (tmp_path / RECORD).write_text("{}\n" + whole)
    with pytest.raises(RunError, match=r"detections.jsonl:1"):
        replay_eyes(tmp_path / RECORD)
    with pytest.raises(RunError, match="no record"):
        replay_eyes(tmp_path / "none.jsonl")


def test_a_picture_is_known_by_its_pixels() -> None:
    assert picture_hash(drawn("red")) == picture_hash(drawn("red").convert("RGBA"))
    assert picture_hash(drawn("red")) != picture_hash(drawn("red", 3))
    assert picture_hash(Image.new("RGB", (2, 3))) != picture_hash(Image.new("RGB", (3, 2)))
