"""A file of token lists into a folder: `decoded.jsonl`, and what a run has: pictures, traces, a page."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from twgi.data.decode import Decoded
from twgi.files import Fault, Object, check_new, writing_lines
from twgi.runs.folder import RunFolder
from twgi.trace import Anomaly, Failure, ImageSegment

DECODED = "decoded.jsonl"


@dataclass
class DecodingReport:
    """What became of the lines of a file."""

    decoded: int = 0
    pictures: int = 0
    malformed: list[tuple[str, tuple[Anomaly, ...]]] = field(default_factory=list)
    refused: list[Fault] = field(default_factory=list)

    def add(self, line: Decoded | Fault) -> None:
        """One more line."""
        if isinstance(line, Fault):
            self.refused.append(line)
            return
        self.decoded += 1
        self.pictures += sum(isinstance(s, ImageSegment) and s.picture is not None for s in line.trace.segments)
        if line.trace.anomalies:
            self.malformed.append((line.where, line.trace.anomalies))

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


def unpack(lines: Iterable[Decoded | Fault], out: Path, *, title: str) -> DecodingReport:
    """Write pictures and traces as they come, then `decoded.jsonl` under its name, then the page.

    Raises `RunError` where the folder is in use or cannot be written.
    """
    check_new(out)
    report, failures = DecodingReport(), dict[str, Failure]()
    with RunFolder(out, run={"decoded": title}) as folder:
        with writing_lines(out / DECODED) as file:
            for number, line in enumerate(lines):
                report.add(line)
                if isinstance(line, Decoded):
                    folder.add(line.trace)
                    file.write(line.line)
                else:
                    failures[f"{number:05}"] = Failure(prompt=line.where, mode="refused", error=line.reason)
        folder.write_page(failures, title=title)
    return report
