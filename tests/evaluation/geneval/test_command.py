"""`twgi eval geneval` and `twgi icons sample` as people call them."""

import json
from pathlib import Path

import pytest
from tests.tiny import save_tiny

from twgi.cli import execute

pytestmark = pytest.mark.usefixtures("tiny_world")

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


def test_a_file_of_plain_prompts_is_drawn_and_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "two cats"}\n{"id": "x", "prompt": "a dog"}\n')
    common = ["--model", str(model), "--samples", "1", "--out", f"{tmp_path}/out"]
    assert execute(["eval", f"{tmp_path}/prompts.jsonl", *common]) == 0
    assert "nothing is judged" in capsys.readouterr().out
    assert (tmp_path / "out" / "geneval" / "00001" / "samples" / "00000.png").is_file()
    assert json.loads((tmp_path / "out" / "geneval" / "00001" / "metadata.jsonl").read_text())["id"] == "x"
    assert not (tmp_path / "out" / "scores.json").exists()
    assert execute(["score", "geneval", f"{tmp_path}/out"]) == 2
    assert "no metadata" in capsys.readouterr().err


def test_a_file_of_geneval_lines_is_judged(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text(json.dumps(LINE | {"prompt": "two cats"}) + "\n")
    common = ["--model", str(model), "--samples", "1", "--out", f"{tmp_path}/out"]
    assert execute(["eval", f"{tmp_path}/prompts.jsonl", *common]) == 0
    assert (tmp_path / "out" / "scores.json").is_file()


@pytest.mark.parametrize("line", ['{"prompt": ""}', '{"prompt": "a", "mode": "direct"}', '{"prompt": 3}'])
def test_a_plain_line_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (tmp_path / "prompts.jsonl").write_text(f'{{"prompt": "a cat"}}\n{line}\n')
    assert execute(["eval", f"{tmp_path}/prompts.jsonl", "--out", f"{tmp_path}/out"]) == 2
    assert "prompts.jsonl:2" in capsys.readouterr().err


def test_a_detector_that_fails_its_self_test_stops_the_run_before_it_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("twgi.icons.checker.find_many", lambda pictures: [[] for _ in pictures])
    (tmp_path / "prompts.jsonl").write_text(json.dumps(LINE | {"prompt": "two cats"}) + "\n")
    common = ["eval", "geneval", "--prompts", f"{tmp_path}/prompts.jsonl", "--model", str(save_tiny(tmp_path / "m"))]
    assert execute([*common, "--out", f"{tmp_path}/out"]) == 2
    assert "self-test" in capsys.readouterr().err
    assert not (tmp_path / "out" / "images").exists()
