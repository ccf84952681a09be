"""Segments of text and images, and the trace: the whole thought of one prompt, as a value that leaves the program.

A trace is one line of `traces.jsonl`, version 1; its pictures are PNG files beside it. The reader is strict: an unknown
version, key or tag is a `TraceError`, so that no later program silently drops what it does not know.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from twgi.errors import RunError, TraceError

VERSION = 1
TRACES, RUN, PAGE, IMAGES = "traces.jsonl", "run.json", "index.html", "images"

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
    there in memory only. An input picture belongs to the prompt and has no tokens of its own here.
    """

    tokens: tuple[int, ...] = ()
    image: str | None = None
    role: Role = "draft"
    picture: Image.Image | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_choice("an image's role", self.role, Role)
        if self.role == "input" and self.tokens:
            raise TraceError("an input picture stands in the prompt: its segment has no tokens")
        if self.image is not None and not _RELATIVE_PATH.fullmatch(self.image):
            raise TraceError(f"the path of an image must be relative and plain, got {self.image!r}")

    def to_json(self) -> dict[str, Any]:
        return {"type": "image", "image": self.image, "role": self.role, "tokens": list(self.tokens)}


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

    `settings` and `timing` are free JSON objects. `tokens` of all segments joined are exactly what the model read
    after the prompt's separator.
    """

    prompt: str
    mode: str
    seed: int
    sample: int = 0
    model: ModelId
    settings: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: FinishReason
    segments: tuple[Segment, ...]
    anomalies: tuple[Anomaly, ...] = ()
    timing: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_choice("finish_reason", self.finish_reason, FinishReason)

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

    def filed(self, stem: str) -> "Trace":
        """The same trace, each picture in it with the file name `images/{stem}-{k}.png`, k counting from 0."""
        count = iter(range(len(self.segments)))
        return replace(self, segments=tuple(_filed(segment, stem, count) for segment in self.segments))

    def files(self) -> dict[str, bytes]:
        """Path in the run folder -> PNG, for each picture that has a file name (see `filed`)."""
        images = [segment for segment in self.segments if isinstance(segment, ImageSegment)]
        return {image.image: png(image.picture) for image in images if image.image and image.picture}

    def with_pictures(self, folder: str | Path) -> "Trace":
        """The same trace with the pictures of its files, read from a run folder; those not there stay None."""
        return replace(self, segments=tuple(_with_picture(segment, Path(folder)) for segment in self.segments))

    def to_json(self) -> dict[str, Any]:
        """The JSON object of version 1 (`docs/design.md`)."""
        return {
            "version": VERSION,
            "prompt": self.prompt,
            "mode": self.mode,
            "seed": self.seed,
            "sample": self.sample,
            "model": self.model.to_json(),
            "settings": dict(self.settings),
            "finish_reason": self.finish_reason,
            "segments": [segment.to_json() for segment in self.segments],
            "anomalies": [anomaly.to_json() for anomaly in self.anomalies],
            "timing": dict(self.timing),
        }

    @classmethod
    def from_json(cls, value: object) -> "Trace":
        """Read `to_json` back. Raises `TraceError` for anything unknown, missing, or of another type."""
        if isinstance(value, dict) and value.get("version") != VERSION:
            raise TraceError(f"trace of version {value.get('version')!r}; this program reads version {VERSION}")
        keys = _fields(value, "a trace", _TRACE_FIELDS)
        return cls(
            prompt=keys["prompt"],
            mode=keys["mode"],
            seed=keys["seed"],
            sample=keys["sample"],
            model=ModelId(**_fields(keys["model"], "model", {"name": str, "sha256": str})),
            settings=keys["settings"],
            finish_reason=keys["finish_reason"],
            segments=tuple(_segment(item) for item in keys["segments"]),
            anomalies=tuple(Anomaly(**_fields(item, "an anomaly", _ANOMALY_FIELDS)) for item in keys["anomalies"]),
            timing=keys["timing"],
        )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a run folder (run.json, traces.jsonl, images/, index.html) and return the path of its page.

        Raises `RunError` where it cannot be written, or holds a run already and `overwrite` is not set.
        """
        from twgi.render import render_page

        root = Path(folder)
        if (root / TRACES).exists() and not overwrite:
            raise RunError(f"{root} holds a run already; give another folder, or overwrite=True")
        trace = self.filed(f"00000-{self.sample}")
        for name, content in trace.files().items():
            write_file(root / name, content)
        run = {"version": VERSION, "model": self.model.to_json(), "settings": dict(self.settings), "traces": 1}
        write_file(root / RUN, (json.dumps(run, ensure_ascii=False, indent=2) + "\n").encode())
        write_file(root / PAGE, render_page([trace]).encode())
        write_file(root / TRACES, to_line(trace))  # last: where it is, all else is
        return root / PAGE


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A prompt that could not be thought about, and why, in one line."""

    prompt: str
    mode: str
    error: str
    sample: int = 0


def to_line(trace: Trace) -> bytes:
    """One line of `traces.jsonl`, with its line end."""
    text = json.dumps(trace.to_json(), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # a lone surrogate becomes its JSON escape


def from_line(line: str | bytes) -> Trace:
    """Read `to_line` back; raises `TraceError`."""
    try:
        value = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_no_double)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"not a line of JSON ({error})") from error
    return Trace.from_json(value)


def read_traces(path: str | Path) -> Iterator[Trace]:
    """Traces of a `traces.jsonl`, or of the run folder it is in, without their pictures (see `Trace.with_pictures`).

    Raises `TraceError` that names the file and the line.
    """
    file = Path(path) / TRACES if Path(path).is_dir() else Path(path)
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield from_line(line)
                except TraceError as error:
                    raise TraceError(f"{file}, line {number}: {error}") from error
    except OSError as error:
        raise TraceError(f"{file}: cannot be read ({error.strerror})") from error


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, its folders too. Raises `RunError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            temporary.unlink()
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{path}: cannot be written ({reason}); give a folder that can") from error


_TRACE_FIELDS: Mapping[str, type] = {
    "version": int,
    "prompt": str,
    "mode": str,
    "seed": int,
    "sample": int,
    "model": dict,
    "settings": dict,
    "finish_reason": str,
    "segments": list,
    "anomalies": list,
    "timing": dict,
}
_ANOMALY_FIELDS: Mapping[str, type] = {"position": int, "kind": str, "detail": str}
_SEGMENT_FIELDS: Mapping[str, Mapping[str, type]] = {
    "text": {"type": str, "text": str, "tokens": list},
    "image": {"type": str, "image": object, "role": str, "tokens": list},
}


def _fields(value: object, what: str, wanted: Mapping[str, type]) -> dict[str, Any]:
    """A JSON object that has exactly the wanted keys, each of its type."""
    if not isinstance(value, dict):
        raise TraceError(f"{what} must be a JSON object, got {_short(value)}")
    wrong = sorted(wanted.keys() ^ value.keys())
    if wrong:
        raise TraceError(f"{what} {'lacks' if wrong[0] in wanted else 'has the unknown key'} {wrong[0]!r}")
    for key, kind in wanted.items():
        if not isinstance(value[key], kind) or (kind is int and isinstance(value[key], bool)):
            raise TraceError(f"{what}: {key!r} must be of type {kind.__name__}, got {_short(value[key])}")
    return value


def _segment(value: object) -> Segment:
    tag = value.get("type") if isinstance(value, dict) else None
    if not isinstance(tag, str) or tag not in _SEGMENT_FIELDS:
        raise TraceError(f"a segment must have the type {' or '.join(_SEGMENT_FIELDS)}, got {_short(tag)}")
    keys = _fields(value, f"a segment of type {tag}", _SEGMENT_FIELDS[tag])
    tokens = tuple(keys["tokens"])
    if not all(type(token) is int for token in tokens):
        raise TraceError("the tokens of a segment must be whole numbers")
    if tag == "text":
        return TextSegment(text=keys["text"], tokens=tokens)
    if not isinstance(keys["image"], str | None):
        raise TraceError(f"the image of a segment must be a path or null, got {_short(keys['image'])}")
    return ImageSegment(tokens=tokens, image=keys["image"], role=keys["role"])


def _filed(segment: Segment, stem: str, count: Iterator[int]) -> Segment:
    if isinstance(segment, TextSegment) or segment.picture is None:
        return segment
    return replace(segment, image=f"{IMAGES}/{stem}-{next(count)}.png")


def _with_picture(segment: Segment, folder: Path) -> Segment:
    if isinstance(segment, TextSegment) or segment.picture is not None or segment.image is None:
        return segment
    try:
        with Image.open(folder / segment.image, formats=("PNG",)) as picture:
            return replace(segment, picture=picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return segment


def _check_choice(what: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        raise TraceError(f"{what} must be one of {', '.join(get_args(choices))}, got {value!r}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_double(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in pairs:
        if key in kept:
            raise ValueError(f"the key {key!r} stands twice")
        kept[key] = value
    return kept


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
