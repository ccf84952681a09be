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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.answers import AnswerBook
from twgi.errors import DataError, RunError
from twgi.evaluation.detectors.suite import DetectorSuite
from twgi.evaluation.geneval.rules import THRESHOLD, ColorClassifier, Detection, Detector
from twgi.files import Fault, Line, read_lines

RECORD = "detections.jsonl"


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


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Lines by `key_of`: those of a book, to which new ones are added, or those of a file that is only read."""

    book: AnswerBook | None = None
    lines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def get(self, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The line that answers this one."""
        key = key_of(asked)
        assert key is not None
        return self.lines.get(key) if self.book is None else self.book.get(key)

    def add(self, line: Mapping[str, Any]) -> None:
        """One more. Raises `RunError`."""
        assert self.book is not None
        self.book.add(line)


@dataclass(kw_only=True)
class RecordedDetector:
    """A detector that looks at each picture once; without `inner` it knows nothing but its recording."""

    name: str
    version: str
    recording: Recording
    inner: Detector | None = None

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """Raises `RunError` for a picture that is not recorded, where there is nobody to look at it."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Image.Image) -> list[Detection]:
        asked: dict[str, Any] = {"picture": picture_hash(picture), "by": [self.name, self.version], "detections": []}
        line = self.recording.get(asked)
        if line is None:
            if self.inner is None:
                raise RunError(f"the recording has no picture {asked['picture'][:16]}: it is of other pictures")
            found = [thing for thing in self.inner.detect([picture])[0] if thing.score > THRESHOLD]
            things = [{"class": d.name, "box": list(d.box), "score": d.score} for d in found]
            self.recording.add(line := asked | {"detections": things})
        return [Detection(name=d["class"], box=tuple(d["box"]), score=d["score"]) for d in line["detections"]]


@dataclass(kw_only=True)
class RecordedColors:
    """A colour classifier that is asked once about each thing; `detector` finds outlines again, which are not kept."""

    name: str
    version: str
    recording: Recording
    inner: ColorClassifier | None = None
    detector: Detector | None = None

    def classify(self, picture: Image.Image, detections: Sequence[Detection]) -> list[str]:
        """Raises `RunError` for a colour that is not recorded, where there is nobody to tell it."""
        shown = picture_hash(picture)
        asked = [self._line(shown, thing) for thing in detections]
        if unknown := [t for t, line in zip(detections, asked, strict=True) if self.recording.get(line) is None]:
            self._ask(picture, shown, unknown)
        return [line["color"] for each in asked if (line := self.recording.get(each)) is not None]

    def _line(self, shown: str, thing: Detection) -> dict[str, Any]:
        return {"picture": shown, "by": [self.name, self.version], "class": thing.name, "box": list(thing.box)}

    def _ask(self, picture: Image.Image, shown: str, asked: Sequence[Detection]) -> None:
        if self.inner is None or self.detector is None:
            raise RunError(
                f"the recording has no colour of {asked[0].name} in picture {shown[:16]}: it was never asked"
            )
        outlined = {(thing.name, thing.box): thing for thing in self.detector.detect([picture])[0]}
        things = [outlined[thing.name, thing.box] for thing in asked]
        for thing, color in zip(things, self.inner.classify(picture, things), strict=True):
            self.recording.add({**self._line(shown, thing), "color": color})


@contextmanager
def recorded(suite: DetectorSuite, folder: Path) -> Iterator[DetectorSuite]:
    """The same suite, recording in `folder`; one that is fast, or a recording itself, stays as it is.

    Raises:
        RunError: another process records there, or it cannot be written.
    """
    if not suite.slow:
        yield suite
        return
    with AnswerBook(folder / RECORD, key_of=key_of) as book:
        yield _recorded(suite, Recording(book=book))


def _recorded(suite: DetectorSuite, recording: Recording) -> DetectorSuite:
    detector, colors = suite.detector, suite.colors
    seen = RecordedDetector(name=detector.name, version=detector.version, recording=recording, inner=detector)
    named = RecordedColors(
        name=colors.name, version=colors.version, recording=recording, inner=colors, detector=detector
    )
    return replace(suite, detector=seen, colors=named)


def replayed(path: Path) -> DetectorSuite:
    """A suite that repeats what is recorded; it knows only what was asked, and has no self-test of its own.

    Raises:
        RunError: the recording cannot be read, or several detectors or classifiers wrote it.
    """
    lines: dict[str, Mapping[str, Any]] = {}
    seers, namers = set[tuple[str, ...]](), set[tuple[str, ...]]()
    try:
        for line in _whole_lines(path):
            if (key := key_of(line.value)) is None:
                raise RunError(f"{line.where}: not a line of a recording")
            lines[key] = line.value
            (seers if "detections" in line.value else namers).add(tuple(line.value["by"]))
    except DataError as error:
        raise RunError(f"no recording of detections can be read: {error}") from None
    namers = namers or {("none", "")}
    if len(seers) != 1 or len(namers) != 1:
        raise RunError(f"{path} is of {len(seers)} detectors and {len(namers)} colour classifiers; give one of each")
    ((name, version),), ((color_name, color_version),) = seers, namers
    recording = Recording(lines=lines)
    return DetectorSuite(
        detector=RecordedDetector(name=name, version=version, recording=recording),
        colors=RecordedColors(name=color_name, version=color_version, recording=recording),
        names=None,
    )


def _whole_lines(path: Path) -> Iterator[Line]:
    """The lines of a recording; a torn last one, as a killed process leaves it, is passed over."""
    torn: Fault | None = None
    for line in read_lines(path):
        if torn is not None:
            raise DataError(f"{torn.where}: {torn.reason}")
        if isinstance(line, Fault):
            torn = line
        else:
            yield line
