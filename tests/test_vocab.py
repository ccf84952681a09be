"""Ids mean what their names say, wherever they lie."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twgi.errors import CheckpointError
from twgi.vocab import Vocab, image_code, image_name, is_control_name

NAMES = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<eoss>": 9, "<racm3:break>": 8, "<reserved08706>": 10}
NAMES |= {"<image>": 11, "IMGIMGAZ": 6, "IMGIMGBZ": 4, "IMGIMGCZ": 7, "IMGIMGDZ": 5, "<reserved08700>": 12, "a": 13}


def vocab(names: dict[str, int] = NAMES) -> Vocab:
    return Vocab.from_names(names, tokens_per_image=4, size=16)


@given(st.integers(min_value=0, max_value=10**6))
def test_a_code_is_its_digits_as_letters(code: int) -> None:
    assert image_code(image_name(code)) == code
    assert is_control_name(image_name(code))


def test_codes_go_by_name_and_not_by_the_order_of_ids() -> None:
    assert vocab().image_tokens == (6, 4, 7, 5)
    assert [vocab().code(token) for token in (4, 5, 6, 7)] == [1, 3, 0, 2]
    assert [vocab().token(code) for code in range(4)] == [6, 4, 7, 5]


def test_every_id_is_either_text_or_not() -> None:
    assert vocab().text_ids == (13,)
    assert vocab().reserved == (12, 14, 15)  # named so, and two without a name
    assert {*vocab().text_ids, *vocab().control_ids} == set(range(16))
    assert [token for token in range(-2, 20) if vocab().is_text(token)] == [13]
    assert [token for token in range(-2, 20) if vocab().is_image(token)] == [4, 5, 6, 7]


def test_an_id_that_a_tokenizer_calls_special_is_no_text() -> None:
    assert Vocab.from_names(NAMES, tokens_per_image=4, size=16, special=[13]).text_ids == ()


def test_the_placeholder_may_go_by_its_reserved_name() -> None:
    renamed = {**NAMES, "<reserved08707>": 11}
    del renamed["<image>"]
    assert vocab(renamed) == vocab()


@pytest.mark.parametrize("name", ["<s>", "<racm3:break>", "<reserved08706>", "<image>"])
def test_a_missing_name_is_told(name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        vocab({key: token for key, token in NAMES.items() if key != name})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"IMGIMGBZ": None}, "no token for codebook index 1 (IMGIMGBZ)"),
        ({"IMGIMGABZ": 14}, "two tokens are named for codebook index 1"),
        ({"IMGIMGBZ": 6}, "id 6 is given two meanings"),
        ({"</s>": 8}, "id 8 is given two meanings"),
        ({"<eoss>": 16}, "id 16 is not below the model's vocabulary size 16"),
    ],
)
def test_a_hole_or_a_double_is_an_error(change: dict[str, int | None], said: str) -> None:
    names = {key: token for key, token in (NAMES | change).items() if token is not None}
    with pytest.raises(CheckpointError) as error:
        vocab(names)
    assert said in str(error.value)


def test_no_picture_vocabulary_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="image token"):
        replace(vocab(), image_tokens=())


def test_a_double_among_many_is_found_in_one_pass_and_digits_have_an_end() -> None:
    with pytest.raises(CheckpointError, match="id 59999 is given two meanings"):  # minutes, were it quadratic
        replace(vocab(), size=2**17, image_tokens=(*range(20, 60_000), 59_999))
    assert image_code("IMGIMG" + "B" * 5000 + "Z") is None
