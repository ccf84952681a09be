"""A file of token lists into a folder: its pictures, `decoded.jsonl`, and a page."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twgi.data.decode import Decoded
from twgi.data.lines import Fault, writing
from twgi.errors import RunError
from twgi.render import Record, render_page
from twgi.trace import PAGE, Anomaly, Failure, ImageSegment, Trace, write_file

DECODED = "decoded.jsonl"


@dataclass
class Unpacked:
    """What became of the lines of a file."""

    decoded: int = 0
    pictures: int = 0
    malformed: list[tuple[str, tuple[Anomaly, ...]]] = field(default_factory=list)
    refused: list[Fault] = field(default_factory=list)

    def problems(self) -> list[str]:
        """A line of text for each malformed place and each refused line, as `file:line: reason`."""
        places = [
            f"{where}: {a.kind} at token {a.position}: {a.detail}" for where, every in self.malformed for a in every
        ]
        return [*places, *(f"{fault.where}: {fault.reason}" for fault in self.refused)]

    def summary(self) -> str:
        """All of it in a line."""
        malformed = f"{len(self.malformed)} of them malformed"
        return f"{self.decoded} decoded ({self.pictures} pictures), {malformed}, {len(self.refused)} refused"

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "decoded": self.decoded,
            "pictures": self.pictures,
            "malformed": [
                {"where": where, "anomalies": [a.to_json() for a in every]} for where, every in self.malformed
            ],
            "refused": [fault.to_json() for fault in self.refused],
        }


def check_new(folder: Path) -> None:
    """Raises `RunError` unless there is nothing at this path, or an empty folder."""
    try:
        used = folder.exists() and any(folder.iterdir())
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: not a folder that can be used ({error}); give another --out") from None
    if used:
        raise RunError(f"{folder} is not empty; give a new or empty folder as --out")


def unpack(lines: Iterable[Decoded | Fault], folder: Path, *, title: str) -> Unpacked:
    """Write pictures as they come, then `decoded.jsonl` under its name, then the page.

    Raises `RunError` where the folder is in use or cannot be written.
    """
    check_new(folder)
    done, records = Unpacked(), list[Record]()
    with writing(folder / DECODED) as file:
        for line in lines:
            records.append(_unpack_one(line, folder, done))
            if isinstance(line, Decoded):
                file.write(line.line)
    write_file(folder / PAGE, render_page(records, folder=folder, title=title).encode())
    return done


def _unpack_one(line: Decoded | Fault, folder: Path, done: Unpacked) -> Record:
    """Write the pictures of a line; what is left of it for the page."""
    if isinstance(line, Fault):
        done.refused.append(line)
        return Failure(prompt=line.where, mode="refused", error=line.reason)
    files = line.trace.files()
    for name, content in files.items():
        write_file(folder / name, content)
    done.decoded += 1
    done.pictures += len(files)
    if line.trace.anomalies:
        done.malformed.append((line.where, line.trace.anomalies))
    return replace(line.trace, segments=tuple(_light(line.trace)))


def _light(trace: Trace) -> Iterator[Any]:
    """The segments without what their files hold."""
    for segment in trace.segments:
        yield replace(segment, picture=None) if isinstance(segment, ImageSegment) else segment
