"""A report holds the numbers of its rows, in tables, curves and pictures, and nothing that a prompt smuggles in."""

import base64
import hashlib
import itertools
import json
import sys
from dataclasses import replace
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
from twgi.evaluation.report.write import rendered
from twgi.evaluation.results import SCORES, PictureResult, Result, Results, read_results, write_results

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


def rescored(folder: Path, **changes: Any) -> None:
    """The same rows, said to be judged otherwise."""
    found = read_results(folder)
    write_results(folder, replace(found, judged={**found.judged, **changes}))


def renamed(folder: Path, ids: dict[str, str]) -> None:
    """The same rows under other ids, as of a prompts file in another order."""
    found = read_results(folder)
    rows = [replace(row, id=ids[row.id]) for row in reversed(found.rows)]
    write_results(folder, replace(found, rows=rows))


def test_prompts_of_two_runs_are_paired_by_their_words(tmp_path: Path) -> None:
    scores: list[list[tuple[float, ...]]] = [[(0.0,)], [(1.0,)], [(1.0,)]]
    one, other = run(tmp_path / "one", "direct", scores), run(tmp_path / "other", "direct", scores)
    renamed(other, {"00000": "00002", "00001": "00000", "00002": "00001"})
    (part,) = sections(read_runs([one, other]))
    (compared,) = part.comparisons
    assert (compared["columns"]["colors"].value, compared["columns"]["colors"].prompts) == (0.0, 3)
    assert (compared["counts"], compared["note"]) == ((0, 0), "")


def test_prompts_that_are_in_one_run_alone_are_left_out_and_told(tmp_path: Path) -> None:
    one = run(tmp_path / "one", "direct", [[(0.0,)], [(1.0,)], [(1.0,)]])
    other = run(tmp_path / "other", "direct", [[(1.0,)], [(1.0,)]])
    found = read_results(other)
    rows = [replace(row, prompt=row.prompt if row.id == "00000" else "something else") for row in found.rows]
    write_results(other, replace(found, rows=rows))
    assert execute(["report", str(one), str(other), "--out", str(tmp_path / "out")]) == 0
    (told,) = json.loads((tmp_path / "out" / "report.json").read_text())["benchmarks"]["geneval"]["differences"]
    assert (told["columns"]["colors"]["prompts"], told["columns"]["colors"]["value"]) == (1, 1.0)
    assert told["note"] == "1 prompts in both; 2 and 1 in one alone"
    for page in ("report.md", "index.html"):
        assert told["note"] in (tmp_path / "out" / page).read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"detector": {"name": "mask2former", "version": "1"}}, "detector {"),
        ({"judge": {"name": "x", "version": "2"}}, "judge null and {"),
        ({"gating": "none"}, 'gating null and "none"'),
        ({"questions": {"name": "q.csv", "sha256": "ab" * 32}}, "questions None None and q.csv abababab"),
        ({"which": "first"}, "the picture that counts: None and first"),
    ],
)
def test_runs_that_were_judged_otherwise_are_not_compared(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    one, other = (run(tmp_path / name, "direct", [[(0.0,)], [(1.0,)]]) for name in ("one", "other"))
    rescored(other, **changes)
    assert execute(["report", str(one), str(other), "--out", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / "report.json").read_text())["benchmarks"]["geneval"]
    (told,) = content["differences"]
    assert told["columns"] == {}
    assert told["note"].startswith(f"NOT COMPARED, judged otherwise: {said}")
    assert content["wins_and_losses"] == []
    assert "NOT COMPARED" in (tmp_path / "out" / "report.md").read_text()
    assert "won," not in (tmp_path / "out" / "index.html").read_text()


def test_questions_are_told_by_what_they_ask_and_not_by_their_file(tmp_path: Path) -> None:
    one, other = (run(tmp_path / name, "direct", [[(0.0,)], [(1.0,)]]) for name in ("one", "other"))
    rescored(one, questions={"name": "a.csv", "sha256": "1", "content": "same"})
    rescored(other, questions={"name": "b.csv", "sha256": "2", "content": "same"})
    (part,) = sections(read_runs([one, other]))
    assert part.comparisons[0]["columns"]


def test_only_the_picture_that_was_judged_is_shown(folders: tuple[Path, Path], tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8), "blue").save(secret)
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    for image, sha256, shown in (
        ("../secret.png", None, False), ("../secret.png", "0" * 64, False), ("../secret.png", digest, True),
        (str(secret), None, False), ("p.png", "0" * 64, False), ("/dev/zero", None, False), ("a\0b", None, False),
    ):  # fmt: skip
        found = read_results(folders[1])
        pictures = [tuple(replace(p, image=image, sha256=sha256) for p in row.pictures) for row in found.rows]
        rows = [replace(row, pictures=own) for row, own in zip(found.rows, pictures, strict=True)]
        write_results(folders[1], replace(found, rows=rows))
        page = rendered("report.html", sections(read_runs([folders[1]])), {"geneval": {}}).decode()
        assert ("<img class=" in page) is shown, image


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
