"""Token rows: their spans, and the validator against a second formulation of the same rules."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizer.tiny import multimodal_tokenizer

from twgi.data.rows import TrainingRow, check_row, pieces_of, scan
from twgi.errors import DataError

TOKENIZER = multimodal_tokenizer()
VOCAB = TOKENIZER.vocab
IMAGE = TOKENIZER.image_block(range(VOCAB.tokens_per_image))
TEXT = TOKENIZER.text.encode("red ab")
LONG = len(TEXT)
BOS, SEPARATOR, EOS = [VOCAB.bos], [VOCAB.separator], [VOCAB.eos]
ROW = [*BOS, *TEXT, *IMAGE, *SEPARATOR, *IMAGE, *TEXT, *EOS]

PIECES = {"b": BOS, "t": TEXT[:1], "I": IMAGE, "s": SEPARATOR, "e": EOS, "x": [VOCAB.pad], "m": [VOCAB.image_tokens[0]]}
GOOD = re.compile(r"b([tI]+s[tI]+e)+")


def ids_of(word: str) -> list[int]:
    return [token for letter in word for token in PIECES[letter]]


def test_spans_say_what_each_id_is() -> None:
    pieces = [(kind, list(ids), loss) for kind, ids, loss in pieces_of(ROW, VOCAB)]
    assert pieces == [
        ("bos", BOS, False),
        ("text", TEXT, False),
        ("image", IMAGE, False),
        ("separator", SEPARATOR, False),
        ("image", IMAGE, True),
        ("text", TEXT, True),
        ("eos", EOS, True),
    ]


def test_loss_lies_on_what_follows_each_separator_up_to_its_eos() -> None:
    row = TrainingRow.of(pieces_of(ids_of("bItstIesItIe".replace("es", "ets")), VOCAB))
    learnt = [token for token, loss in zip(row.tokens, row.mask, strict=True) if loss]
    assert learnt == ids_of("tIe") + ids_of("ItIe")


@given(st.text(alphabet="btIse", max_size=9) | st.from_regex(GOOD, fullmatch=True).map(lambda word: word[:30]))
def test_a_row_is_faultless_just_if_it_has_the_shape_of_one(word: str) -> None:
    faults = scan(ids_of(word), VOCAB)[1]
    assert (not faults) == bool(GOOD.fullmatch(word)), faults


@given(st.text(alphabet="btIsexm", min_size=1, max_size=9))
def test_faults_point_into_the_row_in_order(word: str) -> None:
    ids = ids_of(word)
    spans, faults = scan(ids, VOCAB, turns=1)
    positions = [fault.position for fault in faults]
    TrainingRow(tokens=tuple(ids), spans=tuple(spans))  # they cover the ids
    assert positions == sorted(positions)
    assert all(0 <= position <= len(ids) for position in positions)


@pytest.mark.parametrize(
    ("ids", "position", "reason"),
    [
        ([], 0, "nothing where a row starts with 0"),
        (ROW[1:], 0, f"{TEXT[0]} where a row starts with 0"),
        (ROW[:-1], len(ROW) - 1, "no eos"),
        ([*BOS, *TEXT], 1 + LONG, "no separator"),
        ([*BOS, *SEPARATOR, *TEXT, *EOS], 1, "empty prompt"),
        ([*BOS, *TEXT, *SEPARATOR, *EOS], 2 + LONG, "empty response"),
        ([*BOS, *TEXT, *SEPARATOR, *TEXT, *SEPARATOR, *TEXT, *EOS], 2 + 2 * LONG, "special id in text"),
        ([*ROW, VOCAB.pad], len(ROW), f"special id in text: id {VOCAB.pad} where"),
        ([*BOS, *IMAGE[:-2], *IMAGE[-1:], *ROW[1:]], 1, "8 image tokens instead of 9"),
        ([*BOS, *IMAGE[:-1], *ROW[1:]], 11, "missing eoi"),
        ([*BOS, *IMAGE[1:], *ROW[1:]], 1, f"image id in text: id {IMAGE[1]}"),
        ([*BOS, VOCAB.reserved[0], *ROW[1:]], 1, "reserved id in text"),
        ([*BOS, VOCAB.placeholder, *ROW[1:]], 1, f"id {VOCAB.placeholder} where only text may stand"),
        ([*BOS, VOCAB.size, *ROW[1:]], 1, f"unknown id: id {VOCAB.size}"),
        ([*BOS, -1, *ROW[1:]], 1, "unknown id: id -1"),
        ([*ROW, *ROW[1:]], len(ROW) + LONG + len(IMAGE), "2 turn(s) instead of 1"),
    ],
)
def test_a_fault_says_where_and_why(ids: Sequence[int], position: int, reason: str) -> None:
    with pytest.raises(DataError, match=rf"^token {position}: .*{re.escape(reason)}"):
        check_row(TrainingRow.of(pieces_of(ids, VOCAB)), VOCAB)


@settings(max_examples=40)
@given(st.from_regex(GOOD, fullmatch=True), st.none() | st.text())
def test_a_row_is_read_back_as_it_was_written(word: str, name: str | None) -> None:
    row = TrainingRow.of(pieces_of(ids_of(word), VOCAB), source="f:1", id=name)
    assert TrainingRow.from_json(row.to_json()) == row


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version 2"),
        ({"more": 1}, "unknown key 'more'"),
        ({"tokens": [0, "1"]}, "whole numbers"),
        ({"source": None}, "texts"),
        ({"tokenizer": 3}, "texts"),
        ({"segments": [["bos", 0, 1]]}, "[kind, start, end, loss]"),
        ({"segments": [["bos", 0, 1, 1]]}, "[kind, start, end, loss]"),
        ({"segments": [["sound", 0, len(ROW), True]]}, "must be one of"),
        ({"segments": [["text", 0, 3, True]]}, "without a gap"),
        ({"segments": [["text", 0, 3, True], ["text", 4, len(ROW), True]]}, "without a gap"),
        ({"segments": [["text", 0, len(ROW), True], ["text", len(ROW), len(ROW), True]]}, "without a gap"),
        ({"segments": []}, "without a gap"),
    ],
)
def test_a_stored_row_is_read_strictly(change: dict[str, Any], reason: str) -> None:
    stored = TrainingRow.of(pieces_of(ROW, VOCAB)).to_json()
    with pytest.raises(DataError, match=re.escape(reason)):
        TrainingRow.from_json(stored | change)
    with pytest.raises(DataError, match="lacks 'segments'"):
        TrainingRow.from_json({key: value for key, value in stored.items() if key != "segments"})
