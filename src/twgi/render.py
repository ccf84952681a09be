"""Traces -> one self-contained HTML page: a thought as a readable story, or a gallery of many.

The page has no script and asks nothing of the network: pictures are inside it, and its content security policy allows
only those and its own style sheet. A card of the gallery *is* its story, shown small: opening it (`:target`) unfolds
the rest, so that no picture is in the page twice.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from twgi.errors import DataError
from twgi.files import read_bytes
from twgi.trace import MAX_PICTURE, Failure, ImageSegment, TextSegment, Trace, png

if TYPE_CHECKING:
    from jinja2 import Template

Record = Trace | Failure

TEMPLATES = files("twgi") / "templates"

MAX_EMBEDDED = 64 * 2**20  # bytes of pictures in the page; what is beyond is read from its file beside the page
_SMALL = 160  # pictures up to this side are enlarged with hard pixel edges
_CAPTIONS = {"input": "input picture", "subgoal": "subgoal", "draft": "draft", "final": "final picture"}
_ENDS = {"length": "was cut off at its length limit", "cancelled": "was cancelled before its end"}


def page(
    records: Callable[[], Iterator[Record]], count: int, *, folder: str | Path | None = None, title: str | None = None
) -> Iterator[str]:
    """The page of `count` thoughts in pieces. One is told as a story, of many there is a gallery that opens into them.

    `records` is called twice, so that not all of them need be in memory. Pictures are those of the segments, or else
    are read from `folder`, the run folder; one that is in neither is shown as a missing picture. Everything that a user
    or a model wrote is escaped.
    """
    pictures, many = _Pictures(Path(folder) if folder is not None else None), count != 1
    thoughts = (_thought(record, number, pictures) for number, record in enumerate(records()))
    heading = title or (_count(count, "thought") if many else next(records()).prompt)
    pieces = template(TEMPLATES, "page.html", style="page.css").generate(
        thoughts=thoughts, many=many, count=count, heading=heading, facts=_facts(records()) if many else ""
    )
    return map(printable, pieces)


def template(folder: Traversable, name: str, *, style: str, filters: Mapping[str, Any] | None = None) -> "Template":
    """A template of a folder; it knows `style`, a style sheet there, and the `digest` that lets the page use it."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    sheet = (folder / style).read_text("utf-8")
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")), undefined=StrictUndefined,
        autoescape=name.endswith(".html"), trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    environment.filters |= dict(filters or {})
    environment.globals |= {"style": Markup(sheet), "digest": digest}
    return environment.get_template(name)


def printable(text: str) -> str:
    """Without what cannot stand in a page at all: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


@dataclass
class _Pictures:
    """Where the bytes of pictures come from, and how many of them are in the page already."""

    folder: Path | None
    embedded: int = 0

    def figure(self, segment: ImageSegment, caption: str) -> dict[str, Any]:
        """What the page shows of an image segment; why, where it has no picture."""
        shown = {"caption": caption, "final": segment.role == "final", "tokens": len(segment.tokens), "source": ""}
        try:
            content = png(segment.picture) if segment.picture is not None else self._stored(segment)
            with Image.open(BytesIO(content), formats=("PNG",)) as picture:
                size = picture.size
        except (DataError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return shown | {"why": "the file is missing" if segment.image else "an image that was not drawn"}
        return shown | {"size": size, "small": max(size) <= _SMALL, "source": self._source(segment, content)}

    def _stored(self, segment: ImageSegment) -> bytes:
        if self.folder is None or (file := segment.file(self.folder)) is None:
            raise FileNotFoundError
        return read_bytes(file, most=MAX_PICTURE)

    def _source(self, segment: ImageSegment, content: bytes) -> str:
        if segment.image is not None and self.embedded + len(content) > MAX_EMBEDDED:
            return segment.image
        self.embedded += len(content)
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _thought(record: Record, number: int, pictures: _Pictures) -> dict[str, Any]:
    """What the page says of a thought."""
    drawn = "failed" if isinstance(record, Failure) else _count(len(record.images), "picture") * bool(record.images)
    kicker = " · ".join(filter(None, (record.mode, drawn, f"sample {record.sample}" if record.sample else "")))
    told = {"number": number, "prompt": record.prompt, "failed": isinstance(record, Failure), "kicker": kicker}
    if isinstance(record, Failure):
        empty: dict[str, Any] = {"given": (), "end": "", "anomalies": (), "details": ()}
        return told | empty | {"steps": [{"words": record.error, "cover": True, "figure": None}]}
    inputs = [part for part in record.segments if isinstance(part, ImageSegment) and part.role == "input"]
    shown = {"seed": record.seed, "sample": record.sample, "model": record.model.name}
    shown |= {"weights": record.model.sha256[:16], "finish reason": record.finish_reason, "tokens": len(record.tokens)}
    return told | {
        "given": [pictures.figure(segment, _CAPTIONS["input"]) for segment in inputs],
        "steps": list(_steps(record, pictures)),
        "end": _ENDS.get(record.finish_reason, ""),
        "anomalies": [f"{one.kind} at {one.position}: {one.detail}" for one in record.anomalies],
        "details": [*shown.items(), *_flat(record.settings), *_flat(record.timing, "timing")],
    }


def _steps(trace: Trace, pictures: _Pictures) -> Iterator[dict[str, Any]]:
    """Each segment as a step; the last image, or else the first words, is what a card shows of the thought."""
    shown = [s for s in trace.segments if (s.text.strip() if isinstance(s, TextSegment) else s.role != "input")]
    cover = trace.images[-1] if trace.images else next(iter(shown), None)
    roles, seen = [segment.role for segment in trace.images], Counter[str]()
    for segment in shown:
        if isinstance(segment, TextSegment):
            yield {"words": segment.text.strip(), "figure": None, "cover": segment is cover}
            continue
        seen[segment.role] += 1
        number = f" {seen[segment.role]}" if roles.count(segment.role) > 1 else ""
        yield {"figure": pictures.figure(segment, _CAPTIONS[segment.role] + number), "cover": segment is cover}


def _flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Nested settings as rows: `guidance.final.full` -> its value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif value not in ({}, None):
        yield name, f"{value:.6g}" if isinstance(value, float) else value


def _facts(records: Iterator[Record]) -> str:
    """Models, modes and failures of a gallery, in a line."""
    models, modes, failed = Counter[str](), Counter[str](), 0
    for record in records:
        modes[record.mode] += 1
        if isinstance(record, Trace):
            models[record.model.name] += 1
        else:
            failed += 1
    return " · ".join([*models, *modes, *([f"{failed} failed"] if failed else [])])


def _count(number: int, one: str) -> str:
    return f"{number} {one}{'s' * (number != 1)}"
