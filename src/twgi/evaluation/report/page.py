"""A report as one HTML page: no scripts, nothing from elsewhere, every word of a prompt or a file escaped."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from twgi.errors import ImageError
from twgi.evaluation.report.build import Gallery, Run, Section, Shown
from twgi.evaluation.report.charts import Series, chart
from twgi.evaluation.report.markdown import (
    BOUND_NOTE,
    PAIRED,
    PAPER_NOTE,
    SHORT,
    SURE,
    TITLES,
    audit_effects,
    audit_rows,
    facts,
    plain,
    signed,
)
from twgi.evaluation.report.paper import Row
from twgi.evaluation.report.statistics import Estimate
from twgi.render import html_text
from twgi.tokenizer.image import open_picture
from twgi.trace import png

COSTS = {"image_tokens": "image tokens for each prompt", "seconds": "seconds of work for each prompt"}
_LARGEST = 256  # pixels of a picture in the page


def page(parts: Sequence[Section]) -> str:
    """The whole report."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    body = "".join(piece for part in parts for piece in _section(part))
    return _PAGE.format(policy=policy, style=_STYLE, body=body)


def _section(part: Section) -> Iterator[str]:
    yield f"<section><h1>{html_text(TITLES.get(part.benchmark, part.benchmark))}</h1>"
    yield _table(part)
    yield f'<p class="note">{SURE} {PAPER_NOTE}</p>'
    if part.comparisons:
        yield f'<h2>Differences</h2>{_differences(part)}<p class="note">{PAIRED}</p>'
    if part.by_tokens:
        yield f"<h2>Score against cost</h2>{_figure(part.by_tokens, 'image_tokens')}"
        yield f'{_figure(part.by_seconds, "seconds")}<p class="note">{BOUND_NOTE}</p>'
    for gallery in part.galleries:
        yield from _gallery(gallery)
    yield from (_audit(run) for run in part.runs if run.audit)
    runs = "".join(f"<li><b>{html_text(run.name)}</b>: {html_text(', '.join(facts(run)))}</li>" for run in part.runs)
    yield f"<h2>How it was measured</h2><ul>{runs}</ul></section>"


def _table(part: Section) -> str:
    marks = {run.name: run.mark for run in part.runs}
    rows = [_head("run", part.columns)]
    for name, row in part.table.items():
        mark = marks.get(name.removesuffix(", first picture"))
        label = html_text(name) + (f' <strong class="mark">{html_text(mark)}</strong>' if mark else "")
        rows.append(f"<tr><th>{label}</th>{''.join(_estimate(row.get(column)) for column in part.columns)}</tr>")
    for name, published in part.paper.items():
        cells = "".join(_published(published, column) for column in part.columns)
        rows.append(f'<tr class="paper"><th>paper: {html_text(name)}</th>{cells}</tr>')
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _head(first: str, columns: Sequence[str]) -> str:
    names = "".join(f"<th>{html_text(SHORT.get(column, column))}</th>" for column in columns)
    return f"<tr><th>{first}</th>{names}</tr>"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "<td></td>"
    interval = f"{plain(estimate.low)}–{plain(estimate.high)}"
    return f'<td title="{estimate.prompts} prompts">{plain(estimate.value)}<small>{interval}</small></td>'


def _published(row: Row, column: str) -> str:
    return f"<td>{plain(row[column])}</td>" if column in row else "<td></td>"


def _differences(part: Section) -> str:
    rows = [_head("difference", part.columns)]
    for comparison in part.comparisons:
        cells = "".join(_difference(comparison.columns.get(column)) for column in part.columns)
        rows.append(f"<tr><th>{html_text(comparison.b)} − {html_text(comparison.a)}</th>{cells}</tr>")
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _difference(estimate: Estimate | None) -> str:
    if estimate is None or estimate.p is None:
        return "<td></td>"
    p = "p &lt; .001" if estimate.p < 0.001 else f"p = {plain(estimate.p)}"
    kind = "" if estimate.p >= 0.05 else "up" if estimate.value > 0 else "down"
    interval = f"{signed(estimate.low)} to {signed(estimate.high)}"
    shown = f"{signed(estimate.value)}<small>{interval}</small><small>{p}</small>"
    return f'<td class="{kind}" title="{estimate.prompts} prompts">{shown}</td>'


def _figure(series: Sequence[Series], cost: str) -> str:
    drawn = chart(series, cost=COSTS[cost])
    return f"<figure>{drawn}</figure>" if drawn else ""


def _gallery(gallery: Gallery) -> Iterator[str]:
    wins, losses = gallery.counts
    yield f"<h2>{html_text(gallery.b)} against {html_text(gallery.a)}: {wins} won, {losses} lost</h2>"
    for title, shown in (("Won", gallery.wins), ("Lost", gallery.losses)):
        if shown:
            yield f'<h3>{title}</h3><ol class="gallery">{"".join(map(_shown, shown))}</ol>'


def _shown(shown: Shown) -> str:
    figures = []
    for name, file, right, reasons in shown.pictures:
        image = _picture(file)
        said = "right" if right else f"wrong: {reasons or 'not judged'}"
        caption = f'<b>{html_text(name)}</b><span class="{"right" if right else "wrong"}">{html_text(said)}</span>'
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return f'<li><p class="prompt" dir="auto">{html_text(shown.prompt)}</p><div>{"".join(figures)}</div></li>'


def _picture(file: Path | None) -> str:
    if file is None:
        return '<div class="none">no picture</div>'
    try:
        picture = open_picture(file)
    except ImageError:
        return '<div class="none">unreadable</div>'
    if max(picture.size) > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST))
    kind = "crisp" if max(picture.size) < _LARGEST // 2 else ""
    return f'<img class="{kind}" alt="" src="data:image/png;base64,{base64.b64encode(png(picture)).decode()}">'


def _audit(run: Run) -> str:
    rows = "".join(
        f"<tr><th>{html_text(what)}</th><td>{html_text(share)}</td><td>{html_text(count)}</td></tr>"
        for what, share, count in audit_rows(run)
    )
    head = "<tr><th>what</th><th>share</th><th>of</th></tr>"
    effects = "".join(f'<p class="note">{html_text(line)}</p>' for line in audit_effects(run))
    return f'<h2>Audit of {html_text(run.name)}</h2><div class="wide"><table>{head}{rows}</table></div>{effects}'


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation</title>
<style>{style}</style>
</head>
<body>
<main>{body}</main>
</body>
</html>
"""

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --ink: #22201c; --soft: #726d66; --line: #e5e1d8; --good: #3d6b2a; --bad: #a03030;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #171614; --ink: #e8e4db; --soft: #9d978d; --line: #33302b; --good: #93c47d; --bad: #e58a8a; }
}
* { box-sizing: border-box; margin: 0; }
html { background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 3rem 1.5rem 6rem; }
section + section { margin-top: 5rem; }
h1 { font-size: 1.75rem; margin-bottom: 1.25rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 1rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .75rem; color: var(--soft); }
.note { max-width: 60rem; margin-top: .75rem; font-size: .8125rem; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child { text-align: left; font-weight: 500; }
tr:first-child th { font-weight: 600; color: var(--soft); font-size: .8125rem; }
small { display: block; font-size: .6875rem; color: var(--soft); white-space: nowrap; }
.paper { color: var(--soft); }
.mark { color: var(--bad); }
.up { color: var(--good); }
.down { color: var(--bad); }
figure svg { max-width: 100%; height: auto; }
.gallery { list-style: none; padding: 0; display: grid; gap: 1.5rem 1.25rem; }
.gallery { grid-template-columns: repeat(auto-fill, minmax(16.75rem, 1fr)); }
.gallery .prompt { font-size: .875rem; margin-bottom: .5rem; overflow-wrap: anywhere; }
.gallery div { display: flex; gap: .75rem; }
.gallery figure { width: 8rem; }
.gallery img, .none { display: block; width: 8rem; height: auto; border-radius: 4px; }
.none { aspect-ratio: 1; border: 1px dashed var(--soft); padding: 1rem; font-size: .75rem; color: var(--soft); }
.crisp { image-rendering: pixelated; }
figcaption { font-size: .6875rem; line-height: 1.4; margin-top: .35rem; overflow-wrap: anywhere; }
figcaption b { display: block; font-weight: 500; color: var(--soft); }
.right { color: var(--good); }
.wrong { color: var(--bad); }
ul { padding-left: 1.2rem; font-size: .875rem; overflow-wrap: anywhere; }
"""
