"""Scored folders -> what a report says, as numbers: scores with intervals, paired tests, curves, wins and losses."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from twgi.errors import ConfigError, DataError, RunError
from twgi.evaluation.benchmarks import entry_of
from twgi.evaluation.pictures import GRID, PictureRef, matched
from twgi.evaluation.report.charts import Point, Series
from twgi.evaluation.report.paper import PAPER
from twgi.evaluation.report.statistics import Estimate, best_by_verdict, best_of, by_prompt, differences, scores, sums
from twgi.evaluation.results import SCORES, Result, Results, read_results
from twgi.files import read_json, short
from twgi.thinking.modes import KINDS

AUDIT = "audit.json"
MOST_SHOWN = 8  # wins, and as many losses, of a pair
COSTS = ("image_tokens", "seconds")
MOVED = ("value", "low", "high", "p")  # what an audit says of an effect
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

    def has(self, what: Literal["draft", "part"]) -> bool:
        """Whether some picture is a draft, or a part."""
        kinds = {picture.kind for row in self.rows for picture in row.pictures}
        return any(getattr(KINDS[kind], what) for kind in kinds if kind in KINDS)

    @cached_property
    def drafts(self) -> bool:
        """Whether first pictures are drafts of the final ones, so that the two can be compared."""
        return self.pictures > 1 and self.has("draft")

    @property
    def first(self) -> str:
        return f"{self.name}, first picture"

    @property
    def mark(self) -> str:
        """What must stand beside its scores."""
        marks = ("partial", "subset", "unknown")
        return ", ".join(f"{word.upper()} {self.told[word]}" for word in marks if self.told.get(word))

    def scores(self, picture: int | None = None) -> dict[str, Estimate]:
        """Every column with its interval: of the pictures that count, or of the k-th ones."""
        return scores(self.rows, picture, over=self.over)


def read_runs(folders: Sequence[Path]) -> list[ScoredRun]:
    """Scored folders, each with a name of its own. Raises `ConfigError`: one twice, `RunError`: not scored."""
    if not folders or len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("give the folders of one run or of several, each once")
    plain = [folder.resolve().name for folder in folders]
    runs = []
    for folder in folders:
        results, name = read_results(folder), folder.resolve().name
        if not results.rows:
            raise RunError(f"{folder} has no rows: nothing was scored in it")
        told, audit = (_json(folder / file) for file in (SCORES, AUDIT))
        if audit is not None and not _is_audit(audit):
            raise RunError(f"{folder / AUDIT} is no audit: make it again with twgi audit")
        if told and not all(_is_point(point) for point in _listed(told.get("by_picture", []))):
            raise RunError(f"{folder / SCORES}: by_picture holds no costs of pictures: score the folder again")
        name = name if plain.count(name) == 1 else str(folder)
        runs.append(ScoredRun(folder=folder, name=name, results=results, told=told or {}, audit=audit))
    return runs


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path) if path.exists() else None
    except DataError as error:
        raise RunError(str(error)) from None
    if content is not None and not isinstance(content, dict):
        raise RunError(f"{path} is not a JSON object: score the folder again")
    return content


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_point(point: Any) -> bool:
    return isinstance(point, dict) and all(_number(point[cost]) for cost in COSTS if cost in point)


def _is_audit(audit: Mapping[str, Any]) -> bool:
    rates, effects = audit.get("rates"), audit.get("effects")
    if not isinstance(rates, list) or not isinstance(effects, dict):
        return False
    entries = [(one, ("of",)) for one in rates] + [(one, (*MOVED, "prompts")) for one in effects.values()]
    numbers = (isinstance(one, dict) and all(_number(one.get(key)) for key in keys) for one, keys in entries)
    return all(numbers) and all(rate.get("share") is None or _number(rate["share"]) for rate in rates)


Pair = tuple[str, dict[str, Any], dict[str, Any]]
"""A prompt, and two pictures of it: name of the side, the picture, its hash, whether it is right, what is wrong."""


class Section:
    """All that a report says of one benchmark; the first run is what the others are held against."""

    def __init__(self, runs: Sequence[ScoredRun]) -> None:
        self.runs, self.benchmark = runs, runs[0].results.benchmark
        self.paper = PAPER.get(self.benchmark, {})

    @cached_property
    def table(self) -> dict[str, dict[str, Estimate]]:
        """Run, or its first pictures -> column -> score."""
        rows = dict[str, dict[str, Estimate]]()
        for run in self.runs:
            rows |= {run.first: run.scores(0)} if run.drafts else {}
            rows[run.name] = run.scores()
        return rows

    @property
    def marks(self) -> dict[str, str]:
        return {name: run.mark for run in self.runs for name in (run.name, run.first)}

    @property
    def columns(self) -> tuple[str, ...]:
        """In the order in which they come, the overall score last."""
        return (*dict.fromkeys(c for row in self.table.values() for c in row if c != "overall"), "overall")

    @cached_property
    def comparisons(self) -> list[dict[str, Any]]:
        """Final pictures against drafts, and every run against the first: `columns` of b minus a, and b's wins.

        Prompts are the same where their words are. A `note` says what is not in both, or why nothing is compared.
        """
        found, base = [], self.runs[0]
        for run in self.runs:
            if run.drafts:
                moved = differences(sums(run.rows, 0), sums(run.rows, run.pictures - 1))
                both = [(row, row) for row in run.rows if len(row.pictures) > 1]
                found.append(_compared((run, run.first, 0), (run, run.name, -1), both) | {"columns": moved})
        for other in self.runs[1:]:
            sides = (base, base.name, -1), (other, other.name, -1)
            if otherwise := _judged_otherwise(base.results.judged, other.results.judged):
                note = f"NOT COMPARED, judged otherwise: {'; '.join(otherwise)}"
                found.append(_compared(*sides, [], note=note) | {"columns": {}})
                continue
            names = matched(_prompts(other.rows), _prompts(base.rows))
            theirs = [replace(row, id=names[row.id]) for row in other.rows if row.id in names]
            moved = differences(sums(base.rows), sums(theirs))
            moved |= differences(_whole(base.rows), _whole(theirs)) if other.over == "prompts" else {}
            there = {(row.id, row.sample): row for row in base.rows}
            both = [(there[key], row) for row in theirs if (key := (row.id, row.sample)) in there]
            lone = [len(_prompts(run.rows)) - len(names) for run in (base, other)]
            note = f"{len(names)} prompts in both; {lone[0]} and {lone[1]} in one alone" if any(lone) else ""
            found.append(_compared(*sides, both, note=note) | {"columns": moved})
        return found

    @cached_property
    def curves(self) -> dict[str, list[Series]]:
        """Of each cost the score after each picture, and of choices among samples."""
        return {cost: list(_curves(self.runs, cost)) for cost in COSTS}

    def to_json(self) -> dict[str, Any]:
        return {
            "scores": {name: _estimates(row) for name, row in self.table.items()},
            "marks": {run.name: run.mark for run in self.runs if run.mark},
            "paper": {name: dict(row) for name, row in self.paper.items()},
            "differences": [
                {"a": one["a"], "b": one["b"], "note": one["note"], "columns": _estimates(one["columns"])}
                for one in self.comparisons
            ],
            **{f"by_{cost}": [one.to_json() for one in series] for cost, series in self.curves.items()},
            "wins_and_losses": [
                {"a": one["a"], "b": one["b"], "wins": one["counts"][0], "losses": one["counts"][1]}
                for one in self.comparisons
                if one["columns"]
            ],
            "audits": {run.name: run.audit for run in self.runs if run.audit},
            "judged": {run.name: dict(run.results.judged) for run in self.runs},
            "made": {run.name: dict(run.results.made) for run in self.runs},
        }


def sections(runs: Sequence[ScoredRun]) -> list[Section]:
    """A section for each benchmark, in the order in which they come."""
    names = dict.fromkeys(run.results.benchmark for run in runs)
    return [Section([run for run in runs if run.results.benchmark == name]) for name in names]


def _estimates(row: Mapping[str, Estimate]) -> dict[str, Any]:
    return {column: estimate.to_json() for column, estimate in row.items()}


def _prompts(rows: Sequence[Result]) -> dict[str, str]:
    """Id -> what makes a prompt that prompt: its task and words; nothing where there are no words."""
    return {row.id: f"{row.task}: {row.prompt}" if row.prompt.strip() else "" for row in rows}


def _judged_otherwise(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """In what two judgings differ that makes their scores two things."""
    differ = [
        f"{what} {short(ours)} and {short(theirs)}"
        for what in ("judge", "detector", "colors", "rules", "gating")
        if (ours := a.get(what)) != (theirs := b.get(what))
    ]
    asked = [as_dict(side.get("questions")) for side in (a, b)]
    key = "content" if all("content" in one for one in asked) else "sha256"
    if asked[0].get(key) != asked[1].get(key):
        differ.append("questions " + " and ".join(f"{one.get('name')} {str(one.get(key))[:8]}" for one in asked))
    if (a.get("which") == "first") != (b.get("which") == "first"):
        differ.append(f"the picture that counts: {a.get('which')} and {b.get('which')}")
    return differ


def as_dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(rows: Sequence[Result]) -> dict[str, dict[str, tuple[float, float]]]:
    """Each prompt's own score as one column."""
    prompts = {id: rows for task in by_prompt(rows).values() for id, rows in task.items()}
    return {"overall": {id: (sum(row.score for row in rows), float(len(rows))) for id, rows in prompts.items()}}


def _curves(runs: Sequence[ScoredRun], cost: str) -> Iterator[Series]:
    for group, run in enumerate(runs):
        costs = [float(point[cost]) for point in _listed(run.told.get("by_picture", [])) if cost in point]
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
    """The best of n samples: where there are drafts by the thoughts' own verdict, else by the judge."""
    samples = min(len(own) for task in by_prompt(run.rows).values() for own in task.values())
    several = [n for n in CHOICES if n <= samples]
    if len(several) < 2 or run.over != "tasks":
        return
    if run.has("draft"):
        rounds = as_dict(run.results.made.get("settings")).get("rounds", 1)
        rounds = rounds if isinstance(rounds, int) else 1
        own = tuple(Point(cost=n * cost, score=best_by_verdict(run.rows, n, rounds=rounds)) for n in several)
        yield Series(name=f"{run.name}, best of n by own verdict", group=group, kind="choice", points=own)
    else:
        bound = tuple(Point(cost=n * cost, score=best_of(run.rows, n)) for n in several)
        yield Series(name=f"{run.name}, best of n by the judge", group=group, kind="bound", points=bound)


Side = tuple[ScoredRun, str, int]
"""A run, what its pictures are called, and the number of the picture."""


def _compared(a: Side, b: Side, both: Sequence[tuple[Result, Result]], *, note: str = "") -> dict[str, Any]:
    pairs = [(y.prompt, _shown(a, x), _shown(b, y)) for x, y in both]
    wins = [pair for pair in pairs if not pair[1]["right"] and pair[2]["right"]]
    losses = [pair for pair in pairs if pair[1]["right"] and not pair[2]["right"]]
    counts = len(wins), len(losses)
    return {"a": a[1], "b": b[1], "wins": _spread(wins), "losses": _spread(losses), "counts": counts, "note": note}


def _shown(side: Side, row: Result) -> dict[str, Any]:
    run, name, number = side
    if not row.pictures:
        return {"name": name, "ref": None, "right": False, "reasons": row.status}
    picture, crop = row.pictures[number], row.detail.get("crop")
    ref = None
    if picture.image:
        ref = PictureRef(file=run.folder / picture.image, crop=crop if crop in range(GRID) else None)
    told = {"sha256": picture.sha256, "folder": run.folder}
    return {"name": name, "ref": ref, "right": picture.score == 1, "reasons": "; ".join(picture.reasons), **told}


def _spread(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """Some of them, from beginning, middle and end, so that every task may be among them."""
    return pairs if len(pairs) <= MOST_SHOWN else [pairs[n * len(pairs) // MOST_SHOWN] for n in range(MOST_SHOWN)]
