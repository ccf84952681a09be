"""Detections on record, written while slow eyes look: judging can be resumed, repeated and checked without them.

`detections.jsonl`, two kinds of lines; a picture is named by the SHA-256 of its size and pixels, boxes are in pixels:

    {"picture": "...", "by": ["mask2former", "..."], "detections": [{"class": "cat", "box": [...], "score": 0.97}, ...]}
    {"picture": "...", "by": ["clip", "..."], "class": "cat", "box": [...], "color": "red"}

Only detections that GenEval's rules can use (score above 0.3) are kept, and only the colours that were asked for.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.errors import RunError
from twgi.evaluation.detectors.eyes import Eyes
from twgi.evaluation.geneval import THRESHOLD, Box, ColorClassifier, Detection, Detector

RECORD = "detections.jsonl"
By = tuple[str, str]


def picture_hash(picture: Image.Image) -> str:
    """Of what can be seen in it, whatever its file format."""
    rgb = picture.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


@dataclass(kw_only=True)
class Record:
    """What is on record, by picture and by whom; new entries go to the end of `path` at once, if there is one."""

    path: Path | None = None
    seen: dict[tuple[str, By], list[Detection]] = field(default_factory=dict)
    colors: dict[tuple[str, By, str, Box], str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Record":
        """A record from its file; a torn last line, as a killed process leaves it, is passed over.

        Raises:
            RunError: the file cannot be read, or a line is none of a record.
        """
        record = cls(path=path)
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path}: no record of detections can be read ({error})") from None
        for number, line in enumerate(lines[:-1], 1):
            try:
                record._enter(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path}:{number}: not a line of a record: {type(error).__name__} {error}") from None
        return record

    def _enter(self, line: Mapping[str, Any]) -> None:
        name, version = line["by"]
        if "detections" in line:
            things = [Detection(name=d["class"], box=_box(d["box"]), score=d["score"]) for d in line["detections"]]
            self.seen[line["picture"], (name, version)] = things
        else:
            self.colors[line["picture"], (name, version), line["class"], _box(line["box"])] = line["color"]

    def add(self, line: Mapping[str, Any]) -> None:
        """Enter a line, and write it. Raises `RunError`."""
        self._enter(line)
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise RunError(f"{self.path}: cannot be written ({error.strerror})") from None


def _box(values: Sequence[float]) -> Box:
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1


@dataclass(kw_only=True)
class RecordedDetector:
    """A detector that looks at each picture once; without `inner` it knows nothing but its record."""

    name: str
    version: str
    record: Record
    inner: Detector | None = None

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """Raises `RunError` for a picture that is not on record, where there is nobody to look at it."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Image.Image) -> list[Detection]:
        key = picture_hash(picture), (self.name, self.version)
        if key not in self.record.seen:
            if self.inner is None:
                raise RunError(f"the record of detections has no picture {key[0][:16]}: it is of other pictures")
            found = [thing for thing in self.inner.detect([picture])[0] if thing.score > THRESHOLD]
            things = [{"class": d.name, "box": list(d.box), "score": d.score} for d in found]
            self.record.add({"picture": key[0], "by": list(key[1]), "detections": things})
        return self.record.seen[key]


@dataclass(kw_only=True)
class RecordedColors:
    """A colour classifier that is asked once about each thing; `detector` finds outlines again that no record has."""

    name: str
    version: str
    record: Record
    inner: ColorClassifier | None = None
    detector: Detector | None = None

    def classify(self, picture: Image.Image, detections: Sequence[Detection]) -> list[str]:
        """Raises `RunError` for a colour that is not on record, where there is nobody to tell it."""
        shown, by = picture_hash(picture), (self.name, self.version)
        asked = [thing for thing in detections if (shown, by, thing.name, thing.box) not in self.record.colors]
        if asked:
            self._ask(picture, shown, asked)
        return [self.record.colors[shown, by, thing.name, thing.box] for thing in detections]

    def _ask(self, picture: Image.Image, shown: str, asked: Sequence[Detection]) -> None:
        if self.inner is None or self.detector is None:
            raise RunError(
                f"the record has no colour of {asked[0].name} in picture {shown[:16]}: it was never asked for"
            )
        outlined = {(thing.name, thing.box): thing for thing in self.detector.detect([picture])[0]}
        things = [outlined[thing.name, thing.box] for thing in asked]
        for thing, color in zip(things, self.inner.classify(picture, things), strict=True):
            line = {"picture": shown, "by": [self.name, self.version], "class": thing.name, "box": list(thing.box)}
            self.record.add({**line, "color": color})


def recorded(eyes: Eyes, folder: Path) -> Eyes:
    """The same eyes, keeping a record in `folder`; those that are fast or are a record themselves stay as they are."""
    if not eyes.slow:
        return eyes
    path = folder / RECORD
    record = Record.read(path) if path.exists() else Record(path=path)
    _mend(path)
    detector = RecordedDetector(
        name=eyes.detector.name, version=eyes.detector.version, record=record, inner=eyes.detector
    )
    colors = RecordedColors(
        name=eyes.colors.name, version=eyes.colors.version, record=record, inner=eyes.colors, detector=eyes.detector
    )
    return replace(eyes, detector=detector, colors=colors)


def _mend(path: Path) -> None:
    """Take away a torn last line, so that the next one begins on its own."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def replay_eyes(path: Path) -> Eyes:
    """Eyes that repeat what is on record; they know only what was asked, and have no self-test of their own.

    Raises:
        RunError: the record cannot be read, or several detectors or classifiers wrote it.
    """
    record = Record.read(path)
    seers = {by for _, by in record.seen}
    namers = {by for _, by, _, _ in record.colors} or {("none", "")}
    if len(seers) != 1 or len(namers) != 1:
        raise RunError(f"{path} is of {len(seers)} detectors and {len(namers)} colour classifiers; give one of each")
    ((name, version),), ((color_name, color_version),) = seers, namers
    return Eyes(
        detector=RecordedDetector(name=name, version=version, record=record),
        colors=RecordedColors(name=color_name, version=color_version, record=record),
        names=None,
    )
