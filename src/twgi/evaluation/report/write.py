"""A report's files, from the templates beside this module.

The page has no scripts and nothing from elsewhere; every word of a prompt or a file is escaped.
"""

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from twgi.errors import ImageError
from twgi.evaluation.benchmarks import entry_of
from twgi.evaluation.pictures import PictureReader
from twgi.evaluation.report.build import ScoredRun, Section, as_dict
from twgi.evaluation.report.charts import chart
from twgi.files import write_json, write_whole
from twgi.render import printable, template
from twgi.trace import PAGE, png

TEMPLATES = files("twgi.evaluation.report") / "templates"
SHORT = {"single_object": "single", "two_object": "two", "color_attr": "attribute"}
COSTS = {"image_tokens": "image tokens for each prompt", "seconds": "seconds of work for each prompt"}
_LARGEST = 256  # pixels of a picture in the page


def write_report(parts: Sequence[Section], out: Path) -> dict[str, Any]:
    """Write `index.html`, `report.md`, `report.json` and a curve for each cost; returns what `report.json` holds."""
    content = {"version": 1, "benchmarks": {part.benchmark: part.to_json() for part in parts}}
    charts: dict[str, dict[str, bytes]] = {part.benchmark: {} for part in parts}
    for part in parts:
        for cost, words in COSTS.items():
            name, svg = f"{part.benchmark}-{cost}.svg", chart(part.curves[cost], cost=words)
            if svg:
                charts[part.benchmark][name] = svg
                write_whole(out / name, svg)
    write_json(out / "report.json", content)
    write_whole(out / "report.md", rendered("report.md", parts, charts))
    write_whole(out / PAGE, rendered("report.html", parts, charts))
    return content


def rendered(name: str, parts: Sequence[Section], charts: Mapping[str, Mapping[str, bytes]]) -> bytes:
    filters = {
        "plain": plain, "signed": signed, "chance": chance, "moved": moved, "cell": cell, "picture": picture,
        "short": lambda column: SHORT.get(column, column), "title": lambda name: entry_of(name).title, "data": data,
        "facts": lambda run: ", ".join(facts(run)),
    }  # fmt: skip
    page = template(TEMPLATES, name, style="report.css", filters=filters)
    return printable(page.render(parts=parts, charts=charts)).encode()


def plain(value: float) -> str:
    """Three digits after the point, no zero before it."""
    text = f"{value:.3f}"
    return text if abs(value) >= 1 else text.replace("0.", ".", 1)


def signed(value: float) -> str:
    """With its sign, except for nothing at all."""
    text = plain(abs(value))
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def chance(p: float) -> str:
    return "p < .001" if p < 0.001 else f"p = {plain(p)}"


def moved(effect: Any) -> str:
    """A difference, an `Estimate` or its JSON: `+.036 (+.028 to +.045), p < .001`."""
    value, low, high, p = (
        effect[key] if isinstance(effect, Mapping) else getattr(effect, key) for key in ("value", "low", "high", "p")
    )
    return f"{signed(value)} ({signed(low)} to {signed(high)}), {chance(p)}"


def cell(text: str) -> str:
    """Any text as part of a table in Markdown."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def picture(shown: Mapping[str, Any]) -> Any:
    """The picture that was judged, or a note in its place. Where its row has no hash, it must be beside the row."""
    ref = shown["ref"]
    if ref is None:
        return Markup('<div class="none">no picture</div>')
    try:
        digest, image = PictureReader().open(ref)
        here = Path(os.path.realpath(ref.file)).is_relative_to(os.path.realpath(shown["folder"]))
    except (ImageError, ValueError):
        return Markup('<div class="none">unreadable</div>')
    if digest != shown["sha256"] if shown["sha256"] else not here:
        return Markup('<div class="none">not the picture that was judged</div>')
    if max(image.size) > _LARGEST:
        image.thumbnail((_LARGEST, _LARGEST))
    look = "crisp" if max(image.size) < _LARGEST // 2 else ""
    return Markup(f'<img class="{look}" alt="" src="{data(png(image), "png")}">')


def facts(run: ScoredRun) -> Iterator[str]:
    """What a run was made and judged with."""
    made, judged = run.results.made, run.results.judged
    model, settings, versions = (as_dict(made.get(key)) for key in ("model", "settings", "versions"))
    if model:
        yield f"model {model.get('name')} ({str(model.get('sha256'))[:12]})"
    if settings:
        seed, samples = (made.get(key, settings.get(key)) for key in ("seed", "samples"))
        yield f"mode {settings.get('mode')}, seed {seed}, {samples} samples a prompt"
    yield f"{len(run.rows)} thoughts, {fmean(len(row.pictures) for row in run.rows):.2f} pictures each"
    yield from (f"{name} {version}" for name, version in versions.items())
    if judge := as_dict(judged.get("detector") or judged.get("judge")):
        yield f"judged by {judge.get('name')} {judge.get('version')}"
    if questions := as_dict(judged.get("questions")):
        yield f"questions {questions.get('name')} {str(questions.get('sha256'))[:8]}, gating {judged.get('gating')}"
    if judged.get("which") == "first":
        yield "the first picture of each thought counts"
    yield str(run.folder)
