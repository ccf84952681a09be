"""The page shows everything, runs nothing, and asks nobody."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from twgi import render
from twgi.render import Record
from twgi.trace import Anomaly, Failure, ImageSegment, ModelId, TextSegment, Trace

HOSTILE = """<img src=x onerror=alert(1)> "><script>alert('2')</script> </style></title> &amp; 'x' {brace} \0 \ud800"""
COLORS = ["red", "green", "blue"]
THOUGHT = Trace(
    prompt="a red couch and a blue horse",
    mode="subgoal",
    seed=11,
    model=ModelId(name="icons", sha256="ab" * 32),
    settings={"guidance": {"final": {"full": 2.5}}, "empty": {}},
    finish_reason="stop",
    segments=(
        TextSegment(text="First the couch."),
        ImageSegment(tokens=(1, 2), role="subgoal", picture=Image.new("RGB", (8, 8), "red")),
        TextSegment(text="Then the horse."),
        ImageSegment(tokens=(1, 2), role="subgoal", picture=Image.new("RGB", (8, 8), "green")),
        TextSegment(text="  "),
        ImageSegment(tokens=(1, 2), role="final", picture=Image.new("RGB", (8, 8), "blue")),
    ),
)
FAILED = Failure(prompt="a <image>", mode="direct", error="1 mark but 0 pictures")


def render_page(records: Sequence[Record], *, folder: Path | None = None, title: str | None = None) -> str:
    return "".join(render.page(lambda: iter(records), len(records), folder=folder, title=title))


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.elements if name == tag)

    def colors(self) -> list[tuple[int, ...]]:
        """The colour of every embedded picture, in order."""
        data = (str(image["src"]).removeprefix("data:image/png;base64,") for image in self.all("img"))
        pictures = (Image.open(BytesIO(base64.b64decode(content))).convert("RGB") for content in data)
        return [tuple(picture.tobytes()[:3]) for picture in pictures]


def test_a_thought_is_told_in_order() -> None:
    page = render_page([THOUGHT])
    story = ["a red couch", "First the couch.", "subgoal 1", "Then the horse.", "subgoal 2", "final picture", "seed"]
    places = [page.index(f">{words}") for words in story]
    assert places == sorted(places)
    assert Page(page).colors() == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]


def test_only_the_final_picture_is_marked_as_final() -> None:
    assert [figure["class"] for figure in Page(render_page([THOUGHT])).all("figure")] == ["step", "step", "final"]


def test_settings_and_seed_are_there() -> None:
    words = Page(render_page([replace(THOUGHT, timing={"seconds": 1.23456789})])).words
    for fact in ("seed11", "guidance.final.full2.5", "modelicons", "timing.seconds1.23457"):
        assert fact in words
    assert "empty" not in words


def test_many_thoughts_are_a_gallery_with_every_picture_once() -> None:
    page = Page(render_page([THOUGHT, FAILED, replace(THOUGHT, sample=1)]))
    assert len(page.colors()) == 6
    assert "3 thoughts" in page.words
    assert "sample 1" in page.words
    covers = [a for a in page.elements if "cover" in str(a[1].get("class")).split()]
    assert len(covers) == 3


def test_every_link_leads_somewhere_in_the_page() -> None:
    page = Page(render_page([THOUGHT] * 4))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {str(link["href"]).removeprefix("#") for link in page.all("a")} <= ids


def test_a_failed_prompt_appears_with_its_error() -> None:
    cases: list[list[Record]] = [[FAILED], [THOUGHT, FAILED]]
    for records in cases:
        words = Page(render_page(records)).words
        assert "1 mark but 0 pictures" in words
        assert "direct · failed" in words


def test_anomalies_and_an_early_end_are_shown() -> None:
    anomaly = Anomaly(position=41, kind="short_image", detail="3 of 4")
    cut = ImageSegment(tokens=(1, 2, 3))
    words = Page(render_page([replace(THOUGHT, anomalies=(anomaly,), segments=(cut,), finish_reason="length")])).words
    assert "short_image at 41: 3 of 4" in words
    assert "not drawn3 tokens" in words
    assert "length limit" in words


def hostile_trace(text: str) -> Trace:
    return replace(
        THOUGHT,
        prompt=text,
        mode=text,
        model=ModelId(name=text, sha256=text),
        settings={text: {text: text}},
        segments=(TextSegment(text=text), ImageSegment(tokens=(1,))),
        anomalies=(Anomaly(position=0, kind=text, detail=text),),
        timing={text: text},
    )


@settings(max_examples=30)
@given(st.just(HOSTILE) | st.text())
def test_what_was_written_is_only_ever_text(text: str) -> None:
    failure = Failure(prompt=text, mode=text, error=text)
    cases: list[list[Record]] = [[hostile_trace(text)], [failure], [hostile_trace(text), failure]]
    for records in cases:
        page = render_page(records)
        page.encode()
        plain = render_page([hostile_trace("x") if isinstance(r, Trace) else FAILED for r in records])
        known = {tag for tag, _ in Page(plain).elements} | {"p"}  # words that are blank have no paragraph
        assert {tag for tag, _ in Page(page).elements} <= known
        assert not any(name.startswith("on") or name == "style" for _, attrs in Page(page).elements for name in attrs)


def test_hostile_text_is_shown_as_it_was_written() -> None:
    shown = "".join(Page(render_page([hostile_trace(HOSTILE)])).words.split())
    assert "".join(["<img", "src=x", "onerror=alert(1)>", "\"><script>alert('2')</script>", "</style>"]) in shown


def test_the_page_asks_nobody_and_runs_nothing() -> None:
    text = render_page([THOUGHT, FAILED])
    page = Page(text)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; img-src data: 'self' file:; style-src 'sha256-")
    assert not list(page.all("script")) + list(page.all("link")) + list(page.all("iframe"))
    assert not re.search(r"https?:|url\(|@import", text)


def test_pictures_come_from_the_run_folder_and_one_that_is_gone_is_told(tmp_path: Path) -> None:
    THOUGHT.save(tmp_path)
    stored = replace(THOUGHT, segments=THOUGHT.filed("00000-0").segments)
    bare = Trace.from_json(stored.to_json())
    (tmp_path / "images" / "00000-0-1.png").unlink()
    page = Page(render_page([bare], folder=tmp_path))
    assert page.colors() == [(255, 0, 0), (0, 0, 255)]
    assert "the file is missing" in page.words


def test_beyond_its_measure_the_page_reads_pictures_from_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "MAX_EMBEDDED", 100)
    page = Page(render_page([THOUGHT.filed("x")]))
    sources = [str(image["src"])[:12] for image in page.all("img")]
    assert sources == ["data:image/p", "images/x-1.p", "images/x-2.p"]


def test_large_pictures_are_smooth_and_small_ones_crisp() -> None:
    for side, kind in ((64, "crisp"), (512, "smooth")):
        segment = ImageSegment(role="final", picture=Image.new("RGB", (side, side)))
        assert next(Page(render_page([replace(THOUGHT, segments=(segment,))])).all("img"))["class"] == kind


def test_nothing_at_all_is_still_a_page() -> None:
    assert "0 thoughts" in Page(render_page([])).words
