"""Scored folders -> what a report says, as numbers: scores with intervals, paired tests, curves, wins and losses."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from twgi.errors import ConfigError, DataError, RunError
from twgi.evaluation.benchmarks import entry_of
from twgi.evaluation.report.charts import Point, Series
from twgi.evaluation.report.paper import PAPER, Columns
from twgi.evaluation.report.statistics import (
    Estimate,
    best_by_verdict,
    best_of,
    by_prompt,
    differences,
    scores,
    sums,
)
from twgi.evaluation.results import SCORES, Result, Results, read_results
from twgi.files import read_json
from twgi.thinking.modes import KINDS

AUDIT = "audit.json"
MOST_SHOWN = 8  # wins, and as many losses, of a pair
CHOICES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # best of so many


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """A scored folder: its results, what `scores.json` and an audit say, and the name it has in the report."""

    folder: Path
    name: str
    results: Results
    told: Mapping[str, Any]
    audit: Mapping[str, Any] | None = None

    @property
    def rows(self) -> Sequence[Result]:
        return self.results.rows

    @property
    def over(self) -> str:
        """What its overall score is the mean of."""
        return entry_of(self.results.benchmark).overall

    @cached_property
    def pictures(self) -> int:
        """The most pictures a thought has, where each was judged; else one."""
        judged = all(picture.score is not None for row in self.rows for picture in row.pictures)
        return max((len(row.pictures) for row in self.rows), default=1) if judged else 1

    @cached_property
    def kinds(self) -> frozenset[str | None]:
        """What its pictures are for."""
        return frozenset(picture.kind for row in self.rows for picture in row.pictures)

    @property
    def drafts(self) -> bool:
        """Whether first pictures are drafts of the final ones, so that the two can be compared."""
        return self.pictures > 1 and self.has("draft")

    def has(self, what: Literal["draft", "part"]) -> bool:
        """Whether some picture is a draft, or a part."""
        return any(getattr(KINDS[kind], what) for kind in self.kinds if kind in KINDS)

    @property
    def first(self) -> str:
        """The name of its first pictures."""
        return f"{self.name}, first picture"

    @property
    def mark(self) -> str:
        """What must stand beside its scores."""
        return ", ".join(f"{word.upper()} {self.told[word]}" for word in ("partial", "subset") if self.told.get(word))

    def scores(self, picture: int | None = None) -> dict[str, Estimate]:
        """Every column with its interval: of the pictures that count, or of the k-th ones."""
        return scores(self.rows, picture, over=self.over)

    @property
    def mean_pictures(self) -> float:
        """Pictures a thought has, in the mean."""
        return fmean(len(row.pictures) for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """b minus a, prompt by prompt."""

    a: str
    b: str
    columns: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class ShownPicture:
    """One picture of a pair: whether it is right, and what is wrong."""

    name: str
    file: Path | None
    right: bool
    reasons: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Wins and losses of b against a: (prompt, picture of a, picture of b) of some; `counts` of all."""

    a: str
    b: str
    wins: Sequence[tuple[str, ShownPicture, ShownPicture]]
    losses: Sequence[tuple[str, ShownPicture, ShownPicture]]
    counts: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that a report says of one benchmark."""

    benchmark: str
    columns: tuple[str, ...]
    table: Mapping[str, Mapping[str, Estimate]]
    paper: Mapping[str, Columns]
    comparisons: Sequence[Comparison]
    curves: Mapping[str, Sequence[Series]] = field(default_factory=dict)
    galleries: Sequence[Gallery]
    runs: Sequence[ScoredRun]


def read_runs(folders: Sequence[Path]) -> list[ScoredRun]:
    """Scored folders, each with a name of its own.

    Raises:
        ConfigError: no folder at all, or the same one twice.
        RunError: one is not scored, or what is there cannot be read.
    """
    if not folders or len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("give the folders of one run or of several, each once")
    plain = [folder.resolve().name for folder in folders]
    names = [n if plain.count(n) == 1 else str(folder) for n, folder in zip(plain, folders, strict=True)]
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def _read(folder: Path, name: str) -> ScoredRun:
    results = read_results(folder)
    if not results.rows:
        raise RunError(f"{folder} has no rows: nothing was scored in it")
    told, audit = (_json(folder / file) for file in (SCORES, AUDIT))
    return ScoredRun(folder=folder, name=name, results=results, told=told or {}, audit=audit)


def _json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = read_json(path)
    except DataError as error:
        raise RunError(str(error)) from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is not a JSON object: score the folder again")
    return content


def sections(runs: Sequence[ScoredRun]) -> list[Section]:
    """A section for each benchmark, in the order in which they come; the first run is what others are held against."""
    names = dict.fromkeys(run.results.benchmark for run in runs)
    return [_section([run for run in runs if run.results.benchmark == name]) for name in names]


def _section(runs: Sequence[ScoredRun]) -> Section:
    name, table = runs[0].results.benchmark, dict[str, Mapping[str, Estimate]]()
    for run in runs:
        table |= {run.first: run.scores(0)} if run.drafts else {}
        table[run.name] = run.scores()
    columns = dict.fromkeys(column for row in table.values() for column in row if column != "overall")
    return Section(
        benchmark=name,
        columns=(*columns, "overall"),
        table=table,
        paper=PAPER.get(name, {}),
        comparisons=list(_comparisons(runs)),
        curves={cost: list(_curves(runs, cost)) for cost in ("image_tokens", "seconds")},
        galleries=list(_galleries(runs)),
        runs=runs,
    )


def _comparisons(runs: Sequence[ScoredRun]) -> Iterator[Comparison]:
    for run in runs:
        if run.drafts:
            moved = differences(sums(run.rows, 0), sums(run.rows, run.pictures - 1))
            yield Comparison(a=run.first, b=run.name, columns=moved)
    for other in runs[1:]:
        moved = differences(sums(runs[0].rows), sums(other.rows))
        if other.over == "prompts":
            moved |= differences(_whole(runs[0]), _whole(other))
        yield Comparison(a=runs[0].name, b=other.name, columns=moved)


def _whole(run: ScoredRun) -> dict[str, dict[str, tuple[float, float]]]:
    """Each prompt's own score as one column."""
    prompts = {id: rows for task in by_prompt(run.rows).values() for id, rows in task.items()}
    return {"overall": {id: (sum(row.score for row in rows), float(len(rows))) for id, rows in prompts.items()}}


def _curves(runs: Sequence[ScoredRun], cost: str) -> Iterator[Series]:
    """Of each run the score after each picture; of one-picture runs the best of n; of drafts the choice by verdict."""
    for group, run in enumerate(runs):
        costs = [float(point[cost]) for point in run.told.get("by_picture", []) if cost in point]
        if costs and run.has("part"):  # parts are no answers: only the end of a thought is
            yield Series(name=run.name, group=group, points=(_point(run, None, costs[-1]),))
        elif costs:
            points = [_point(run, k, costs[k]) for k in range(min(run.pictures, len(costs)))]
            yield Series(name=run.name, group=group, points=tuple(points))
            yield from _choices(run, group, costs[-1])


def _point(run: ScoredRun, picture: int | None, cost: float) -> Point:
    score = run.scores(picture)["overall"]
    return Point(cost=cost, score=score.value, low=score.low, high=score.high)


def _choices(run: ScoredRun, group: int, cost: float) -> Iterator[Series]:
    samples = min(len(own) for task in by_prompt(run.rows).values() for own in task.values())
    several = [n for n in CHOICES if n <= samples]
    if len(several) < 2 or run.over != "tasks":
        return
    if run.has("draft"):
        rounds = int(run.results.made.get("settings", {}).get("rounds", 1))
        own = tuple(Point(cost=n * cost, score=best_by_verdict(run.rows, n, rounds=rounds)) for n in several)
        yield Series(name=f"{run.name}, best of n by own verdict", group=group, kind="choice", points=own)
    else:
        bound = tuple(Point(cost=n * cost, score=best_of(run.rows, n)) for n in several)
        yield Series(name=f"{run.name}, best of n by the judge", group=group, kind="bound", points=bound)


def _galleries(runs: Sequence[ScoredRun]) -> Iterator[Gallery]:
    for run in runs:
        if run.drafts:
            several = [row for row in run.rows if len(row.pictures) > 1]
            pairs = [(row.prompt, _shown(run, run.first, row, 0), _shown(run, run.name, row, -1)) for row in several]
            yield _gallery(run.first, run.name, pairs)
    base = {(row.id, row.sample): row for row in runs[0].rows}
    for other in runs[1:]:
        both = [(base[key], row) for row in other.rows if (key := (row.id, row.sample)) in base]
        pairs = [(b.prompt, _shown(runs[0], runs[0].name, a, -1), _shown(other, other.name, b, -1)) for a, b in both]
        yield _gallery(runs[0].name, other.name, pairs)


def _shown(run: ScoredRun, name: str, row: Result, number: int) -> ShownPicture:
    if not row.pictures:
        return ShownPicture(name=name, file=None, right=False, reasons=row.status)
    picture = row.pictures[number]
    file = run.folder / picture.image if picture.image else None
    return ShownPicture(name=name, file=file, right=picture.score == 1, reasons="; ".join(picture.reasons))


def _gallery(a: str, b: str, pairs: Sequence[tuple[str, ShownPicture, ShownPicture]]) -> Gallery:
    wins = [pair for pair in pairs if not pair[1].right and pair[2].right]
    losses = [pair for pair in pairs if pair[1].right and not pair[2].right]
    return Gallery(a=a, b=b, wins=_spread(wins), losses=_spread(losses), counts=(len(wins), len(losses)))


def _spread(pairs: Sequence[Any]) -> Sequence[Any]:
    """Some of them, from beginning, middle and end, so that every task may be among them."""
    if len(pairs) <= MOST_SHOWN:
        return pairs
    return [pairs[n * len(pairs) // MOST_SHOWN] for n in range(MOST_SHOWN)]


def to_json(parts: Sequence[Section]) -> dict[str, Any]:
    """The report as numbers: the content of `report.json`."""
    return {"version": 1, "benchmarks": {part.benchmark: _section_json(part) for part in parts}}


def _section_json(part: Section) -> dict[str, Any]:
    curves = {f"by_{cost}": [_series(one) for one in series] for cost, series in part.curves.items()}
    return {
        "scores": {name: _estimates(row) for name, row in part.table.items()},
        "marks": {run.name: run.mark for run in part.runs if run.mark},
        "paper": {name: dict(row) for name, row in part.paper.items()},
        "differences": [{"a": c.a, "b": c.b, "columns": _estimates(c.columns)} for c in part.comparisons],
        **curves,
        "wins_and_losses": [{"a": g.a, "b": g.b, "wins": g.counts[0], "losses": g.counts[1]} for g in part.galleries],
        "audits": {run.name: run.audit for run in part.runs if run.audit},
        "judged": {run.name: dict(run.results.judged) for run in part.runs},
        "made": {run.name: dict(run.results.made) for run in part.runs},
    }


def _estimates(row: Mapping[str, Estimate]) -> dict[str, Any]:
    return {column: estimate.to_json() for column, estimate in row.items()}


def _series(series: Series) -> dict[str, Any]:
    return {"name": series.name, "kind": series.kind, "points": [asdict(point) for point in series.points]}
