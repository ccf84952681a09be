"""A report holds the numbers of its rows, in tables, curves and pictures, and nothing that a prompt smuggles in."""

import base64
import hashlib
import itertools
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from twgi.cli import execute
from twgi.errors import ConfigError, RunError
from twgi.evaluation.report.build import AUDIT, read_runs, sections
from twgi.evaluation.report.charts import Point, Series, chart
from twgi.evaluation.results import SCORES, PictureResult, Result, Results, write_results

HOSTILE = '<script>alert("x")</script> | <img src=http://e.vil onerror=x>'


def made(mode: str, rounds: int = 1) -> dict[str, Any]:
    settings = {"mode": mode, "seed": 0, "samples": 2, "rounds": rounds}
    return {"model": {"name": HOSTILE, "sha256": "0" * 64}, "settings": settings, "versions": {"twgi": "1"}}


def run(folder: Path, mode: str, scores: list[list[tuple[float, ...]]], **told: Any) -> Path:
    """A scored folder: of each prompt its samples, of each sample the scores of its pictures."""
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "p.png")
    kinds = {"critique": ("draft", "redraw"), "direct": ("direct",)}[mode]
    rows = [
        Result(
            id=f"{p:05d}", sample=s, task="colors", prompt=f"{HOSTILE} {p}", score=each[-1], status="scored",
            detail={"finish_reason": "stop"},
            pictures=tuple(
                PictureResult(image="p.png", kind=kind, score=score, reasons=(HOSTILE,), image_tokens=66)
                for score, kind in zip(each, kinds, strict=False)
            ),
        )
        for p, samples in enumerate(scores)
        for s, each in enumerate(samples)
    ]  # fmt: skip
    judged = {"detector": {"name": "icons", "version": "1"}}
    write_results(folder, Results(benchmark="geneval", rows=rows, made=made(mode), judged=judged))
    most = max(len(each) for samples in scores for each in samples)
    costs = [{"image_tokens": 66.0 * (k + 1), "seconds": 0.5 * (k + 1)} for k in range(most)]
    (folder / SCORES).write_text(json.dumps({"by_picture": costs, **told}))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    direct = run(tmp_path / "direct", "direct", [[(0.0,), (1.0,)], [(0.0,), (0.0,)]], partial="4/6")
    critique = run(tmp_path / "critique", "critique", [[(0.0, 1.0), (1.0,)], [(1.0, 0.0), (0.0, 1.0)]])
    return direct, critique


class Tags(HTMLParser):
    """The tags of a page and where they would look for things."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]


def test_a_report_holds_what_its_rows_say(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert execute(["report", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())["benchmarks"]["geneval"]
    values = {name: row["overall"]["value"] for name, row in report["scores"].items()}
    assert values == {"direct": 0.25, "critique, first picture": 0.5, "critique": 0.75}
    assert report["marks"] == {"direct": "PARTIAL 4/6"}
    differences = {(d["a"], d["b"]): d["columns"]["colors"]["value"] for d in report["differences"]}
    assert differences == {("critique, first picture", "critique"): 0.25, ("direct", "critique"): 0.5}
    assert [(g["b"], g["wins"], g["losses"]) for g in report["wins_and_losses"]] == [
        ("critique", 2, 1),
        ("critique", 2, 0),
    ]
    assert report["paper"]["TwGI critique 7b"]["overall"] == 0.48


def test_curves_hold_pictures_and_choices_at_their_cost(folders: tuple[Path, Path]) -> None:
    (part,) = sections(read_runs(folders))
    by_tokens = part.curves["image_tokens"]
    curves = {series.name: [(point.cost, point.score) for point in series.points] for series in by_tokens}
    assert curves["direct"] == [(66, 0.25)]
    assert curves["direct, best of n by the judge"] == [(66, 0.25), (132, 0.5)]
    assert curves["critique"] == [(66, 0.5), (132, 0.75)]
    assert [cost for cost, _ in curves["critique, best of n by own verdict"]] == [132, 264]
    assert [series.kind for series in by_tokens] == ["pictures", "bound", "pictures", "choice"]
    assert [point.cost for point in part.curves["seconds"][2].points] == [0.5, 1.0]


def test_a_page_holds_its_pictures_and_escapes_every_word(folders: tuple[Path, Path], tmp_path: Path) -> None:
    execute(["report", *map(str, folders), "--out", str(tmp_path / "out")])
    page = (tmp_path / "out" / "index.html").read_text()
    tags = Tags(page)
    assert "script" not in tags.tags
    assert tags.tags.count("img") == 2 * (2 + 1 + 2) + 2
    assert [source.split(";")[0] for source in tags.sources].count("data:image/svg+xml") == 2
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for source in tags.sources)
    assert "PARTIAL 4/6" in page
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page, "the page allows its own style and no other"
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "<script" not in markdown
    assert ".750 (" in markdown


def test_an_audit_is_taken_up(folders: tuple[Path, Path], tmp_path: Path) -> None:
    effect = {"value": -0.25, "low": -0.5, "high": 0.0, "prompts": 12, "p": 0.03}
    audit = {"rates": [{"what": HOSTILE, "share": 0.5, "of": 4}, {"what": "b", "share": None, "of": 0}]}
    (folders[1] / AUDIT).write_text(json.dumps(audit | {"effects": {"blanked": effect}}))
    assert execute(["report", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "| b | – | 0 |" in markdown
    assert "blanked less kept: −.250 (−.500 to .000), p = .030, 12 prompts" in markdown
    assert "script" not in Tags((tmp_path / "out" / "index.html").read_text()).tags
    assert json.loads((tmp_path / "out" / "report.json").read_text())["benchmarks"]["geneval"]["audits"]["critique"]


def test_a_picture_that_is_gone_leaves_a_note(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[1] / "p.png").unlink()
    assert execute(["report", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    assert "unreadable" in (tmp_path / "out" / "index.html").read_text()


def test_a_report_needs_scored_folders_each_once(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_runs([folders[0], folders[0]])
    with pytest.raises(RunError, match="score the folder first"):
        read_runs([tmp_path])
    (tmp_path / "empty").mkdir()
    write_results(tmp_path / "empty", Results(benchmark="geneval", rows=()))
    with pytest.raises(RunError, match="no rows"):
        read_runs([tmp_path / "empty"])


SVG = "{http://www.w3.org/2000/svg}"


def test_a_chart_is_a_picture_of_its_points_and_the_same_each_time() -> None:
    points = tuple(Point(cost=10.0**n, score=0.1 * n, low=0.0, high=1.0) for n in range(1, 5))
    series = [Series(name=f"$x_1$ {HOSTILE}", points=points)]
    drawn = chart(series, cost="tokens")
    assert drawn == chart(series, cost="tokens")
    root = ElementTree.fromstring(drawn)
    words = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert {"tokens", "score", "10", "1,000", f"$x_1$ {HOSTILE}"} <= set(words)
    assert not list(root.iter(f"{SVG}script")) + list(root.iter(f"{SVG}image"))
    (line,) = [group for group in root.iter(f"{SVG}g") if len(list(group.findall(f"{SVG}g/{SVG}use"))) == len(points)]
    places = [(float(dot.attrib["x"]), float(dot.attrib["y"])) for dot in line.iter(f"{SVG}use")]
    steps = [b[0] - a[0] for a, b in itertools.pairwise(places)]
    assert min(steps) > 0
    assert max(steps) - min(steps) < 0.3, "the axis of costs is logarithmic"
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)


def test_a_chart_of_nothing_is_nothing() -> None:
    assert chart([Series(name="a", points=())], cost="tokens") == b""


def test_without_matplotlib_a_report_says_where_its_curves_are(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert execute(["report", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    assert "extra eval" in (tmp_path / "out" / "report.md").read_text()
    assert not list((tmp_path / "out").glob("*.svg"))
