"""What a report says, in words and tables: blocks that every writer (`page`, `markdown`) renders in its own syntax."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from twgi.evaluation.benchmarks import entry_of
from twgi.evaluation.report.build import Gallery, ScoredRun, Section
from twgi.evaluation.report.charts import chart
from twgi.evaluation.report.statistics import Estimate

Value = TypeVar("Value")
SHORT = {"single_object": "single", "two_object": "two", "color_attr": "attribute"}
COSTS = {"image_tokens": "image tokens for each prompt", "seconds": "seconds of work for each prompt"}
SURE = (
    "Intervals hold 95 % and come from drawing prompts again (4,000 times); where all prompts score the same they are "
    "Wilson's. They tell how far another set of prompts of this kind might move a score, not how far another judge, "
    "seed or setting might."
)
PAIRED = (
    "Differences are per prompt, on the prompts that both have; p is of a test that turns their signs at random "
    "(two-sided, not corrected for the number of tests)."
)
PAPER_NOTE = (
    "Rows of the paper are as printed (Chern et al., 2025), of 7b models on photographs, judged by GenEval's or "
    "DPG-Bench's own scorers. They have no intervals, and scores of another judge, as the icon checker, do not compare "
    "with them."
)
BOUND_NOTE = (
    "Best of n by the judge: the judge of the score also chooses, which is a bound on choosing, not a way of working. "
    "Best of n by own verdict: of n critique thoughts one that its critique let pass. Seconds are work on the machine "
    "of the run, shared out among the thoughts in a batch."
)
NO_CHARTS = "Curves are drawn where matplotlib is installed (extra eval); their points are in report.json."


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A title of level 1 or 2."""

    text: str
    level: int = 2


@dataclass(frozen=True, kw_only=True)
class Note:
    """Paragraphs beside a table or a figure."""

    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: its text, what stands smaller beside it, a mark, and whether it is `up`, `down` or of the `paper`."""

    text: str = ""
    small: tuple[str, ...] = ()
    mark: str = ""
    look: str = ""
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The first cell of a row is its name."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawn chart and the name of its file."""

    name: str
    svg: bytes


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with what is to be said of each."""

    facts: tuple[tuple[str, str], ...]


Block = Heading | Note | Table | Chart | Gallery | Facts


def blocks(part: Section) -> Iterator[Block]:
    """The section of one benchmark."""
    yield Heading(text=entry_of(part.benchmark).title, level=1)
    yield _scores(part)
    yield Note(texts=(SURE, PAPER_NOTE) if part.paper else (SURE,))
    if part.comparisons:
        yield Heading(text="Differences")
        rows = tuple(_row(f"{c.b} − {c.a}", part, c.columns, _difference) for c in part.comparisons)
        yield Table(head=_head("difference", part), rows=rows)
        yield Note(texts=(PAIRED,))
    if part.curves.get("image_tokens"):
        yield Heading(text="Score against cost")
        drawn = {cost: chart(series, cost=COSTS[cost]) for cost, series in part.curves.items()}
        yield from (Chart(name=f"{part.benchmark}-{cost}.svg", svg=svg) for cost, svg in drawn.items() if svg)
        yield Note(texts=(BOUND_NOTE,) if any(drawn.values()) else (NO_CHARTS,))
    yield from part.galleries
    for run in part.runs:
        if run.audit:
            yield from _audit(run.name, run.audit)
    yield Heading(text="How it was measured")
    yield Facts(facts=tuple((run.name, ", ".join(_facts(run))) for run in part.runs))


def _head(first: str, part: Section) -> tuple[str, ...]:
    return (first, *(SHORT.get(column, column) for column in part.columns))


def _scores(part: Section) -> Table:
    marks = {name: run.mark for run in part.runs for name in (run.name, run.first)}
    ours = (_row(name, part, row, _estimate, mark=marks[name]) for name, row in part.table.items())
    paper = (_row(f"paper: {name}", part, row, _published, look="paper") for name, row in part.paper.items())
    return Table(head=_head("run", part), rows=(*ours, *paper))


def _row(
    name: str, part: Section, values: Mapping[str, Value], shown: Callable[[Value], Cell], **looks: Any
) -> tuple[Cell, ...]:
    """The columns of the table, those that have values shown."""
    cells = (shown(values[column]) if column in values else Cell() for column in part.columns)
    return (Cell(text=name, **looks), *cells)


def _published(value: float) -> Cell:
    return Cell(text=plain(value))


def _estimate(estimate: Estimate) -> Cell:
    interval = f"{plain(estimate.low)}–{plain(estimate.high)}"
    return Cell(text=plain(estimate.value), small=(interval,), title=f"{estimate.prompts} prompts")


def _difference(estimate: Estimate) -> Cell:
    if estimate.p is None:
        return Cell()
    look = "" if estimate.p >= 0.05 else "up" if estimate.value > 0 else "down"
    small = (f"{signed(estimate.low)} to {signed(estimate.high)}", _p(estimate.p))
    return Cell(text=signed(estimate.value), small=small, look=look, title=f"{estimate.prompts} prompts")


def _p(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {plain(p)}"


def plain(value: float) -> str:
    """Three digits after the point, no zero before it."""
    text = f"{value:.3f}"
    return text if abs(value) >= 1 else text.replace("0.", ".", 1)


def signed(value: float) -> str:
    """With its sign, except for nothing at all."""
    text = plain(abs(value))
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def in_line(cell: Cell) -> str:
    """A cell as one line: `.943 (.935-.951)`, `+.036 (+.028 to +.045), p < .001`."""
    interval = f" ({cell.small[0]})" if cell.small else ""
    return cell.text + interval + "".join(f", {more}" for more in cell.small[1:])


def _audit(name: str, audit: Mapping[str, Any]) -> Iterator[Block]:
    rates, effects = audit.get("rates", []), audit.get("effects", {})
    yield Heading(text=f"Audit of {name}")
    rows = ((str(r["what"]), "–" if r.get("share") is None else plain(float(r["share"])), str(r["of"])) for r in rates)
    yield Table(head=("what", "share", "of"), rows=tuple(tuple(Cell(text=text) for text in row) for row in rows))
    found = {name: Estimate(**{key: effect[key] for key in KEYS}) for name, effect in effects.items()}
    told = (f"{name} less kept: {in_line(_difference(one))}, {one.prompts} prompts" for name, one in found.items())
    if found:
        yield Note(texts=tuple(told))


KEYS = ("value", "low", "high", "prompts", "p")  # of an estimate in `audit.json`


def _facts(run: ScoredRun) -> Iterator[str]:
    """What a run was made and judged with."""
    made, judged = run.results.made, run.results.judged
    model, settings = made.get("model", {}), made.get("settings", {})
    if model:
        yield f"model {model['name']} ({model['sha256'][:12]})"
    if settings:
        seed, samples = (made.get(key, settings.get(key)) for key in ("seed", "samples"))
        yield f"mode {settings['mode']}, seed {seed}, {samples} samples a prompt"
    yield f"{len(run.rows)} thoughts, {run.mean_pictures:.2f} pictures each"
    yield from (f"{name} {version}" for name, version in made.get("versions", {}).items())
    judge = judged.get("detector") or judged.get("judge") or {}
    if isinstance(judge, dict) and judge:
        yield f"judged by {judge.get('name')} {judge.get('version')}"
    if judged.get("which") == "first":
        yield "the first picture of each thought counts"
    yield str(run.folder)
