"""`twgi data check`, `twgi encode` and `twgi decode` as people call them."""

import json
from pathlib import Path
from typing import Any

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
        (["absent.jsonl"], "cannot read absent.jsonl"),
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


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_encode_writes_what_can_be_kept_and_decode_reads_it_back(
    model: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoded, folder = data.parent / "rows.jsonl", data.parent / "out"
    assert execute(["encode", str(data), "--model", model, "--max-tokens", "60", "--out", str(encoded)]) == 0
    assert f"{data}:2: too long" in capsys.readouterr().out
    assert [row["source"] for row in rows(encoded)] == [f"{data}:1", f"{data}:3"]
    assert execute(["data", "check", str(encoded), "--model", model]) == 0
    assert execute(["decode", str(encoded), "--model", model, "--out", str(folder)]) == 0
    assert capsys.readouterr().out.endswith(f"0 refused\npage: {folder}/index.html\n")
    assert [line["prompt"] for line in rows(folder / "decoded.jsonl")] == ["red", "red"]
    assert (folder / "images" / "00001-0.png").is_file()
    assert "img class" in (folder / "index.html").read_text()


def test_encode_writes_the_published_format(model: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with data.open("a") as file:
        file.write(json.dumps({"turns": [{"prompt": "red", "response": "ab"}] * 2}) + "\n")
    out = data.parent / "rows.jsonl"
    command = ["encode", str(data), "--model", model, "--format", "reference", "--out", str(out), "--json"]
    assert execute(command) == 2
    (fault,) = json.loads(capsys.readouterr().out)["refused"]
    assert fault["where"] == f"{data}:4"
    assert "the published format holds one turn" in fault["reason"]
    assert [list(row) for row in rows(out)] == [["prompt", "response", "images", "tokens"]] * 3
    assert execute(["data", "check", str(out), "--model", model]) == 0


def test_encode_in_the_published_way_keeps_its_mistakes(
    model: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd: list[dict[str, Any]] = [
        {"prompt": "<image>", "response": "ab</s>"},
        {"prompt": "red", "response": "<image>", "images": ["a.png", "absent.png"]},
        {"prompt": "red", "response": "<image><image>", "images": ["a.png"]},
        {"prompt": "red", "response": "ab", "images": None},
        {"prompt": "red", "response": "x" * 80},
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in odd))
    out = data.parent / "rows.jsonl"
    command = ["encode", str(data), "--model", model, "--max-tokens", "60", "--out", str(out), "--json"]
    assert execute([*command, "--compat", "reference"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert [fault["where"] for fault in report["refused"]] == [f"{data}:3", f"{data}:4"]
    assert [row["where"] for row in report["too_long"]] == [f"{data}:5"]
    first, second = rows(out)
    assert {key: first[key] for key in odd[0]} == odd[0]
    assert {key: second[key] for key in odd[1]} == odd[1]
    assert execute(["data", "check", str(out), "--model", model]) == 2  # what ours refuses


def test_decode_in_the_published_way_repeats_the_prompt(model: str, data: Path) -> None:
    encoded, folder = data.parent / "rows.jsonl", data.parent / "out"
    assert execute(["encode", str(data), "--model", model, "--out", str(encoded)]) == 0
    command = ["decode", str(encoded), "--model", model, "--compat", "reference", "--out", str(folder)]
    assert execute(command) == 0
    first, second, _ = rows(folder / "decoded.jsonl")
    assert (first["text"], first["image_paths"]) == ("red<image_0>", ["00000/image_0.png"])
    assert (second["text"], second["image_paths"]) == ("red" + "x" * 80, [])
    assert (folder / "00000" / "image_0.png").is_file()


def test_no_language_model_is_read(model: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*arguments: object) -> None:
        raise AssertionError("the language model was read")

    monkeypatch.setattr("twgi.checkpoint.load._read_decoder", read)
    encoded, folder = data.parent / "rows.jsonl", data.parent / "out"
    assert execute(["encode", str(data), "--model", model, "--out", str(encoded)]) == 0
    assert execute(["decode", str(encoded), "--model", model, "--out", str(folder)]) == 0
    assert execute(["think", "red", "--model", model, "--out", str(data.parent / "think")]) == 1


def test_nothing_is_written_where_nothing_can_be_kept(
    model: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = data.parent / "rows.jsonl"
    assert execute(["encode", str(data), "--model", model, "--max-tokens", "3", "--out", str(out)]) == 2
    assert "0 kept" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["encode", "{data}", "--out", "{data}"], "is a file of records"),
        (["encode", "{data}", "--out", "{data}/below/rows.jsonl"], "cannot write to"),
        (
            ["encode", "{data}", "--out", "{data}.rows", "--format", "arrow"],
            "format must be twgi or reference or parquet",
        ),
        (["encode", "{data}", "--out", "{data}.rows", "--compat", "parquet"], "compat must be twgi or reference"),
        (["decode", "{data}", "--out", "{folder}"], "not empty"),
        (["decode", "{data}", "--out", "{data}"], "Not a directory"),
        (["decode", "{data}", "--out", "{folder}/new", "--compat", "none"], "compat must be twgi or reference"),
    ],
)
def test_a_wrong_option_is_one_line(
    model: str, data: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    before = data.read_bytes()
    assert execute([*(part.format(data=data, folder=data.parent) for part in arguments), "--model", model]) == 2
    complaint = capsys.readouterr().err
    assert problem in complaint
    assert len(complaint.splitlines()) == 1
    assert data.read_bytes() == before
