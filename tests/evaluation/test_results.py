"""Rows of results: what is written is read back, and what is not a row is refused by file and line."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twgi.errors import RunError
from twgi.evaluation.report.build import AUDIT, read_runs, sections
from twgi.evaluation.report.write import rendered
from twgi.evaluation.results import RESULTS, SCORES, PictureResult, Result, Results, read_results, write_results
from twgi.files import to_line

pictures = st.builds(
    PictureResult,
    image=st.none() | st.text(max_size=8),
    score=st.none() | st.floats(0, 1),
    reasons=st.lists(st.text(max_size=8), max_size=2).map(tuple),
    image_tokens=st.integers(0, 2000),
)
results = st.builds(
    Result,
    id=st.text(max_size=8),
    sample=st.integers(0, 8),
    task=st.text(max_size=8),
    prompt=st.text(max_size=20),
    score=st.floats(0, 1),
    status=st.sampled_from(["scored", "failed", "no picture", "unreadable"]),
    pictures=st.lists(pictures, max_size=3).map(tuple),
    parts=st.dictionaries(st.text(max_size=4), st.tuples(st.floats(0, 9), st.floats(1, 9)), max_size=2),
    detail=st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def row(**changes: object) -> Result:
    fields = {"id": "00000", "sample": 0, "task": "t", "prompt": "p", "score": 1.0}
    return Result(**{**fields, "status": "scored", **changes})  # type: ignore[arg-type]


def written(folder: Path, *rows: Result) -> Results:
    found = Results(benchmark="geneval", rows=list(rows), made={"model": "m"}, judged={"which": "each"})
    write_results(folder, found)
    return found


@settings(max_examples=30)
@given(st.lists(results, max_size=4))
def test_results_survive_their_file(tmp_path_factory: pytest.TempPathFactory, rows: list[Result]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    assert written(folder, *rows) == read_results(folder)


def test_a_thought_that_ended_earlier_keeps_its_last_picture() -> None:
    two = row(pictures=(PictureResult(score=0.0), PictureResult(score=1.0)))
    assert [two.score_of(number) for number in range(3)] == [0.0, 1.0, 1.0]
    assert row(status="failed", score=0.0).score_of(0) == 0.0


@pytest.mark.parametrize("changes", [{"status": "fine"}, {"score": 1.5}, {"score": float("nan")}])
def test_a_row_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RunError):
        row(**changes)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"version": 3}', '{"id": "a", "pictures": [], "parts": {}}'])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    written(tmp_path, row())
    with (tmp_path / RESULTS).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"results.jsonl:3"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "head", ['{"version": 3}', '{"version": 2}', '{"version": 1, "benchmark": "", "made": {}, "judged": {}}']
)
def test_results_of_another_version_are_refused(tmp_path: Path, head: str) -> None:
    (tmp_path / RESULTS).write_text(head + "\n")
    with pytest.raises(RunError, match=r"results.jsonl:1"):
        read_results(tmp_path)


def test_a_folder_without_rows_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="score the folder first"):
        read_results(tmp_path)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats(-9, 1e300) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
GOOD = asdict(row(pictures=(PictureResult(image="p.png", score=1.0, reasons=("x",)),), parts={"a": (1.0, 2.0)}))


def changed(value: Any, place: list[Any], other: Any) -> Any:
    """The value with something else at this place."""
    if not place:
        return other
    inner = changed(value[place[0]], place[1:], other)
    if isinstance(value, dict):
        return {**value, place[0]: inner}
    return [inner if number == place[0] else one for number, one in enumerate(value)]


PLACES: list[list[Any]] = [[key] for key in GOOD] + [["pictures", 0, key] for key in GOOD["pictures"][0]]
PLACES += [["pictures", 0]]
PLACES += [["pictures", 0, "reasons", 0], ["parts", "a"], ["parts", "a", 1]]


def reported(*folders: Path) -> str | None:
    """What is wrong with scored folders; None where a report of them can be written."""
    try:
        (part,) = sections(read_runs(folders))
    except RunError as error:
        return str(error)
    for name in ("report.md", "report.html"):
        assert rendered(name, [part], {"geneval": {}})
    assert to_line(part.to_json())
    return None


@settings(max_examples=60)
@given(st.sampled_from(PLACES), ANY)
def test_a_row_of_any_kind_is_read_or_named_and_what_is_read_can_be_reported(
    tmp_path_factory: pytest.TempPathFactory, place: list[Any], value: Any
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    written(folder, row(id="other"))
    with (folder / RESULTS).open("a") as file:
        file.write(json.dumps(changed(json.loads(json.dumps(GOOD)), place, value)) + "\n")
    assert f"{RESULTS}:3" in (reported(folder) or f"{RESULTS}:3")


@settings(max_examples=15)
@given(
    st.sampled_from(["model", "settings", "versions", "judge", "detector", "questions", "which", "gating"]), ANY, ANY
)
def test_whatever_the_head_says_of_makers_and_judges_can_be_reported(
    tmp_path_factory: pytest.TempPathFactory, key: str, one: Any, other: Any
) -> None:
    runs = [tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")]
    for folder, value in zip(runs, (one, other), strict=True):
        write_results(folder, Results(benchmark="geneval", rows=[row()], made={key: value}, judged={key: value}))
    assert reported(*runs) is None


@settings(max_examples=30)
@given(st.sampled_from([SCORES, AUDIT]), st.sampled_from(["by_picture", "partial", "unknown", "rates", "effects"]), ANY)
def test_scores_and_audits_of_any_kind_are_reported_or_named(
    tmp_path_factory: pytest.TempPathFactory, file: str, key: str, value: Any
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    written(folder, row())
    effect = {"value": 0.1, "low": 0.0, "high": 0.2, "p": 0.5, "prompts": 3}
    audit = {"rates": [{"what": "x", "share": None, "of": 0}], "effects": {"blanked": effect}}
    (folder / file).write_text(json.dumps((audit if file == AUDIT else {}) | {key: value}))
    assert file in (reported(folder) or file)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{", '{"by_picture": NaN}', "9" * 5000])
def test_scores_that_cannot_be_read_are_named(tmp_path: Path, content: str) -> None:
    written(tmp_path, row())
    (tmp_path / SCORES).write_text(content)
    with pytest.raises(RunError, match=SCORES):
        read_runs([tmp_path])
