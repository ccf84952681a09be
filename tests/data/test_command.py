"""`twgi data check` as people call it."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.tiny import save_tiny

from twgi.cli import execute


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("model")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two good records, and one too long for 60 tokens."""
    Image.new("RGB", (20, 30), "red").save(tmp_path / "a.png")
    good = {"prompt": "red", "response": "<image>", "images": ["a.png"]}
    lines = [good, {"prompt": "red", "response": "x" * 80}, good]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_check_counts_what_can_be_kept(model: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["data", "check", str(data), "--model", model, "--max-tokens", "60"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{data}:2: too long: ")
    assert said[-1].startswith("2 kept (")
    assert said[-1].endswith("2 images), 1 too long, 0 refused")


def test_check_refuses_with_the_place_and_the_reason(
    model: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with data.open("a") as file:
        file.write('{"prompt": "red", "response": "<image>", "images": ["\\u001b.png"]}\n')
    assert execute(["data", "check", str(data), "--model", model]) == 2
    assert f"{data}:4: {data.parent}/�.png: no such image file" in capsys.readouterr().out
    assert execute(["data", "check", str(data), "--model", model, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["lines"], report["kept"], report["images"], report["too_long"]) == (4, 3, 2, [])
    assert [fault["where"] for fault in report["refused"]] == [f"{data}:4"]
    assert 0 < report["learnt"] < report["tokens"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["absent.jsonl"], "absent.jsonl: cannot be read"),
        (["{data}", "--max-tokens", "0"], "max-tokens"),
        (["{empty}"], "no lines"),
        (["{data}", "--model", "nowhere"], "unknown model"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    data: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    (data.parent / "empty.jsonl").write_text("\n\n")
    given = [part.format(data=data, empty=data.parent / "empty.jsonl") for part in arguments]
    assert execute(["data", "check", *given]) == 2
    complaint = capsys.readouterr().err
    assert problem in complaint
    assert len(complaint.splitlines()) == 1
