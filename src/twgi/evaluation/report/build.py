"""Scored folders -> what a report says: tables with intervals, paired tests, curves of score and cost, a gallery."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from twgi.errors import ConfigError, RunError
from twgi.evaluation.report.charts import Point, Series
from twgi.evaluation.report.paper import PAPER, Row
from twgi.evaluation.report.statistics import (
    Estimate,
    best_by_verdict,
    best_of,
    by_prompt,
    differences,
    scores,
    sums,
)
from twgi.evaluation.results import OVERALL, SCORES, Result, read_results

AUDIT = "audit.json"
MOST_SHOWN = 8  # wins, and as many losses, of a pair


@dataclass(frozen=True, kw_only=True)
class Run:
    """A scored folder: its rows, what `scores.json` and an audit say, and the name it has in the report."""

    folder: Path
    name: str
    rows: Sequence[Result]
    told: Mapping[str, Any]
    audit: Mapping[str, Any] | None = None

    @property
    def benchmark(self) -> str:
        return self.rows[0].benchmark

    @property
    def pictures(self) -> int:
        """The most pictures a thought has, where each was judged; else one."""
        judged = all(picture.score is not None for row in self.rows for picture in row.pictures)
        return max((len(row.pictures) for row in self.rows), default=1) if judged else 1

    @property
    def mode(self) -> str:
        return str(self.rows[0].made.get("settings", {}).get("mode", "elsewhere"))

    @property
    def mark(self) -> str:
        """What must stand beside its scores."""
        marks = [f"{word.upper()} {self.told[word]}" for word in ("partial", "subset") if self.told.get(word)]
        return ", ".join(marks)


def read_run_of_rows(folder: Path, name: str) -> Run:
    """A scored folder.

    Raises:
        RunError: it has no rows, or what is there cannot be read.
    """
    rows = read_results(folder)
    if not rows:
        raise RunError(f"{folder} has no rows: nothing was scored in it")
    return Run(folder=folder, name=name, rows=rows, told=_json(folder / SCORES) or {}, audit=_json(folder / AUDIT))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is not a JSON object: score the folder again")
    return content


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """b minus a, prompt by prompt."""

    a: str
    b: str
    columns: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A prompt on which one picture is right and another wrong: (name, file, right, reasons) of each."""

    prompt: str
    pictures: tuple[tuple[str, Path | None, bool, str], ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Wins and losses of b against a."""

    a: str
    b: str
    wins: tuple[Shown, ...]
    losses: tuple[Shown, ...]
    counts: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that a report says of one benchmark."""

    benchmark: str
    columns: tuple[str, ...]
    table: Mapping[str, Mapping[str, Estimate]]
    paper: Mapping[str, Row]
    comparisons: tuple[Comparison, ...]
    by_tokens: tuple[Series, ...]
    by_seconds: tuple[Series, ...]
    galleries: tuple[Gallery, ...]
    runs: tuple[Run, ...]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Scored folders, each with a name of its own.

    Raises:
        ConfigError: no folder at all, or the same one twice.
        RunError: one is not scored.
    """
    if not folders or len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("give the folders of one run or of several, each once")
    plain = [folder.resolve().name for folder in folders]
    names = [n if plain.count(n) == 1 else str(folder) for n, folder in zip(plain, folders, strict=True)]
    return [read_run_of_rows(folder, name) for folder, name in zip(folders, names, strict=True)]


def sections(runs: Sequence[Run]) -> list[Section]:
    """A section for each benchmark, in the order in which they come; the first run is what others are held against."""
    names = dict.fromkeys(run.benchmark for run in runs)
    return [_section([run for run in runs if run.benchmark == name]) for name in names]


def _section(runs: Sequence[Run]) -> Section:
    name, table = runs[0].benchmark, {}
    for run in runs:
        if run.pictures > 1 and run.mode == "critique":
            table[f"{run.name}, first picture"] = scores(run.rows, 0)
        table[run.name] = scores(run.rows)
    columns = dict.fromkeys(column for row in table.values() for column in row if column != "overall")
    return Section(
        benchmark=name,
        columns=(*columns, "overall"),
        table=table,
        paper=PAPER.get(name, {}),
        comparisons=tuple(_comparisons(runs)),
        by_tokens=tuple(_curves(runs, "image_tokens")),
        by_seconds=tuple(_curves(runs, "seconds")),
        galleries=tuple(_galleries(runs)),
        runs=tuple(runs),
    )


def _comparisons(runs: Sequence[Run]) -> Iterator[Comparison]:
    for run in runs:
        if run.pictures > 1 and run.mode == "critique":
            moved = differences(sums(run.rows, 0), sums(run.rows, run.pictures - 1))
            yield Comparison(a=f"{run.name}, first picture", b=run.name, columns=moved)
    for other in runs[1:]:
        moved = differences(sums(runs[0].rows), sums(other.rows))
        if OVERALL.get(other.benchmark, "tasks") == "prompts":
            moved |= differences(_whole(runs[0]), _whole(other))
        yield Comparison(a=runs[0].name, b=other.name, columns=moved)


def _whole(run: Run) -> dict[str, dict[str, tuple[float, float]]]:
    """Each prompt's own score as one column."""
    prompts = {id: rows for task in by_prompt(run.rows).values() for id, rows in task.items()}
    return {"overall": {id: (sum(row.score for row in rows), float(len(rows))) for id, rows in prompts.items()}}


def _curves(runs: Sequence[Run], cost: str) -> Iterator[Series]:
    """Of each run the score after each picture; of direct ones the best of n; of critiques the choice by verdict."""
    for group, run in enumerate(runs):
        costs = [float(point[cost]) for point in run.told.get("by_picture", []) if cost in point]
        if not costs:
            continue
        if run.mode == "subgoal":  # its parts are no answers: only the end of a thought is
            yield Series(name=run.name, group=group, points=(_point(run, None, costs[-1], ""),))
            continue
        points = [_point(run, k, costs[k], f"picture {k + 1},") for k in range(min(run.pictures, len(costs)))]
        yield Series(name=run.name, group=group, points=tuple(points))
        yield from _choices(run, group, costs[-1])


def _point(run: Run, picture: int | None, cost: float, note: str) -> Point:
    score = scores(run.rows, picture)["overall"]
    return Point(cost=cost, score=score.value, low=score.low, high=score.high, note=note)


def _choices(run: Run, group: int, cost: float) -> Iterator[Series]:
    samples = min(len(own) for task in by_prompt(run.rows).values() for own in task.values())
    several = [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if n <= samples]
    if len(several) < 2 or run.benchmark != "geneval":
        return
    if run.mode == "critique":
        own = tuple(Point(cost=n * cost, score=best_by_verdict(run.rows, n), note=f"best of {n},") for n in several)
        yield Series(name=f"{run.name}, best of n by own verdict", group=group, kind="choice", points=own)
    else:
        bound = tuple(Point(cost=n * cost, score=best_of(run.rows, n), note=f"best of {n},") for n in several)
        yield Series(name=f"{run.name}, best of n by the judge", group=group, kind="bound", points=bound)


def _galleries(runs: Sequence[Run]) -> Iterator[Gallery]:
    for run in runs:
        if run.pictures > 1 and run.mode == "critique":
            pairs = [(row, (run, row, 0), (run, row, -1)) for row in run.rows if len(row.pictures) > 1]
            yield _gallery(f"{run.name}, first picture", run.name, pairs)
    first = {(row.id, row.sample): row for row in runs[0].rows}
    for other in runs[1:]:
        both = [(first[key], row) for row in other.rows if (key := (row.id, row.sample)) in first]
        yield _gallery(runs[0].name, other.name, [(b, (runs[0], a, -1), (other, b, -1)) for a, b in both])


Look = tuple[Run, Result, int]


def _gallery(a: str, b: str, pairs: Sequence[tuple[Result, Look, Look]]) -> Gallery:
    wins = [(row, x, y) for row, x, y in pairs if not _right(x) and _right(y)]
    losses = [(row, x, y) for row, x, y in pairs if _right(x) and not _right(y)]
    return Gallery(
        a=a,
        b=b,
        wins=tuple(_shown(row.prompt, (a, x), (b, y)) for row, x, y in _spread(wins)),
        losses=tuple(_shown(row.prompt, (a, x), (b, y)) for row, x, y in _spread(losses)),
        counts=(len(wins), len(losses)),
    )


def _right(look: Look) -> bool:
    _, row, number = look
    return bool(row.pictures) and (row.pictures[number].score or 0.0) == 1.0


def _spread(pairs: Sequence[tuple[Result, Look, Look]]) -> Sequence[tuple[Result, Look, Look]]:
    """Some of them, from beginning, middle and end, so that every task may be among them."""
    if len(pairs) <= MOST_SHOWN:
        return pairs
    return [pairs[n * len(pairs) // MOST_SHOWN] for n in range(MOST_SHOWN)]


def _shown(prompt: str, *looks: tuple[str, Look]) -> Shown:
    pictures = []
    for name, (run, row, number) in looks:
        picture = row.pictures[number] if row.pictures else None
        file = run.folder / picture.image if picture and picture.image else None
        reasons = "; ".join(picture.reasons) if picture else row.status
        pictures.append((name, file, _right((run, row, number)), reasons))
    return Shown(prompt=prompt, pictures=tuple(pictures))


def to_json(parts: Sequence[Section]) -> dict[str, Any]:
    """The report as numbers."""
    return {"version": 1, "benchmarks": {part.benchmark: _section_json(part) for part in parts}}


def _section_json(part: Section) -> dict[str, Any]:
    return {
        "scores": {name: _estimates(row) for name, row in part.table.items()},
        "marks": {run.name: run.mark for run in part.runs if run.mark},
        "paper": {name: dict(row) for name, row in part.paper.items()},
        "differences": [{"a": c.a, "b": c.b, "columns": _estimates(c.columns)} for c in part.comparisons],
        "by_image_tokens": [_series(series) for series in part.by_tokens],
        "by_seconds": [_series(series) for series in part.by_seconds],
        "wins_and_losses": [{"a": g.a, "b": g.b, "wins": g.counts[0], "losses": g.counts[1]} for g in part.galleries],
        "audits": {run.name: run.audit for run in part.runs if run.audit},
        "judged": {run.name: dict(run.rows[0].judged) for run in part.runs},
        "made": {run.name: dict(run.rows[0].made) for run in part.runs},
    }


def _estimates(row: Mapping[str, Estimate]) -> dict[str, Any]:
    return {column: estimate.to_json() for column, estimate in row.items()}


def _series(series: Series) -> dict[str, Any]:
    points = [
        {"cost": point.cost, "score": point.score, "low": point.low, "high": point.high} for point in series.points
    ]
    return {"name": series.name, "kind": series.kind, "points": points}


def mean_pictures(run: Run) -> float:
    """Pictures a thought has, in the mean."""
    return fmean(len(row.pictures) for row in run.rows)
