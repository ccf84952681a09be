"""A file of token lists into a folder: its pictures, `decoded.jsonl`, and a page."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from twgi.data.decode import Decoded
from twgi.files import Fault, Object, check_new, write_whole, writing_lines
from twgi.render import Record, render_page
from twgi.trace import PAGE, Anomaly, Failure, ImageSegment

DECODED = "decoded.jsonl"


@dataclass
class DecodingReport:
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

    def to_json(self) -> Object:
        """Everything, for programs."""
        malformed = [{"where": where, "anomalies": [a.to_json() for a in every]} for where, every in self.malformed]
        return {**vars(self), "malformed": malformed, "refused": [fault.to_json() for fault in self.refused]}


def unpack(lines: Iterable[Decoded | Fault], folder: Path, *, title: str) -> DecodingReport:
    """Write pictures as they come, then `decoded.jsonl` under its name, then the page.

    Raises `RunError` where the folder is in use or cannot be written.
    """
    check_new(folder)
    report, records = DecodingReport(), list[Record]()
    with writing_lines(folder / DECODED) as file:
        for line in lines:
            if isinstance(line, Fault):
                report.refused.append(line)
                records.append(Failure(prompt=line.where, mode="refused", error=line.reason))
            else:
                records.append(_unpacked(line, folder, report))
                file.write(line.line)
    write_whole(folder / PAGE, render_page(records, folder=folder, title=title).encode())
    return report


def _unpacked(line: Decoded, folder: Path, report: DecodingReport) -> Record:
    """Write the pictures of a line; what is left of it for the page."""
    files = line.trace.files()
    for name, content in files.items():
        write_whole(folder / name, content)
    report.decoded += 1
    report.pictures += len(files)
    if line.trace.anomalies:
        report.malformed.append((line.where, line.trace.anomalies))
    segments = (replace(s, picture=None) if isinstance(s, ImageSegment) else s for s in line.trace.segments)
    return replace(line.trace, segments=tuple(segments))
