"""The two real rows of the published repository, read with a made tokenizer of the same ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.data.layout import SEPARATOR, SIZE, published_layout

from twgi.data.encode import Encoded, RowEncoder
from twgi.data.rows import scan
from twgi.tokenizer.multimodal import PLACEHOLDER, Codes
from twgi.tokenizer.published import PublishedTokenizer
from twgi.trace import ImageSegment, Segment, TextSegment

TOKENIZER = published_layout()
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def file(shared: Callable[[str], Path]) -> Path:
    return shared("seed_data/training/dataset_example.jsonl")


@pytest.fixture(scope="module")
def rows(file: Path) -> Rows:
    return [json.loads(line) for line in file.read_text().splitlines()]


def answer(row: dict[str, Any]) -> tuple[str, list[Segment]]:
    """The words of the prompt, and the segments of the response without the eos."""
    (prompt, *segments), anomalies = TOKENIZER.decode(row["tokens"][:-1])
    assert isinstance(prompt, TextSegment)
    assert prompt.tokens[-1] == SEPARATOR
    assert anomalies == ()
    return prompt.text, segments


def test_they_are_cut_into_the_right_segments(rows: Rows) -> None:
    assert [len(row["tokens"]) for row in rows] == [3744, 3587]
    whole = [[TOKENIZER.codes_of(segment) is not None for segment in answer(row)[1]] for row in rows]
    assert [sum(images) for images in whole] == [2, 3]
    for row, images in zip(rows, whole, strict=True):
        pieces = [piece for piece in row["response"].replace(PLACEHOLDER, "\0\1\0").split("\0") if piece]
        assert images == [piece == "\1" for piece in pieces]


def test_the_published_cut_has_the_same_images(rows: Rows) -> None:
    for row in rows:
        published = PublishedTokenizer(TOKENIZER).segments(row["tokens"])
        ours = [list(segment.tokens[1:-1]) for segment in answer(row)[1] if isinstance(segment, ImageSegment)]
        assert [ids for kind, ids in published if kind == "image"] == ours


def test_the_validator_finds_no_fault(rows: Rows) -> None:
    assert TOKENIZER.vocab.size == SIZE
    for row in rows:
        assert scan(row["tokens"], TOKENIZER.vocab, turns=1)[1] == []
        assert scan(row["tokens"][:-1], TOKENIZER.vocab, turns=1)[1] != []


def test_they_are_kept_with_loss_on_the_response_alone(file: Path, rows: Rows) -> None:
    for row, outcome in zip(rows, RowEncoder(TOKENIZER, limit=4096).files([file]), strict=True):
        assert isinstance(outcome, Encoded)
        assert list(outcome.row.tokens) == row["tokens"]
        assert outcome.row.mask.tolist() == [
            place > row["tokens"].index(SEPARATOR) for place in range(len(row["tokens"]))
        ]


def test_what_is_read_from_a_row_gives_the_row_again(tmp_path: Path, rows: Rows) -> None:
    pictures: dict[str, Codes] = {}
    lines = []
    for row in rows:
        prompt, segments = answer(row)
        parts = []
        for segment in segments:
            if isinstance(segment, TextSegment):
                parts.append({"type": "text", "text": segment.text})
                continue
            codes = TOKENIZER.codes_of(segment)
            assert codes is not None
            pictures[name := f"{len(pictures)}.png"] = codes
            parts.append({"type": "image", "image": name})
        lines.append(json.dumps({"prompt": prompt, "segments": parts}))
    file = tmp_path / "again.jsonl"
    file.write_text("\n".join(lines))
    outcomes = list(RowEncoder(TOKENIZER, codes_of=lambda path: pictures[path.name]).files([file]))
    assert [outcome.row.tokens for outcome in outcomes if isinstance(outcome, Encoded)] == [
        tuple(row["tokens"]) for row in rows
    ]
