"""What judges pictures: a detector with a colour classifier, and pictures of known content it must first read right."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from twgi.errors import CheckpointError
from twgi.evaluation.geneval import (
    COUNTING_THRESHOLD,
    MAX_OBJECTS,
    THRESHOLD,
    ColorClassifier,
    Detection,
    Detector,
    Item,
    judge,
)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A picture whose content is known: whether it is right for this prompt; `where` names it in a complaint."""

    where: str
    picture: Image.Image
    item: Item
    correct: bool


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """A detector and a colour classifier.

    `names` are all classes it can see, None where that is not known; `known` are the pictures of its self-test, none
    for a replay; `check` is one more test of its own. What is `slow` is kept on record while it is judged.
    """

    detector: Detector
    colors: ColorClassifier
    names: frozenset[str] | None
    known: tuple[Known, ...] = ()
    check: Callable[[], None] | None = None
    slow: bool = False

    def describe(self) -> dict[str, Any]:
        """What is written beside every score."""
        return {
            "detector": {"name": self.detector.name, "version": self.detector.version},
            "colors": {"name": self.colors.name, "version": self.colors.version},
            "rules": {"threshold": THRESHOLD, "counting_threshold": COUNTING_THRESHOLD, "max_objects": MAX_OBJECTS},
            "self_test": len(self.known),
        }


def self_test(eyes: Eyes) -> int:
    """Look at all pictures of known content; how many there were.

    Raises:
        CheckpointError: it reads one of them wrong, so that no score of it means anything.
    """
    pictures = {id(known.picture): known.picture for known in eyes.known}
    seen = dict(zip(pictures, eyes.detector.detect(list(pictures.values())), strict=True))
    wrong = [text for known in eyes.known for text in _misread(eyes, known, seen[id(known.picture)])]
    if wrong:
        raise CheckpointError(
            f"the detector {eyes.detector.name} fails its self-test, so nothing was scored: {len(wrong)} of "
            f"{len(eyes.known)} pictures of known content are read wrong, as {wrong[0]}; check its weights and settings"
        )
    if eyes.check is not None:
        eyes.check()
    return len(eyes.known)


def _misread(eyes: Eyes, known: Known, seen: Iterable[Detection]) -> Iterator[str]:
    verdict = judge(known.item, known.picture, seen, eyes.colors)
    if verdict.correct is not known.correct:
        yield f"{known.where}: {'; '.join(verdict.reasons) or f'taken for {known.item.prompt!r}'}"
