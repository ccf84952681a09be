"""What every benchmark leaves in a folder: `results.jsonl`, a row for each thought, and `scores.json`.

The first line of `results.jsonl` holds what all rows share, each other line is a row::

    {"version": 2, "benchmark": "geneval",
     "made": {...},                     model, settings, versions of whatever drew the pictures
     "judged": {...}}                   name, version and settings of whatever judged them
    {"id": "00012", "sample": 0, "task": "position", "prompt": "...",
     "score": 1.0,                      of the picture that counts, 0..1; 0 where there is none
     "status": "scored",                or failed (no thought), no picture, unreadable: all three score 0;
                                        what was not looked at has no score and no row
     "pictures": [{"image": "images/00012-0-0.png", "kind": "draft", "sha256": "...", "score": 0.0,
                   "reasons": ["..."], "image_tokens": 66}, ...],
                                        each picture of the thought in order; sha256 is of its file; score null: not
                                        judged; kind as in the trace, null: not known
     "parts": {},                       score and weight by category, where a row holds several (DPG-Bench)
     "detail": {}}                      what else the benchmark keeps
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

from twgi.errors import DataError, RunError
from twgi.files import checked, read_objects, short, writing_lines

VERSION = 2
RESULTS, SCORES = "results.jsonl", "scores.json"
HEAD = ("benchmark", "made", "judged")

Status = Literal["scored", "failed", "no picture", "unreadable", "not looked at"]


@dataclass(frozen=True, kw_only=True)
class PictureResult:
    """One picture of a thought: `score` in 0..1, None where it was not judged; tokens spent on it, boi and eoi too."""

    image: str | None = None
    kind: str | None = None
    sha256: str | None = None
    score: float | None = None
    reasons: tuple[str, ...] = ()
    image_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Result:
    """One thought about one prompt, judged. `parts` maps a category to (sum of scores, how many), empty: the task."""

    id: str
    sample: int
    task: str
    prompt: str
    score: float
    status: Status
    pictures: tuple[PictureResult, ...] = ()
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)

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


@dataclass(frozen=True, kw_only=True)
class Results:
    """The rows of a folder, with what holds for all of them."""

    benchmark: str
    rows: Sequence[Result]
    made: Mapping[str, Any] = field(default_factory=dict)
    judged: Mapping[str, Any] = field(default_factory=dict)


def write_results(folder: Path, results: Results) -> None:
    """Put `results.jsonl` into a folder, whole or not at all. Raises `RunError`."""
    with writing_lines(folder / RESULTS) as file:
        file.write({"version": VERSION, **{key: getattr(results, key) for key in HEAD}})
        for row in results.rows:
            file.write(asdict(row))


def read_results(folder: Path) -> Results:
    """The results in a folder. Raises `RunError` where there are none, or for a line that is none; names it."""
    try:
        lines = list(read_objects(folder / RESULTS))
    except DataError as error:
        raise RunError(f"{error}: score the folder first, as with twgi score geneval") from None
    if not lines:
        return Results(benchmark="", rows=())
    head, rows = lines[0].value, []
    if head.get("version") != VERSION or not head.keys() >= set(HEAD):
        raise RunError(f"{lines[0].where}: results of version {short(head.get('version'))}; this reads {VERSION}")
    if not isinstance(head["benchmark"], str) or not all(isinstance(head[key], dict) for key in ("made", "judged")):
        raise RunError(f"{lines[0].where}: benchmark must be a name, made and judged objects")
    for line in lines[1:]:
        try:
            rows.append(_row(line.value))
        except (DataError, RunError, TypeError, ValueError, OverflowError) as error:
            raise RunError(f"{line.where}: not a row of results: {error}") from None
    return Results(rows=rows, **{key: head[key] for key in HEAD})


_ROW: Mapping[str, Any] = {
    **dict.fromkeys(("id", "task", "prompt", "status"), str),
    **{"sample": int, "score": int | float, "pictures": list, "parts": dict, "detail": dict},
}
_PICTURE: Mapping[str, Any] = {
    **dict.fromkeys(("image", "kind", "sha256"), str | None),
    **{"score": int | float | None, "reasons": list, "image_tokens": int},
}


def _row(value: Mapping[str, Any]) -> Result:
    """Raises `DataError`, `TypeError`, `ValueError` or `RunError` for a value that is none."""
    checked(value, "a row", _ROW)
    pictures = []
    for each in value["pictures"]:
        checked(each, "a picture", _PICTURE)
        if not all(isinstance(reason, str) for reason in each["reasons"]):
            raise TypeError("reasons must be texts")
        if each["score"] is not None and not 0 <= each["score"] <= 1:
            raise ValueError("the score of a picture must be in 0..1")
        pictures.append(PictureResult(**{**each, "reasons": tuple(each["reasons"])}))
    parts = {name: (float(total), float(count)) for name, (total, count) in value["parts"].items()}
    if not all(isfinite(total) and 0 < count < float("inf") for total, count in parts.values()):
        raise ValueError("parts must be (sum, how many)")
    return Result(**{**value, "pictures": tuple(pictures), "parts": parts})
