"""A report as Markdown: tables and words. Curves are files beside it."""

from collections.abc import Iterator, Mapping, Sequence

from twgi.evaluation.report.build import Run, Section, mean_pictures
from twgi.evaluation.report.paper import Row
from twgi.evaluation.report.statistics import Estimate

SHORT = {"single_object": "single", "two_object": "two", "color_attr": "attribute"}
TITLES = {"geneval": "GenEval", "dpg": "DPG-Bench"}
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


def markdown(parts: Sequence[Section], *, charts: Mapping[str, str]) -> str:
    """The whole report; `charts` maps a name such as `geneval-image_tokens` to the file of its picture."""
    return "\n".join(line for part in parts for line in _section(part, charts))


def _section(part: Section, charts: Mapping[str, str]) -> Iterator[str]:
    yield f"# {TITLES.get(part.benchmark, part.benchmark)}\n"
    yield from _table(part)
    yield f"\n{SURE}\n\n{PAPER_NOTE}\n"
    if part.comparisons:
        yield "## Differences\n"
        yield from _differences(part)
        yield f"\n{PAIRED}\n"
    if part.by_tokens:
        yield "## Score against cost\n"
        yield from (f"![{name}]({file})\n" for name, file in charts.items() if name.startswith(f"{part.benchmark}-"))
        yield f"{BOUND_NOTE}\n"
    for gallery in part.galleries:
        wins, losses = gallery.counts
        yield f"{gallery.b} against {gallery.a}: {wins} thoughts won, {losses} lost.\n"
    for run in part.runs:
        if run.audit:
            yield from _audit(run)
    yield "## How it was measured\n"
    yield from (f"- **{_cell(run.name)}**: {_cell(', '.join(facts(run)))}" for run in part.runs)
    yield ""


def _table(part: Section) -> Iterator[str]:
    yield "| run | " + " | ".join(SHORT.get(column, column) for column in part.columns) + " |"
    yield "|---|" + "---|" * len(part.columns)
    marks = {run.name: run.mark for run in part.runs}
    for name, row in part.table.items():
        cells = [estimate_text(row.get(column)) for column in part.columns]
        mark = marks.get(name.removesuffix(", first picture"), "")
        yield f"| {_cell(name)}{f' **{mark}**' if mark else ''} | " + " | ".join(cells) + " |"
    for name, published in part.paper.items():
        yield f"| paper: {name} | " + " | ".join(_published(published, column) for column in part.columns) + " |"


def estimate_text(estimate: Estimate | None) -> str:
    """`.943 (.935-.951)`"""
    if estimate is None:
        return ""
    return f"{plain(estimate.value)} ({plain(estimate.low)}–{plain(estimate.high)})"


def plain(value: float) -> str:
    """Three digits after the point, no zero before it."""
    text = f"{value:.3f}"
    return text if abs(value) >= 1 else text.replace("0.", ".", 1)


def difference_text(estimate: Estimate | None) -> str:
    """`+.036 (+.028 to +.045), p < .001`"""
    if estimate is None or estimate.p is None:
        return ""
    p = "p < .001" if estimate.p < 0.001 else f"p = {plain(estimate.p)}"
    return f"{signed(estimate.value)} ({signed(estimate.low)} to {signed(estimate.high)}), {p}"


def signed(value: float) -> str:
    """With its sign, except for nothing at all."""
    text = plain(abs(value))
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def _published(row: Row, column: str) -> str:
    return plain(row[column]) if column in row else ""


def _differences(part: Section) -> Iterator[str]:
    yield "| difference | " + " | ".join(SHORT.get(column, column) for column in part.columns) + " |"
    yield "|---|" + "---|" * len(part.columns)
    for comparison in part.comparisons:
        cells = [difference_text(comparison.columns.get(column)) for column in part.columns]
        yield f"| {_cell(comparison.b)} − {_cell(comparison.a)} | " + " | ".join(cells) + " |"


def _audit(run: Run) -> Iterator[str]:
    yield f"## Audit of {_cell(run.name)}\n"
    yield "| what | share | of |"
    yield "|---|---|---|"
    for name, value, count in audit_rows(run):
        yield f"| {_cell(name)} | {value} | {count} |"
    yield from (f"\n{_cell(line)}" for line in audit_effects(run))
    yield ""


def audit_rows(run: Run) -> Iterator[tuple[str, str, str]]:
    """(what, share, of how many) of an audit."""
    for entry in (run.audit or {}).get("rates", []):
        share = entry.get("share")
        yield str(entry["what"]), "–" if share is None else plain(float(share)), str(entry["of"])


def audit_effects(run: Run) -> Iterator[str]:
    """What changed steps did to the score, in words."""
    for name, effect in (run.audit or {}).get("effects", {}).items():
        estimate = Estimate(**{key: effect[key] for key in ("value", "low", "high", "prompts", "p")})
        yield f"{name} less kept: {difference_text(estimate)}, {estimate.prompts} prompts"


def facts(run: Run) -> Iterator[str]:
    """What a run was made and judged with, in words."""
    made, judged = run.rows[0].made, run.rows[0].judged
    model, settings = made.get("model", {}), made.get("settings", {})
    if model:
        yield f"model {model['name']} ({model['sha256'][:12]})"
    if settings:
        yield f"mode {settings['mode']}, seed {settings['seed']}, {settings['samples']} samples a prompt"
    yield f"{len(run.rows)} thoughts, {mean_pictures(run):.2f} pictures each"
    yield from (f"{name} {version}" for name, version in made.get("versions", {}).items())
    detector = judged.get("detector") or judged.get("judge") or {}
    if isinstance(detector, dict) and detector:
        yield f"judged by {detector.get('name')} {detector.get('version')}"
    if judged.get("which") == "first":
        yield "the first picture of each thought counts"
    yield str(run.folder)


def _cell(text: str) -> str:
    """Any text as part of a table's cell."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
