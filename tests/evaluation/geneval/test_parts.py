"""Parts of an evaluation, drawn apart, give the records and the results of one run."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import save_tiny

from twgi.cli import execute
from twgi.evaluation.results import RESULTS
from twgi.trace import read_traces

pytestmark = pytest.mark.usefixtures("tiny_world")

NAMES = ("cat", "unicorn", "dog", "cow", "bus", "bird")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    lines = [{"tag": "colors", "include": [{"class": n, "count": 1}], "prompt": f"a {n}"} for n in NAMES]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def command(model: Path, prompts: Path, out: Path, *more: str) -> list[str]:
    common = ["eval", "geneval", "--prompts", str(prompts), "--model", str(model), "--samples", "1", "--batch", "2"]
    return [*common, "--mode", "critique", "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, prompts: Path) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert execute(command(model, prompts, out)) == 0
    return out


def records(folder: Path) -> list[dict[str, Any]]:
    """The thoughts without how long they took, in a fixed order."""
    plain = [{key: value for key, value in t.to_json().items() if key != "timing"} for t in read_traces(folder)]
    return sorted(plain, key=lambda trace: (trace["prompt"], trace["sample"]))


def assert_same(folder: Path, whole: Path) -> None:
    assert records(folder) == records(whole)
    assert (folder / RESULTS).read_text() == (whole / RESULTS).read_text()
    for name in ("images", "geneval"):
        files = {path.relative_to(whole): path.read_bytes() for path in (whole / name).rglob("*.*")}
        assert {path.relative_to(folder): path.read_bytes() for path in (folder / name).rglob("*.*")} == files


def test_merged_shards_give_the_records_of_one_run(
    tmp_path: Path, model: Path, prompts: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for which in (1, 3):
        assert execute(command(model, prompts, tmp_path / "out", "--shard", f"{which}/3")) == 0
    assert execute(["score", "geneval", str(tmp_path / "out")]) == 2
    assert "PARTIAL 3/5" in capsys.readouterr().out
    assert execute(command(model, prompts, tmp_path / "out", "--shard", "2/3")) == 0
    assert execute(["score", "geneval", str(tmp_path / "out")]) == 0
    assert_same(tmp_path / "out", whole)


def test_shards_of_different_runs_do_not_merge(
    tmp_path: Path, model: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(command(model, prompts, tmp_path / "out", "--shard", "1/2", "--limit", "2")) == 0
    assert execute(command(model, prompts, tmp_path / "out", "--shard", "2/2", "--limit", "2", "--seed", "1")) == 0
    assert execute(["score", "geneval", str(tmp_path / "out")]) == 2
    assert "not parts of one run: their seed differ" in capsys.readouterr().err
