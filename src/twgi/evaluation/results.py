"""The rows that every benchmark leaves behind, one for each thought, whatever it was judged by: `results.jsonl`.

::

    {"version": 1, "benchmark": "geneval", "id": "00012", "sample": 0, "task": "position", "prompt": "...",
     "score": 1.0,                      of the picture that counts, 0..1; 0 where there is none
     "status": "scored",                or failed (no thought), no picture, unreadable: all three score 0
     "pictures": [{"image": "images/00012-0-0.png", "sha256": "...", "score": 0.0, "reasons": ["..."],
                   "image_tokens": 66}, ...],
                                        each picture of the thought in order; score null: not judged
     "parts": {},                       score and weight by category, where a row holds several (DPG-Bench)
     "detail": {},                      what else the benchmark wants to keep
     "made": {...},                     model, weights, mode, seed, settings, versions of whatever drew it
     "judged": {...}}                   name, version and settings of whatever judged it

A benchmark's tables come from its rows alone (see `report`). The overall score is the mean over tasks or the mean over
prompts, as `OVERALL` says.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from twgi.errors import RunError
from twgi.trace import write_file

VERSION = 1
RESULTS, SCORES = "results.jsonl", "scores.json"
OVERALL: Mapping[str, str] = {"geneval": "tasks", "dpg": "prompts"}  # any other: tasks

Status = Literal["scored", "failed", "no picture", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One picture of a thought: `score` in 0..1, None where it was not judged; tokens spent on it, boi and eoi too."""

    image: str | None = None
    sha256: str | None = None
    score: float | None = None
    reasons: tuple[str, ...] = ()
    image_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Result:
    """One thought about one prompt, judged. `parts` maps a category to (sum of scores, how many), empty: the task."""

    benchmark: str
    id: str
    sample: int
    task: str
    prompt: str
    score: float
    status: Status
    pictures: tuple[Judged, ...] = ()
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    judged: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise RunError(f"unknown status {self.status!r} of {self.id}; known are {', '.join(get_args(Status))}")
        if not 0 <= self.score <= 1:
            raise RunError(f"the score of {self.id} must be in 0..1, got {self.score}")

    def score_of(self, picture: int) -> float | None:
        """The score of this picture (0: the first); of the last one where the thought ended earlier."""
        if not self.pictures:
            return 0.0
        return self.pictures[min(picture, len(self.pictures) - 1)].score

    def to_json(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Result":
        """Read `to_json` back.

        Raises:
            RunError: another version, an unknown or missing key, or a value that cannot be.
        """
        if value.get("version") != VERSION:
            raise RunError(f"a row of version {value.get('version')!r}; this program reads version {VERSION}")
        try:
            pictures = tuple(
                Judged(**{**picture, "reasons": tuple(picture["reasons"])}) for picture in value["pictures"]
            )
            parts = {name: (float(total), float(count)) for name, (total, count) in value["parts"].items()}
            rest = {key: kept for key, kept in value.items() if key not in ("version", "pictures", "parts")}
            return cls(**rest, pictures=pictures, parts=parts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"not a row of results: {type(error).__name__} {error}") from None


def write_results(folder: Path, rows: Iterable[Result]) -> None:
    """Put `results.jsonl` into a folder, whole or not at all. Raises `RunError`."""
    lines = "".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)
    write_file(folder / RESULTS, lines.encode())


def read_results(folder: Path) -> Sequence[Result]:
    """The rows of a folder.

    Raises:
        RunError: there are none, or one cannot be read; the message says which line.
    """
    path, rows = folder / RESULTS, []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}): score the folder first, as with twgi score geneval") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(Result.from_json(json.loads(line)))
            except (ValueError, RunError, AttributeError) as error:
                raise RunError(f"{path}:{number}: {error}") from None
    return rows
