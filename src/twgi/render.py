"""Traces -> one self-contained HTML page: a thought as a readable story, or a gallery of many.

The page has no script and asks nothing of the network: pictures are inside it, and its content security policy allows
only those and its own style sheet. A card of the gallery *is* its story, shown small: opening it (`:target`) unfolds
the rest, so that no picture is in the page twice.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from twgi.trace import Failure, ImageSegment, TextSegment, Trace, png

Record = Trace | Failure

MAX_EMBEDDED = 64 * 2**20  # bytes of pictures in the page; what is beyond is read from its file beside the page
_SMALL = 160  # pictures up to this side are enlarged with hard pixel edges
_CAPTIONS = {"input": "input picture", "subgoal": "subgoal", "draft": "draft", "final": "final picture"}
_ENDS = {"length": "was cut off at its length limit", "cancelled": "was cancelled before its end"}


def page(
    records: Callable[[], Iterator[Record]], count: int, *, folder: str | Path | None = None, title: str | None = None
) -> Iterator[str]:
    """The page of `count` thoughts in pieces. One is told as a story, of many there is a gallery that opens into them.

    `records` is called twice, so that not all of them need be in memory. Pictures are those of the segments, or else
    are read from `folder`, the run folder; one that is in neither is shown as a missing picture. Everything that a user
    or a model wrote is escaped.
    """
    pictures, many = _Pictures(Path(folder) if folder is not None else None), count != 1
    heading = title or (_count(count, "thought") if many else next(records()).prompt)
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    yield _HEAD.format(digest=digest, title=html_text(heading[:120]), style=_STYLE)
    if many:
        top = f'<header class="top"><h1>{html_text(heading)}</h1><p>{html_text(_facts(records()))}</p></header>'
        yield f'<main class="gallery">{top}<ol>'
    else:
        yield '<main class="single">'
    for number, record in enumerate(records()):
        thought = _thought(record, number, count, pictures)
        yield f'<li id="g{number}">{thought}</li>' if many else thought
    yield f"{'</ol>' * many}</main>{_FOOT}"


@dataclass
class _Pictures:
    """Where the bytes of pictures come from, and how many of them are in the page already."""

    folder: Path | None
    embedded: int = 0

    def figure(self, segment: ImageSegment, caption: str, *, final: bool) -> str:
        """An image segment as a figure; a placeholder where it has no picture."""
        content = self._content(segment)
        if content is None:
            why = "an image that was not drawn" if segment.image is None else "the file is missing"
            shown = f'<div class="missing">{why}<br>{len(segment.tokens)} tokens</div>'
        else:
            width, height = _size(content)
            size = f'width="{width}" height="{height}" alt="{html_text(caption)}"'
            crisp = "crisp" if max(width, height) <= _SMALL else "smooth"
            shown = f'<img class="{crisp}" src="{html_text(self._source(segment, content))}" {size}>'
        kind = "final" if final else "step"
        return f'<figure class="{kind}">{shown}<figcaption>{html_text(caption)}</figcaption></figure>'

    def _content(self, segment: ImageSegment) -> bytes | None:
        if segment.picture is not None:
            return png(segment.picture)
        if self.folder is None or segment.image is None:
            return None
        try:
            content = (self.folder / segment.image).read_bytes()
            _size(content)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return None
        return content

    def _source(self, segment: ImageSegment, content: bytes) -> str:
        if segment.image is not None and self.embedded + len(content) > MAX_EMBEDDED:
            return segment.image
        self.embedded += len(content)
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _size(content: bytes) -> tuple[int, int]:
    with Image.open(BytesIO(content), formats=("PNG",)) as picture:
        return picture.size


def _thought(record: Record, number: int, count: int, pictures: _Pictures) -> str:
    if isinstance(record, Failure):
        words = f'<p class="words failed cover" dir="auto">{html_text(record.error)}</p>'
        drawn, given, story = "failed", "", f'<div class="story">{words}</div>'
    else:
        drawn = _count(len(record.images), "picture") if record.images else ""
        given, story = _given(record, pictures), _story(record, pictures)
    sample = f"sample {record.sample}" if record.sample else ""
    kicker = " · ".join(part for part in (record.mode, drawn, sample) if part)
    heading = "h1" if count == 1 else "h2"
    before, after = (f'<a href="#t{n}">{word}</a>' for n, word in ((number - 1, "previous"), (number + 1, "next")))
    bar = f'<nav><a href="#g{number}">all thoughts</a>{before * (number > 0)}{after * (number + 1 < count)}</nav>'
    return (
        f'<article class="thought" id="t{number}">{bar * (count > 1)}'
        f'<header><p class="kicker">{html_text(kicker)}</p>'
        f'<{heading} class="prompt" dir="auto">{html_text(record.prompt)}</{heading}>{given}</header>{story}'
        f"{f'<a class=open href=#t{number}><span>open the whole thought</span></a>' * (count > 1)}</article>"
    )


def _given(trace: Trace, pictures: _Pictures) -> str:
    """The pictures of the prompt, in a row below it."""
    inputs = [segment for segment in trace.segments if isinstance(segment, ImageSegment) and segment.role == "input"]
    figures = "".join(pictures.figure(segment, _CAPTIONS["input"], final=False) for segment in inputs)
    return f'<div class="given">{figures}</div>' if figures else ""


def _story(trace: Trace, pictures: _Pictures) -> str:
    steps, end = "".join(_steps(trace, pictures)), _ENDS.get(trace.finish_reason)
    notes = f'<p class="note">The thought {end}.</p>' if end else ""
    if trace.anomalies:
        items = "".join(f"<li>{html_text(f'{a.kind} at {a.position}: {a.detail}')}</li>" for a in trace.anomalies)
        said = "1 irregularity" if len(trace.anomalies) == 1 else f"{len(trace.anomalies)} irregularities"
        notes += f'<div class="note"><p>{said} in what the model said:</p><ul>{items}</ul></div>'
    return f'<div class="story">{steps}</div>{notes}{_details(trace)}'


def _steps(trace: Trace, pictures: _Pictures) -> Iterator[str]:
    """Each segment as a step; the last image, or else the first words, is what a card shows of the thought."""
    shown = [s for s in trace.segments if (s.text.strip() if isinstance(s, TextSegment) else s.role != "input")]
    cover = trace.images[-1] if trace.images else next(iter(shown), None)
    roles = [segment.role for segment in trace.images]
    seen = Counter[str]()
    for segment in shown:
        mark = " cover" if segment is cover else ""
        if isinstance(segment, TextSegment):
            yield f'<p class="words{mark}" dir="auto">{html_text(segment.text.strip())}</p>'
            continue
        seen[segment.role] += 1
        number = f" {seen[segment.role]}" if roles.count(segment.role) > 1 else ""
        caption = _CAPTIONS[segment.role] + number
        yield f'<div class="seen{mark}">{pictures.figure(segment, caption, final=segment.role == "final")}</div>'


def _details(trace: Trace) -> str:
    shown = {"seed": trace.seed, "sample": trace.sample, "model": trace.model.name, "weights": trace.model.sha256[:16]}
    shown |= {"finish reason": trace.finish_reason, "tokens": len(trace.tokens)}
    rows = [*shown.items(), *_flat(trace.settings), *_flat(trace.timing, "timing")]
    cells = "".join(f"<dt>{html_text(key)}</dt><dd>{html_text(str(value))}</dd>" for key, value in rows)
    return f"<details><summary>settings and seed</summary><dl>{cells}</dl></details>"


def _flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Nested settings as rows: `guidance.final.full` -> its value."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif value not in ({}, None):
        yield name, f"{value:.6g}" if isinstance(value, float) else value


def _facts(records: Iterator[Record]) -> str:
    """Models, modes and failures of a gallery, in a line."""
    models, modes, failed = Counter[str](), Counter[str](), 0
    for record in records:
        modes[record.mode] += 1
        if isinstance(record, Trace):
            models[record.model.name] += 1
        else:
            failed += 1
    return " · ".join([*models, *modes, *([f"{failed} failed"] if failed else [])])


def _count(number: int, one: str) -> str:
    return f"{number} {one}{'s' * (number != 1)}"


def html_text(text: object) -> str:
    """Any text as HTML text or attribute: escaped, and without what cannot stand in a page at all."""
    return escape(str(text).replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode())


_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: 'self' file:; \
style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
"""
_FOOT = """
</body>
</html>
"""

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #fff; --ink: #22201c; --soft: #726d66; --line: #e5e1d8; --accent: #a8522f; --alarm: #8a5600;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", Georgia, "DejaVu Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #171614; --card: #1f1e1b; --ink: #e8e4db; --soft: #9d978d; --line: #33302b; --accent: #e29a76;
    --alarm: #e0b060;
  }
}
* { box-sizing: border-box; margin: 0; }
html { background: var(--paper); color: var(--ink); font: 1rem/1.6 var(--sans); -webkit-text-size-adjust: 100%; }
a { color: inherit; text-decoration: none; }
a:hover { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
nav, .open { display: none; }

/* a thought, told as a story: words on the left, what they led to on the right */
.thought > * { max-width: 46rem; margin-inline: auto; }
.thought:has(.smooth) > * { max-width: 54rem; }
.single .thought, .thought:target { padding: 4rem 1.5rem 6rem; }
.kicker, figcaption, .note, details, nav, .top p { font-size: .8125rem; color: var(--soft); }
.kicker { margin-bottom: .625rem; }
.prompt, .top h1 { font: 400 2rem/1.25 var(--serif); text-wrap: balance; overflow-wrap: anywhere; }
.given { display: flex; flex-wrap: wrap; gap: 1.25rem; margin-top: 1.5rem; }
.words { font: 1.125rem/1.65 var(--serif); white-space: pre-wrap; overflow-wrap: anywhere; max-width: 36rem; }
.story { margin-top: 2.5rem; display: grid; gap: 1.75rem 2.5rem; align-items: start; }
@media (min-width: 52rem) {
  .story:has(figure) { grid-template-columns: minmax(0, 1fr) 384px; }
  .story:has(.smooth) { grid-template-columns: minmax(0, 1fr) 512px; }
  .story:has(figure) .words { grid-column: 1; }
  .seen { grid-column: 2; }
}
figure img, .missing { display: block; width: 256px; max-width: 100%; height: auto; border-radius: 6px; }
.final :is(img, .missing), .step .smooth { width: 384px; }
.final .smooth { width: 512px; }
.given :is(img, .missing) { width: 192px; }
.crisp { image-rendering: pixelated; }
figure img { box-shadow: 0 0 0 1px var(--line); }
.final img { box-shadow: 0 0 0 3px var(--paper), 0 0 0 5px var(--accent); }
figcaption { margin-top: .5rem; }
.final figcaption { margin-top: .75rem; color: var(--accent); }
.missing {
  display: grid; place-content: center; aspect-ratio: 1; padding: 1rem; text-align: center; font-size: .8125rem;
  color: var(--soft); border: 1px dashed var(--soft);
}
.failed, .note { color: var(--alarm); }
.note { margin-top: 2rem; }
.note ul { padding-left: 1.25rem; }
details { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
summary { width: fit-content; cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .125rem 1.5rem; margin-top: .75rem; }
dd { margin: 0; color: var(--ink); font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }

/* many thoughts: each a card, which is its story with only the cover and the prompt shown */
.gallery { --side: 192px; max-width: 76rem; margin: 0 auto; padding: 4rem 1.5rem 6rem; }
.gallery > ol {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(var(--side), 1fr)); gap: 2.25rem 1.75rem;
  margin-top: 2.5rem; padding: 0; list-style: none;
}
.gallery > ol > li { min-height: calc(var(--side) + 5rem); scroll-margin-top: 2rem; }
@media (max-width: 470px) {
  .gallery { --side: 128px; }
  .prompt, .top h1 { font-size: 1.625rem; }
}
.gallery .thought:not(:target) {
  position: relative; display: flex; flex-direction: column; width: var(--side);
  content-visibility: auto; contain-intrinsic-size: var(--side) calc(var(--side) + 5rem);
  & > * { margin-inline: 0; }
  & :is(details, .note, .given, figcaption, .story > :not(.cover)) { display: none; }
  & .story { display: block; order: -1; margin: 0 0 .625rem; }
  & :is(img, .missing) { width: var(--side); aspect-ratio: 1; object-fit: cover; box-shadow: none; }
  & .words {
    width: var(--side); height: var(--side); padding: .875rem; overflow: hidden; font-size: .875rem; line-height: 1.5;
    border-radius: 6px; background: var(--card); box-shadow: inset 0 0 0 1px var(--line);
  }
  & header { display: flex; flex-direction: column-reverse; gap: .125rem; }
  & .kicker { margin: 0; font-size: .75rem; }
  & .prompt {
    display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden;
    font-size: .9375rem; line-height: 1.4; text-wrap: pretty;
  }
  & .open { display: block; position: absolute; inset: 0; border-radius: 6px; }
  &:hover .prompt { color: var(--accent); }
}
.open span { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
html:has(.gallery .thought:target) { overflow: hidden; }
.gallery .thought:target {
  position: fixed; inset: 0; z-index: 1; padding-top: 0; overflow-y: auto; overscroll-behavior: contain;
  background: var(--paper);
  & nav {
    position: sticky; top: 0; z-index: 1; display: flex; gap: 1.5rem; padding: 1rem 0; margin-bottom: 2rem;
    background: var(--paper);
  }
  & nav :first-child { margin-right: auto; }
}
"""
