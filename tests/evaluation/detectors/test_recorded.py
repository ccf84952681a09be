"""A record of detections: what was seen once is not looked at again, and judges as if it had been."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twgi.errors import RunError
from twgi.evaluation.detectors.recorded import RECORD, picture_hash, recorded, replayed
from twgi.evaluation.detectors.suite import DetectorSuite
from twgi.evaluation.geneval.rules import Detection, GenEvalItem, judge
from twgi.evaluation.icons import IconDetector, icon_suite
from twgi.icons import world

ITEM = GenEvalItem.from_json(
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


def suite(slow: Slow) -> DetectorSuite:
    return replace(icon_suite(), detector=slow, colors=slow, slow=True)


def drawn(color: str, col: int = 1) -> Image.Image:
    return world.render(world.Scene((world.Placed("dog", color, col, 1),)))


def right(by: DetectorSuite, picture: Image.Image) -> bool:
    return judge(ITEM, picture, by.detector.detect([picture])[0], by.colors).correct


def judged(slow: Slow, folder: Path, *pictures: Image.Image) -> list[bool]:
    with recorded(suite(slow), folder) as by:
        return [right(by, picture) for picture in pictures]


def test_a_recording_judges_as_the_detector_did_and_looks_once(tmp_path: Path) -> None:
    slow = Slow()
    pictures = [drawn("red"), drawn("blue"), drawn("red", 3)]
    first = judged(slow, tmp_path, *pictures)
    looks = slow.looks
    assert judged(slow, tmp_path, *pictures) == first == [True, False, True]
    assert (slow.looks, slow.asked) == (looks, 3)
    assert [right(replayed(tmp_path / RECORD), picture) for picture in pictures] == first
    assert replayed(tmp_path / RECORD).detector.name == "icons"


def test_a_recording_of_the_first_version_is_read(tmp_path: Path) -> None:
    """Two lines as they were written before there was a book of answers."""
    (thing,) = IconDetector().detect([drawn("red")])[0]
    by = {"picture": picture_hash(drawn("red")), "by": ["icons", "1"]}
    seen = {"class": "dog", "box": list(thing.box), "score": 1.0}
    lines = (by | {"detections": [seen]}, by | {"class": "dog", "box": list(thing.box), "color": "red"})
    (tmp_path / RECORD).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert right(replayed(tmp_path / RECORD), drawn("red"))
    slow = Slow()
    assert judged(slow, tmp_path, drawn("red")) == [True]
    assert (slow.looks, slow.asked) == (0, 0)


def test_weak_detections_are_not_kept_and_a_new_folder_is_made(tmp_path: Path) -> None:
    with recorded(suite(Slow()), tmp_path / "new" / "folder") as by:
        assert [thing.name for thing in by.detector.detect([drawn("red")])[0]] == ["dog"]


def test_another_version_looks_for_itself(tmp_path: Path) -> None:
    slow = Slow()
    judged(slow, tmp_path, drawn("red"))
    slow.version = "2"
    looks = slow.looks
    judged(slow, tmp_path, drawn("red"))
    assert slow.looks > looks
    with pytest.raises(RunError, match="2 detectors"):
        replayed(tmp_path / RECORD)


def test_a_replay_of_other_pictures_is_refused(tmp_path: Path) -> None:
    judged(Slow(), tmp_path, drawn("red"))
    with pytest.raises(RunError, match="no picture"):
        right(replayed(tmp_path / RECORD), drawn("green"))


def test_a_colour_that_was_never_asked_is_refused(tmp_path: Path) -> None:
    with recorded(suite(Slow()), tmp_path) as by:
        by.detector.detect([drawn("red")])
        right(by, drawn("blue"))
    with pytest.raises(RunError, match="never asked"):
        right(replayed(tmp_path / RECORD), drawn("red"))


def test_a_torn_last_line_is_cut_off_and_any_other_is_named(tmp_path: Path) -> None:
    judged(Slow(), tmp_path, drawn("red"))
    whole = (tmp_path / RECORD).read_text()
    (tmp_path / RECORD).write_text(whole + whole[:30])
    assert right(replayed(tmp_path / RECORD), drawn("red"))
    assert judged(Slow(), tmp_path, drawn("red")) == [True]
    assert (tmp_path / RECORD).read_text() == whole
    (tmp_path / RECORD).write_text('{"picture": 1}\n' + whole)
    with pytest.raises(RunError, match=r"detections.jsonl:1"):
        replayed(tmp_path / RECORD)
    with pytest.raises(RunError, match="no recording"):
        replayed(tmp_path / "none.jsonl")


def test_a_picture_is_known_by_its_pixels() -> None:
    assert picture_hash(drawn("red")) == picture_hash(drawn("red").convert("RGBA"))
    assert picture_hash(drawn("red")) != picture_hash(drawn("red", 3))
    assert picture_hash(Image.new("RGB", (2, 3))) != picture_hash(Image.new("RGB", (3, 2)))
