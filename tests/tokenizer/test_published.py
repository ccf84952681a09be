"""The published way with text and pictures: its mistakes are kept, on a tokenizer of other ids."""

import pytest
from tests.thinking.tiny import SIDE, tokenizer

from twgi.errors import DataError
from twgi.tokenizer.published import PublishedTokenizer

TOKENIZER = tokenizer()
VOCAB = TOKENIZER.vocab
PUBLISHED = PublishedTokenizer(TOKENIZER)
CODES = list(range(VOCAB.tokens_per_image))
IMAGE = TOKENIZER.image_block(CODES)
EMPTY = [VOCAB.boi, *[VOCAB.placeholder] * VOCAB.tokens_per_image, VOCAB.eoi]


def test_a_special_name_in_a_text_becomes_the_token_and_ours_does_not() -> None:
    assert PUBLISHED.encode("a</s>")[-1] == VOCAB.eos
    assert VOCAB.eos not in TOKENIZER.encode(["a</s>"])
    assert PUBLISHED.encode("a</s>") == [*TOKENIZER.encode(["a"]), VOCAB.eos]


def test_marks_without_pictures_stay_placeholders_and_surplus_pictures_are_ignored() -> None:
    a = TOKENIZER.encode(["a"])
    assert PUBLISHED.record("<image>", "a") == [VOCAB.bos, *EMPTY, VOCAB.separator, *a, VOCAB.eos]
    assert PUBLISHED.prompt("a<image>", [CODES, CODES], chat=False) == [VOCAB.bos, *a, *IMAGE]
    with pytest.raises(DataError, match="2 <image> mark"):
        PUBLISHED.record("a", "<image><image>", [CODES])


def test_unknown_ids_are_left_out() -> None:
    a = TOKENIZER.encode(["a"])
    (piece,) = PUBLISHED.decode([-1, *a, VOCAB.size, 2**70, *a])
    assert piece.text == "aa"


def test_ids_that_are_no_image_tokens_count_as_code_0_or_are_an_error() -> None:
    inside = [VOCAB.boi, VOCAB.eos, *IMAGE[2:]]
    beyond = [VOCAB.boi, VOCAB.text_ids[-1], *IMAGE[2:]]
    pieces = PUBLISHED.decode([*inside, *beyond, *IMAGE[:-2], VOCAB.eoi])
    assert [piece.text for piece in pieces] == ["<image_0>", "<error_image_1>", "<invalid_image_2>"]
    picture, *others = (piece.picture for piece in pieces)
    assert others == [None, None]
    assert picture is not None
    assert picture.size == (SIDE, SIDE)
    assert picture.tobytes() == TOKENIZER.picture([0, *CODES[1:]]).tobytes()
