"""Token rows: their spans, and the validator against a second formulation of the same rules."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizer.tiny import multimodal_tokenizer

from twgi.data.rows import Row, check_row, cut
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
    pieces = [(kind, list(ids), loss) for kind, ids, loss in cut(ROW, VOCAB)]
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
    row = Row.of(cut(ids_of("bItstIesItIe".replace("es", "ets")), VOCAB))
    learnt = [token for token, loss in zip(row.tokens, row.mask, strict=True) if loss]
    assert learnt == ids_of("tIe") + ids_of("ItIe")
    assert row.turns == 2


@given(st.text(alphabet="btIse", max_size=9) | st.from_regex(GOOD, fullmatch=True).map(lambda word: word[:30]))
def test_a_row_is_faultless_just_if_it_has_the_shape_of_one(word: str) -> None:
    faults = check_row(ids_of(word), VOCAB, turns=None)
    assert (not faults) == bool(GOOD.fullmatch(word)), faults


@given(st.text(alphabet="btIsexm", min_size=1, max_size=9))
def test_faults_point_into_the_row_in_order(word: str) -> None:
    ids = ids_of(word)
    positions = [fault.position for fault in check_row(ids, VOCAB)]
    assert positions == sorted(positions)
    assert all(0 <= position <= len(ids) for position in positions)


@pytest.mark.parametrize(
    ("ids", "position", "reason"),
    [
        ([], 0, "starts with bos (0), got nothing"),
        (ROW[1:], 0, f"starts with bos (0), got {TEXT[0]}"),
        (ROW[:-1], len(ROW) - 1, "lacks eos at its end"),
        ([*BOS, *TEXT], 1 + LONG, "lacks a separator"),
        ([*BOS, *SEPARATOR, *TEXT, *EOS], 1, "the prompt is empty"),
        ([*BOS, *TEXT, *SEPARATOR, *EOS], 2 + LONG, "the response is empty"),
        ([*BOS, *TEXT, *SEPARATOR, *TEXT, *SEPARATOR, *TEXT, *EOS], 2 + 2 * LONG, "separator"),
        ([*ROW, VOCAB.pad], len(ROW), "pad"),
        ([*BOS, *IMAGE[:-2], *IMAGE[-1:], *ROW[1:]], 1, "an image of 8 image tokens instead of 9"),
        ([*BOS, *IMAGE[:-1], *ROW[1:]], 11, "lacks its eoi"),
        ([*BOS, *IMAGE[1:], *ROW[1:]], 1, f"image token {IMAGE[1]} outside an image"),
        ([*BOS, VOCAB.reserved[0], *ROW[1:]], 1, f"reserved id ({VOCAB.reserved[0]})"),
        ([*BOS, VOCAB.placeholder, *ROW[1:]], 1, "placeholder"),
        ([*BOS, VOCAB.size, *ROW[1:]], 1, f"id {VOCAB.size} is not in the vocabulary"),
        ([*BOS, -1, *ROW[1:]], 1, "id -1 is not in the vocabulary"),
        ([*ROW, *ROW[1:]], len(ROW) + LONG + len(IMAGE), "2 turn(s) instead of 1"),
    ],
)
def test_a_fault_says_where_and_why(ids: Sequence[int], position: int, reason: str) -> None:
    fault = check_row(ids, VOCAB)[0]
    assert fault.position == position
    assert reason in fault.reason


def test_a_row_longer_than_the_limit_is_a_fault() -> None:
    assert check_row(ROW, VOCAB, limit=len(ROW)) == ()
    (fault,) = check_row(ROW, VOCAB, limit=len(ROW) - 1)
    assert str(fault) == f"token {len(ROW) - 1}: too long: {len(ROW)} tokens, at most {len(ROW) - 1}"


@settings(max_examples=40)
@given(st.from_regex(GOOD, fullmatch=True), st.none() | st.text())
def test_a_row_is_read_back_as_it_was_written(word: str, name: str | None) -> None:
    row = Row.of(cut(ids_of(word), VOCAB), source="f:1", id=name)
    assert Row.from_json(row.to_json()) == row


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version 2"),
        ({"more": 1}, "unknown key 'more'"),
        ({"tokens": [0, "1"]}, "whole numbers"),
        ({"source": None}, "texts"),
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
    stored = Row.of(cut(ROW, VOCAB)).to_json()
    with pytest.raises(DataError, match=re.escape(reason)):
        Row.from_json(stored | change)
    with pytest.raises(DataError, match="lacks 'segments'"):
        Row.from_json({key: value for key, value in stored.items() if key != "segments"})
