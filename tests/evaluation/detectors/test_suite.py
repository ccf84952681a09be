"""A detector must read known pictures right before it judges any."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from PIL import Image

from twgi.errors import CheckpointError, ConfigError
from twgi.evaluation.detectors.suite import self_test, suite_named
from twgi.evaluation.geneval.rules import TASKS, Detection
from twgi.evaluation.icons import IconDetector, icon_suite


class Blind(IconDetector):
    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        return [[] for _ in pictures]


class Colorblind(IconDetector):
    def classify(self, picture: Image.Image, detections: Sequence[Detection]) -> list[str]:
        return ["red"] * len(detections)


class Shuffled(IconDetector):
    """A label map that is off by one."""

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        from twgi.icons.world import NAMES

        seen = super().detect(pictures)
        return [[replace(thing, name=NAMES[NAMES.index(thing.name) - 1]) for thing in things] for things in seen]


class Doubled(IconDetector):
    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        return [[*things, *things] for things in super().detect(pictures)]


def test_the_icon_suite_pass_with_a_right_and_a_wrong_picture_of_each_task() -> None:
    eyes = icon_suite()
    assert self_test(eyes) == 12
    assert [(known.item.task, known.correct) for known in eyes.known] == [
        (task, correct) for task in TASKS for correct in (True, False)
    ]


@pytest.mark.parametrize("broken", [Blind(), Colorblind(), Shuffled(), Doubled()], ids=lambda d: type(d).__name__)
def test_a_broken_detector_is_found_out(broken: IconDetector) -> None:
    eyes = replace(icon_suite(), detector=broken, colors=broken)
    with pytest.raises(CheckpointError, match="self-test"):
        self_test(eyes)


def test_eyes_of_another_name_are_refused() -> None:
    for name in ("yolo", "replay", "icons:3"):
        with pytest.raises(ConfigError, match="mask2former"):
            suite_named(name)
