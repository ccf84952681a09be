"""`twgi eval geneval` and `twgi icons sample` as people call them."""

import json
from pathlib import Path

import pytest
from tests.tiny import save_tiny

from twgi.cli import execute

LINE = {"tag": "counting", "include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}]}


def test_geneval_prints_the_table_and_writes_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text(json.dumps(LINE | {"prompt": "two cats"}) + "\n")
    command = ["eval", "geneval", "--prompts", f"{tmp_path}/prompts.jsonl", "--model", str(model), "--samples", "2"]
    assert execute([*command, "--out", f"{tmp_path}/out"]) == 0
    assert "counting" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["thoughts"] == 2
    assert execute([*command, "--out", f"{tmp_path}/out"]) == 2  # holds a run already
    assert execute([*command, "--out", f"{tmp_path}/out", "--resume"]) == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--mode", "daydream"], "daydream"),
        (["--limit", "0"], "limit"),
        (["--samples", "0"], "samples"),
    ],
)
def test_a_wrong_option_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    (tmp_path / "prompts.jsonl").write_text(json.dumps(LINE | {"prompt": "two cats"}) + "\n")
    common = ["eval", "geneval", "--prompts", f"{tmp_path}/prompts.jsonl", "--out", f"{tmp_path}/out"]
    assert execute([*common, *options]) == 2
    complaint = capsys.readouterr().err
    assert problem in complaint
    assert len(complaint.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_icons_sample_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["icons", "sample", "--out", f"{tmp_path}/out", "--scenes", "4"]) == 0
    assert "4 of them read right" in capsys.readouterr().out
    assert (tmp_path / "out" / "index.html").is_file()
    assert execute(["icons", "sample", "--out", f"{tmp_path}/out"]) == 2
