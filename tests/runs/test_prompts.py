"""What a file of prompts may hold, and what is said about a line that cannot be used."""

import json
from pathlib import Path

import pytest

from twgi.errors import PromptError
from twgi.runs.prompts import BadLine, PromptLine, read_prompts
from twgi.tokenizer.multimodal import place_pictures

SHARED = Path(__file__).parents[3] / "shared"


def write(folder: Path, *lines: str) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def only(folder: Path, line: str) -> PromptLine | BadLine:
    (entry,) = read_prompts(write(folder, line))
    return entry


def test_a_line_needs_only_a_prompt(tmp_path: Path) -> None:
    entry = only(tmp_path, '{"prompt": "a red couch"}')
    assert entry == PromptLine(where=f"{tmp_path}/prompts.jsonl:1", prompt="a red couch")


def test_pictures_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    entry = only(tmp_path, '{"prompt": "What is in <image>?", "images": ["a.png"], "mode": "general", "seed": 3}')
    assert isinstance(entry, PromptLine)
    assert (entry.images, entry.mode, entry.seed) == ((tmp_path / "a.png",), "general", 3)


def test_a_picture_without_a_place_goes_to_the_end_of_the_prompt() -> None:
    assert place_pictures("What is this?", 2) == "What is this?<image><image>"
    assert place_pictures("What is <image>?", 1) == "What is <image>?"


def test_blank_lines_and_a_byte_order_mark_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n  \n{"prompt": "b"}')
    entries = read_prompts(path)
    assert [(entry.where, getattr(entry, "prompt", None)) for entry in entries] == [
        (f"{path}:1", "a"),
        (f"{path}:4", "b"),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"prompt": "a"', "broken JSON at column 15"),
        ("a photo of a couch", "broken JSON at column 1"),
        ("[" * 100_000, "broken JSON"),
        ('["a"]', "expected a JSON object, got list"),
        ("{}", 'no text under "prompt"'),
        ('{"prompt": 3}', 'no text under "prompt"'),
        ('{"prompt": "  "}', "the prompt is empty"),
        ('{"prompt": "a \\ud800"}', "not valid Unicode at character 2"),
        ('{"prompt": "a", "image": "x.png"}', "unknown field 'image'; known are prompt, images, mode, seed"),
        ('{"prompt": "a", "images": "x.png"}', '"images" must be a list of paths'),
        ('{"prompt": "a", "images": [1]}', '"images" must be a list of paths'),
        ('{"prompt": "a", "mode": 1}', '"mode" must be a name'),
        ('{"prompt": "a", "seed": "1"}', '"seed" must be a whole number'),
        ('{"prompt": "a", "seed": true}', '"seed" must be a whole number'),
        ('{"prompt": "an <image>"}', "1 <image> and 0 pictures"),
        ('{"prompt": "an <image> and <image>", "images": ["a.png"]}', "2 <image> and 1 pictures"),
        ('{"prompt": "an <image>", "images": ["a.png", "b.png"]}', "1 <image> and 2 pictures"),
    ],
)
def test_a_bad_line_says_what_is_wrong_and_harms_no_other(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path, '{"prompt": "first"}', line, '{"prompt": "last"}')
    first, bad, last = read_prompts(path)
    assert isinstance(first, PromptLine)
    assert isinstance(last, PromptLine)
    assert isinstance(bad, BadLine)
    assert bad.where == f"{path}:2"
    assert problem in bad.problem
    assert "\n" not in bad.problem


def test_a_file_that_cannot_be_read_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="the prompts file cannot be used: cannot read"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(PromptError, match="the prompts file cannot be used: cannot read"):
        read_prompts(tmp_path)
    (tmp_path / "picture.jsonl").write_bytes(b"\x89PNG\r\n")
    (bad,) = read_prompts(tmp_path / "picture.jsonl")
    assert isinstance(bad, BadLine)
    assert "not UTF-8 at byte 0" in bad.problem
    with pytest.raises(PromptError, match="no prompts in this file"):
        read_prompts(write(tmp_path, "", " "))


@pytest.mark.parametrize(
    "name",
    ["geneval/evaluation_metadata.jsonl", "dpg_bench/prompts.jsonl", "seed_data/inference/prompts_general.jsonl"],
)
def test_the_published_prompt_files_read_without_a_bad_line(name: str) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    entries = read_prompts(path)
    prompts = [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert [getattr(entry, "prompt", entry) for entry in entries] == prompts
