"""Segments of text and images, and the trace: the whole thought of one prompt, as a value that leaves the program.

A trace is one line of `traces.jsonl`, version 2 (version 1 is read, too); its pictures are PNG files beside it. The
reader is strict: an unknown version, key or tag is a `TraceError`, so that no later program silently drops what it does
not know.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from twgi.errors import DataError, TraceError
from twgi.files import Fault, checked, inside, parse_object, read_bytes, read_lines, short
from twgi.files import to_line as json_line

VERSION = 2
TRACES, RUN, PAGE, IMAGES = "traces.jsonl", "run.json", "index.html", "images"
MAX_PICTURE = 2**24  # bytes, and pixels, of a stored picture that is read

Role = Literal["input", "subgoal", "draft", "final"]
FinishReason = Literal["stop", "length", "cancelled"]
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"
_RELATIVE_PATH = re.compile(rf"{_NAME}(/{_NAME})*")


@dataclass(frozen=True, kw_only=True)
class TextSegment:
    """A run of text. `tokens` are the ids the model read, which need not be how the tokenizer would write `text`."""

    text: str
    tokens: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text, "tokens": list(self.tokens)}


@dataclass(frozen=True, kw_only=True)
class ImageSegment:
    """One image: boi, image tokens, eoi in `tokens`; its file, relative to the run folder, in `image`.

    `image` is None where it was not written, or where the image is not whole and so cannot be drawn. `picture` is
    there in memory only. An input picture belongs to the prompt and has no tokens of its own here. `kind` says what a
    drawn picture was drawn as (see `twgi.thinking.modes.KINDS`); None where nobody said.
    """

    tokens: tuple[int, ...] = ()
    image: str | None = None
    role: Role = "draft"
    kind: str | None = None
    picture: Image.Image | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_choice("an image's role", self.role, Role)
        if self.role == "input" and self.tokens:
            raise TraceError("an input picture stands in the prompt: its segment has no tokens")
        if self.image is not None and not _RELATIVE_PATH.fullmatch(self.image):
            raise TraceError(f"the path of an image must be relative and plain, got {short(self.image)}")

    def file(self, folder: Path) -> Path | None:
        """Its file in a run folder, where there is one that does not lead out of it."""
        try:
            path = inside(folder, self.image) if self.image is not None else None
        except DataError:
            return None
        return path if path and os.path.isfile(path) else None

    def to_json(self) -> dict[str, Any]:
        said = {"image": self.image, "role": self.role, "kind": self.kind}
        return {"type": "image", **said, "tokens": list(self.tokens)}


Segment = TextSegment | ImageSegment


@dataclass(frozen=True, kw_only=True)
class Anomaly:
    """Something in a token sequence that its grammar does not allow; `position` counts ids from its start."""

    position: int
    kind: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {"position": self.position, "kind": self.kind, "detail": self.detail}


@dataclass(frozen=True, kw_only=True)
class ModelId:
    """Which weights thought this."""

    name: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The whole thought of one prompt.

    `id` is its name in a run: prompt number and sample, as in `00012-0`; empty outside of one. `settings` and `timing`
    are free JSON objects. `tokens` of all segments joined are exactly what the model read after the prompt's separator;
    `end_token` is the id it wrote last and did not read (eos), None where the thought ended in another way.
    """

    id: str = ""
    prompt: str
    mode: str
    seed: int
    sample: int = 0
    model: ModelId
    settings: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: FinishReason
    segments: tuple[Segment, ...]
    end_token: int | None = None
    anomalies: tuple[Anomaly, ...] = ()
    timing: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_choice("finish_reason", self.finish_reason, FinishReason)
        if self.id and not re.fullmatch(_NAME, self.id):
            raise TraceError(f"the id of a trace must be a plain name, got {short(self.id)}")

    @property
    def tokens(self) -> tuple[int, ...]:
        """All ids after the prompt's separator."""
        return tuple(token for segment in self.segments for token in segment.tokens)

    @property
    def text(self) -> str:
        """What the model wrote: its runs of text, one a line."""
        texts = (segment.text.strip() for segment in self.segments if isinstance(segment, TextSegment))
        return "\n".join(text for text in texts if text)

    @property
    def images(self) -> tuple[ImageSegment, ...]:
        """The images the model drew, whole or not, in order; input pictures are not among them."""
        return tuple(s for s in self.segments if isinstance(s, ImageSegment) and s.role != "input")

    @property
    def final(self) -> Image.Image | None:
        """The picture of the last image; None where there is none, or it was not drawn."""
        return self.images[-1].picture if self.images else None

    def filed(self, id: str) -> "Trace":
        """The same trace under this id, each picture in it with the file name `images/{id}-{k}.png`, k from 0."""
        number = count()

        def filed(segment: ImageSegment) -> ImageSegment:
            drawn = segment.picture is not None
            return replace(segment, image=f"{IMAGES}/{id}-{next(number)}.png") if drawn else segment

        return replace(self._with_images(filed), id=id)

    def files(self) -> dict[str, bytes]:
        """Path in the run folder -> PNG, for each picture that has a file name (see `filed`)."""
        images = [segment for segment in self.segments if isinstance(segment, ImageSegment)]
        return {image.image: png(image.picture) for image in images if image.image and image.picture}

    def with_pictures(self, folder: str | Path) -> "Trace":
        """The same trace with the pictures of its files, read from a run folder; those not there stay None."""

        def read(segment: ImageSegment) -> ImageSegment:
            if segment.picture is not None or (file := segment.file(Path(folder))) is None:
                return segment
            try:
                with Image.open(BytesIO(read_bytes(file, most=MAX_PICTURE)), formats=("PNG",)) as picture:
                    whole = picture.width * picture.height <= MAX_PICTURE
                    return replace(segment, picture=picture.convert("RGB")) if whole else segment
            except (DataError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                return segment

        return self._with_images(read)

    def _with_images(self, changed: Callable[[ImageSegment], ImageSegment]) -> "Trace":
        return replace(self, segments=tuple(s if isinstance(s, TextSegment) else changed(s) for s in self.segments))

    def to_json(self) -> dict[str, Any]:
        """The JSON object of version 2 (`docs/design.md`)."""
        segments, anomalies = ([part.to_json() for part in parts] for parts in (self.segments, self.anomalies))
        plain = {"settings": dict(self.settings), "segments": segments, "anomalies": anomalies}
        return {"version": VERSION, **vars(self), **plain, "model": self.model.to_json(), "timing": dict(self.timing)}

    @classmethod
    def from_json(cls, value: object) -> "Trace":
        """Read `to_json` back. Raises `TraceError` for anything unknown, missing, or of another type."""
        try:
            keys = checked(_of_today(value), "a trace", _TRACE_FIELDS)
            of_anomaly = {"position": int, "kind": str, "detail": str}
            own = {key: said for key, said in keys.items() if key != "version"}
            own["model"] = ModelId(**checked(keys["model"], "model", {"name": str, "sha256": str}))
            own["segments"] = tuple(_segment(item) for item in keys["segments"])
            own["anomalies"] = tuple(Anomaly(**checked(item, "an anomaly", of_anomaly)) for item in keys["anomalies"])
        except DataError as error:
            raise TraceError(str(error)) from None
        return cls(**own)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a run folder (run.json, traces.jsonl, images/, index.html) and return the path of its page.

        Raises `RunError` where it cannot be written, or holds a run already and `overwrite` is not set.
        """
        from twgi.runs.folder import save_trace

        return save_trace(self, Path(folder), overwrite=overwrite)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A prompt that could not be thought about, and why, in one line."""

    prompt: str
    mode: str
    error: str
    sample: int = 0


def to_line(trace: Trace) -> bytes:
    """One line of `traces.jsonl`, with its line end."""
    return json_line(trace.to_json())


def from_line(line: str | bytes) -> Trace:
    """Read `to_line` back; raises `TraceError`."""
    try:
        return Trace.from_json(parse_object(line))
    except DataError as error:
        raise TraceError(str(error)) from None


def read_traces(path: str | Path) -> Iterator[Trace]:
    """Traces of a `traces.jsonl`, or of the run folder it is in, without their pictures (see `Trace.with_pictures`).

    Raises `TraceError` that names the file and the line.
    """
    file = Path(path) / TRACES if Path(path).is_dir() else Path(path)
    try:
        for line in read_lines(file):
            try:
                if isinstance(line, Fault):
                    raise TraceError(line.reason)
                yield Trace.from_json(line.value)
            except TraceError as error:
                raise TraceError(f"{line.where}: {error}") from error
    except DataError as error:
        raise TraceError(str(error)) from None


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


_TRACE_FIELDS: Mapping[str, Any] = {
    **dict.fromkeys(("version", "seed", "sample"), int),
    **dict.fromkeys(("id", "prompt", "mode", "finish_reason"), str),
    **dict.fromkeys(("model", "settings", "timing"), dict),
    **dict.fromkeys(("segments", "anomalies"), list),
    "end_token": int | None,
}
_SEGMENT_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "text": {"type": str, "text": str, "tokens": list},
    "image": {"type": str, "image": str | None, "role": str, "kind": str | None, "tokens": list},
}


def _of_today(value: object) -> object:
    """A trace of version 1 as version 2 has it: its id is in the names of its pictures, their kinds in its settings."""
    version = value.get("version") if isinstance(value, dict) else VERSION
    if not isinstance(value, dict) or version is True or version == VERSION:
        return value
    if version != 1:
        raise TraceError(f"trace of version {short(version)}; this program reads versions 1 and {VERSION}")
    if added := sorted({"id", "end_token"} & value.keys()):
        raise TraceError(f"a trace of version 1 has the unknown key {added[0]!r}")
    today = {**value, "version": VERSION, "id": "", "end_token": None}
    if not isinstance(value.get("segments"), list):
        return today
    try:
        kinds = iter([str(picture["kind"]) for picture in value["settings"]["guidance"]["pictures"]])
    except (KeyError, TypeError, ValueError):
        kinds = iter(())
    today["segments"] = []
    for part in value["segments"]:
        if isinstance(part, dict) and part.get("type") == "image" and "kind" not in part:
            part = {**part, "kind": None if part.get("role") == "input" else next(kinds, None)}
        today["segments"].append(part)
        if isinstance(part, dict) and part.get("image") and not today["id"]:
            stem = re.fullmatch(rf"{IMAGES}/(.+)-\d+\.png", str(part["image"]))
            today["id"] = stem[1] if stem else ""
    return today


def _segment(value: object) -> Segment:
    tag = value.get("type") if isinstance(value, dict) else None
    if not isinstance(tag, str) or tag not in _SEGMENT_FIELDS:
        raise TraceError(f"a segment must have the type {' or '.join(_SEGMENT_FIELDS)}, got {short(tag)}")
    keys = checked(value, f"a segment of type {tag}", _SEGMENT_FIELDS[tag])
    tokens = tuple(keys["tokens"])
    if not all(type(token) is int for token in tokens):
        raise TraceError("the tokens of a segment must be whole numbers")
    if tag == "text":
        return TextSegment(text=keys["text"], tokens=tokens)
    return ImageSegment(tokens=tokens, image=keys["image"], role=keys["role"], kind=keys["kind"])


def _check_choice(what: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise TraceError(f"{what} must be one of {', '.join(get_args(choices))}, got {short(value)}")
