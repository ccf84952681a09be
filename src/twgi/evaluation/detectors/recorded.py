"""Recorded detections, written while a slow detector looks: judging can be resumed, repeated and checked without it.

`detections.jsonl`, two kinds of lines; a picture is named by the SHA-256 of its size and pixels, boxes are in pixels:

    {"picture": "...", "by": ["mask2former", "..."], "detections": [{"class": "cat", "box": [...], "score": 0.97}, ...]}
    {"picture": "...", "by": ["clip", "..."], "class": "cat", "box": [...], "color": "red"}

Only detections that GenEval's rules can use (score above 0.3) are kept, and only the colours that were asked for.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.answers import AnswerBook
from twgi.errors import DataError, RunError
from twgi.evaluation.detectors.suite import DetectorSuite
from twgi.evaluation.geneval.rules import THRESHOLD, ColorClassifier, Detection, Detector
from twgi.files import Fault, read_lines

RECORD = "detections.jsonl"

Book = AnswerBook | dict[str, Mapping[str, Any]]
"""New lines go into an `AnswerBook`; the lines of a recording are only read."""


def picture_hash(picture: Image.Image) -> str:
    """Of what can be seen in it, whatever its file format."""
    rgb = picture.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


def key_of(line: Mapping[str, Any]) -> str | None:
    """What the answer in a line was asked with; None for a line of something else."""
    try:
        thing = None if "detections" in line else [line["class"], list(map(float, line["box"]))]
        return json.dumps([line["picture"], list(line["by"]), thing])
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(kw_only=True)
class RecordedDetector:
    """A detector that looks at each picture once; without `inner` it knows nothing but its recording."""

    name: str
    version: str
    book: Book
    inner: Detector | None = None

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """Raises `RunError` for a picture that is not recorded, where there is nobody to look at it."""
        seen = []
        for picture in pictures:
            asked: dict[str, Any] = {"picture": picture_hash(picture), "by": [self.name, self.version]}
            line = self.book.get(key_of(asked | {"detections": []}) or "")
            if line is None:
                if self.inner is None:
                    raise RunError(f"the recording has no picture {asked['picture'][:16]}: it is of other pictures")
                found = [thing for thing in self.inner.detect([picture])[0] if thing.score > THRESHOLD]
                things = [{"class": d.name, "box": list(d.box), "score": d.score} for d in found]
                _add(self.book, line := asked | {"detections": things})
            seen.append([Detection(name=d["class"], box=tuple(d["box"]), score=d["score"]) for d in line["detections"]])
        return seen


@dataclass(kw_only=True)
class RecordedColors:
    """A colour classifier that is asked once about each thing; `detector` finds outlines again, which are not kept."""

    name: str
    version: str
    book: Book
    inner: ColorClassifier | None = None
    detector: Detector | None = None

    def classify(self, picture: Image.Image, detections: Sequence[Detection]) -> list[str]:
        """Raises `RunError` for a colour that is not recorded, where there is nobody to tell it."""
        by = {"picture": picture_hash(picture), "by": [self.name, self.version]}
        lines = [{**by, "class": thing.name, "box": list(thing.box)} for thing in detections]
        keys = [key_of(line) or "" for line in lines]
        asked = [place for place, key in enumerate(keys) if self.book.get(key) is None]
        if asked:
            things = [detections[place] for place in asked]
            if self.inner is None or self.detector is None:
                raise RunError(
                    f"the recording has no colour of {things[0].name} in this picture: it was never asked for"
                )
            outlined = {(thing.name, thing.box): thing for thing in self.detector.detect([picture])[0]}
            colors = self.inner.classify(picture, [outlined[thing.name, thing.box] for thing in things])
            for place, color in zip(asked, colors, strict=True):
                _add(self.book, {**lines[place], "color": color})
        return [line["color"] for key in keys if (line := self.book.get(key)) is not None]


def _add(book: Book, line: Mapping[str, Any]) -> None:
    assert isinstance(book, AnswerBook)
    book.add(line)


@contextmanager
def recorded(suite: DetectorSuite, folder: Path) -> Iterator[DetectorSuite]:
    """The same suite, recording in `folder`; one that is fast, or a recording itself, stays as it is."""
    if not suite.slow:
        yield suite
        return
    detector, colors = suite.detector, suite.colors
    with AnswerBook(folder / RECORD, key_of=key_of) as book:
        seen = RecordedDetector(name=detector.name, version=detector.version, book=book, inner=detector)
        named = RecordedColors(name=colors.name, version=colors.version, book=book, inner=colors, detector=detector)
        yield replace(suite, detector=seen, colors=named)


def replayed(path: Path) -> DetectorSuite:
    """A suite that knows only what is recorded, by one detector and one colour classifier. Raises `RunError`."""
    try:
        lines = list(read_lines(path))
        torn = not path.read_bytes().endswith(b"\n")  # as a killed process leaves it
    except DataError as error:
        raise RunError(f"no recording of detections: {error}") from None
    book: dict[str, Mapping[str, Any]] = {}
    for line in lines[:-1] if torn else lines:
        if isinstance(line, Fault) or (key := key_of(line.value)) is None:
            raise RunError(f"{line.where}: not a line of a recording")
        book[key] = line.value
    seers = {tuple(line["by"]) for line in book.values() if "detections" in line}
    namers = {tuple(line["by"]) for line in book.values() if "detections" not in line} or {("none", "")}
    if len(seers) != 1 or len(namers) != 1:
        raise RunError(f"{path} is of {len(seers)} detectors and {len(namers)} colour classifiers; give one of each")
    ((name, version),), ((color_name, color_version),) = seers, namers
    seer = RecordedDetector(name=name, version=version, book=book)
    namer = RecordedColors(name=color_name, version=color_version, book=book)
    return DetectorSuite(detector=seer, colors=namer, names=None)
