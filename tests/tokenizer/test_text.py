"""Text survives the way to ids and back, and never turns into anything but text."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.tokenizer.tiny import CONTROL, KINDS, text_tokenizer, tokenizer_json

from twgi.errors import CheckpointError, PromptError
from twgi.tokenizer import text as text_module
from twgi.tokenizer.text import TextTokenizer

TOKENIZERS = {kind: text_tokenizer(kind) for kind in KINDS}
TEXTS = st.lists(st.sampled_from(CONTROL) | st.text(max_size=8)).map("".join)
AWKWARD = ["", "<", ">", "é", "日本語 🎨", "a\0b", "\r\n\t", "<image", "IMGIMG", "<<image>>", "</</s>s>"]


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@example(text="<image>" * 2000)
def test_text_comes_back_and_never_becomes_a_control_token(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text)
    assert not tokenizer.forbidden & set(ids)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [*CONTROL, *AWKWARD])
def test_no_name_and_no_awkward_text_is_special(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    for written in (text, f" {text} ", f"a{text}b", text * 3):
        ids = tokenizer.encode(written)
        assert not tokenizer.forbidden & set(ids)
        assert tokenizer.decode(ids) == written


def test_the_ill_behaved_tokenizers_do_reach_control_tokens_by_themselves() -> None:
    for kind in ("added", "merges", "whole words"):
        tokenizer = TOKENIZERS[kind]
        assert tokenizer.forbidden & set(tokenizer.bpe.encode("<image>", add_special_tokens=False).ids)


def test_further_ids_can_be_forbidden() -> None:
    tokenizer = text_tokenizer()
    token = tokenizer.names["red"]
    assert tokenizer.encode("red") == [token]
    assert tokenizer.decode(tokenizer.forbidding([token]).encode("red")) == "red"
    assert token not in tokenizer.forbidding([token]).encode("red")


def test_a_character_that_cannot_be_written_is_the_users_error() -> None:
    tokenizer = text_tokenizer()
    with pytest.raises(PromptError, match="no token for 'q'"):
        tokenizer.forbidding([tokenizer.names["q"]]).encode("aqua")


def test_text_that_is_not_unicode_is_the_users_error() -> None:
    with pytest.raises(PromptError, match="not valid Unicode"):
        text_tokenizer().encode("broken \ud800 pair")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1]", b'{"model": {"type": "none"}}'])
def test_a_file_that_is_no_tokenizer_is_the_users_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        TextTokenizer.from_file(tmp_path / "tokenizer.json")


def test_a_missing_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent"):
        TextTokenizer.from_file(tmp_path / "absent.json")


def test_truncation_and_padding_of_the_file_do_not_apply() -> None:
    content = json.loads(tokenizer_json())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    assert TextTokenizer.from_json(json.dumps(content)).encode("xyz") == text_tokenizer().encode("xyz")


@given(st.text(), st.lists(st.integers(min_value=26, max_value=281)))
def test_streamed_pieces_are_the_text(text: str, noise: list[int]) -> None:
    tokenizer = TOKENIZERS["special"]
    ids = tokenizer.encode(text) + noise  # noise: single bytes, mostly not UTF-8
    stream = tokenizer.stream()
    assert "".join([*(stream.push(token) for token in ids), stream.flush()]) == tokenizer.decode(ids)
    assert stream.flush() == ""


def test_a_character_spread_over_tokens_is_held_until_it_is_whole() -> None:
    tokenizer = text_tokenizer()
    stream = tokenizer.stream()
    assert [stream.push(token) for token in tokenizer.encode("é🎨!")] == ["", "é", "", "", "", "🎨", "!"]


def test_encoding_agrees_with_the_reference(shared: Callable[[str], Path]) -> None:
    tokenizer = TextTokenizer.from_file(shared("golden/checkpoint_fork/tokenizer.json"))
    for case in json.loads(shared("golden/cases.json").read_text())["h"]["encode"]:
        if not tokenizer.forbidden & set(case["ids_plain"]):  # there, special-token text becomes special
            assert tokenizer.encode(case["text"]) == case["ids_plain"]
            assert tokenizer.decode(case["ids_plain"]) == case["decoded"]
    for name in tokenizer.names:
        assert not tokenizer.forbidden & set(tokenizer.encode(name))


def with_steps(**steps: Any) -> str:
    return json.dumps(json.loads(tokenizer_json()) | steps)


def test_a_tokenizer_that_makes_texts_many_times_as_long_is_refused() -> None:
    times = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    for steps in ({"type": "Sequence", "normalizers": [times] * 7}, {"type": "Prepend", "prepend": "a" * 10**6}):
        with pytest.raises(CheckpointError, match=r"up to \d+ times as long"):
            TextTokenizer.from_json(with_steps(normalizer=steps))
    bytewise = json.loads(tokenizer_json())["pre_tokenizer"]
    with pytest.raises(CheckpointError, match="times as long"):
        TextTokenizer.from_json(with_steps(pre_tokenizer={"type": "Sequence", "pretokenizers": [bytewise] * 20}))
    usual = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    TextTokenizer.from_json(with_steps(normalizer={"type": "Sequence", "normalizers": usual}))


def test_a_text_without_end_is_refused_before_it_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MAX_TEXT", 1000)
    assert len(text_tokenizer().encode("x" * 1000)) == 1000
    with pytest.raises(PromptError, match="too long: 1001 characters, and at most 1000"):
        text_tokenizer().encode("x" * 1001)


def test_a_panic_of_the_library_is_the_failure_of_one_text() -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$|(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    tokenizer = TextTokenizer.from_json(with_steps(pre_tokenizer=split))
    with pytest.raises(PromptError, match=r"this tokenizer cannot write 'aaaaa.*retry-limit"):
        tokenizer.encode("a" * 40 + "b")
    assert tokenizer.encode("xy")


STEPS = ["model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"]
ANY = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=2), max_leaves=4)


@given(ANY, st.sampled_from(STEPS))
def test_whatever_a_tokenizer_file_says_only_user_errors_come_out(value: Any, key: str) -> None:
    content = json.loads(tokenizer_json())
    for step in (value, {"type": value}, {"type": "Sequence", "normalizers": value, "pretokenizers": value}):
        with suppress(CheckpointError, PromptError):
            TextTokenizer.from_json(json.dumps({**content, key: step})).encode("a red ab")
