"""A report as one HTML page: no scripts, nothing from elsewhere, every word of a prompt or a file escaped."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from twgi.errors import ImageError
from twgi.evaluation.report.blocks import Block, Cell, Chart, Facts, Heading, Note, Table
from twgi.evaluation.report.build import Gallery, ShownPicture
from twgi.render import html_text
from twgi.tokenizer.image import open_picture
from twgi.trace import png

_LARGEST = 256  # pixels of a picture in the page


def page(sections: Sequence[Sequence[Block]]) -> str:
    """The whole report."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    body = "".join(f"<section>{''.join(map(_block, blocks))}</section>" for blocks in sections)
    return _PAGE.format(policy=policy, style=_STYLE, body=body)


def _block(block: Block) -> str:
    match block:
        case Heading(text=text, level=level):
            return f"<h{level}>{html_text(text)}</h{level}>"
        case Note(texts=texts):
            return "".join(f'<p class="note">{html_text(text)}</p>' for text in texts)
        case Table():
            return _table(block)
        case Chart(name=name, svg=svg):
            return f'<figure class="chart"><img alt="{html_text(name)}" src="{_data("svg+xml", svg)}"></figure>'
        case Facts(facts=facts):
            items = (f"<li><b>{html_text(name)}</b>: {html_text(told)}</li>" for name, told in facts)
            return f"<ul>{''.join(items)}</ul>"
        case Gallery():
            return "".join(_gallery(block))


def _table(table: Table) -> str:
    head = "".join(f"<th>{html_text(text)}</th>" for text in table.head)
    rows = "".join(f"<tr{_look(row[0])}>{_cell(row[0], 'th')}{''.join(map(_cell, row[1:]))}</tr>" for row in table.rows)
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _look(cell: Cell) -> str:
    return f' class="{cell.look}"' if cell.look else ""


def _cell(cell: Cell, tag: str = "td") -> str:
    title = f' title="{html_text(cell.title)}"' if cell.title else ""
    mark = f' <strong class="mark">{html_text(cell.mark)}</strong>' if cell.mark else ""
    small = "".join(f"<small>{html_text(text)}</small>" for text in cell.small)
    return f"<{tag}{_look(cell)}{title}>{html_text(cell.text)}{mark}{small}</{tag}>"


def _gallery(gallery: Gallery) -> Iterator[str]:
    wins, losses = gallery.counts
    yield f"<h2>{html_text(gallery.b)} against {html_text(gallery.a)}: {wins} won, {losses} lost</h2>"
    for title, pairs in (("Won", gallery.wins), ("Lost", gallery.losses)):
        if pairs:
            items = "".join(_pair(prompt, *pictures) for prompt, *pictures in pairs)
            yield f'<h3>{title}</h3><ol class="gallery">{items}</ol>'


def _pair(prompt: str, *pictures: ShownPicture) -> str:
    figures = []
    for picture in pictures:
        said = "right" if picture.right else f"wrong: {picture.reasons or 'not judged'}"
        look = "right" if picture.right else "wrong"
        caption = f'<b>{html_text(picture.name)}</b><span class="{look}">{html_text(said)}</span>'
        figures.append(f"<figure>{_picture(picture.file)}<figcaption>{caption}</figcaption></figure>")
    return f'<li><p class="prompt" dir="auto">{html_text(prompt)}</p><div>{"".join(figures)}</div></li>'


def _picture(file: Path | None) -> str:
    if file is None:
        return '<div class="none">no picture</div>'
    try:
        picture = open_picture(file)
    except ImageError:
        return '<div class="none">unreadable</div>'
    if max(picture.size) > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST))
    look = "crisp" if max(picture.size) < _LARGEST // 2 else ""
    return f'<img class="{look}" alt="" src="{_data("png", png(picture))}">'


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


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
.chart img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
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
