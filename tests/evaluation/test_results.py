"""Rows of results: what is written is read back, and what is not a row is refused by file and line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twgi.errors import RunError
from twgi.evaluation.results import RESULTS, PictureResult, Result, Results, read_results, write_results

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
