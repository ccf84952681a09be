"""Replies in the forms that real servers write them in."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twgi.client import Endpoint, EndpointOptions
from twgi.replies import Unusable, complaint, in_one_form, masked, picture, words

FILE = bytes(range(256)) + b"\xfb\xff\xfe"  # its base64 has both signs that are written in two ways
CODE = base64.b64encode(FILE).decode()


def chat(content: Any, **more: Any) -> Any:
    return in_one_form({"choices": [{"message": {"role": "assistant", "content": content, **more}}]})


@pytest.mark.parametrize(
    "content",
    [
        "yes",
        [{"type": "text", "text": "yes"}],
        [{"type": "text", "text": "y"}, {"type": "text", "text": "es"}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "no?"}]}, {"type": "text", "text": "yes"}],
        [{"type": "output_text", "text": "yes", "annotations": []}],
        ["yes"],
        "<think>Is it? No.</think>yes",
        "Is it? No.\n</think>yes",
        "[THINK]no[/THINK]yes",
    ],
)
def test_words_come_as_one_text_without_thoughts(content: Any) -> None:
    assert words(chat(content)) == "yes"
    assert words(chat(content, reasoning_content="no", reasoning="no", tool_calls=None)) == "yes"


@pytest.mark.parametrize("content", [None, "", " \n", [], [{"type": "image_url"}], "<think>I wonder", 7, {}])
def test_a_reply_without_words_is_none(content: Any) -> None:
    with pytest.raises(Unusable, match=r"^no words$"):
        words(chat(content, reasoning_content="I wonder"))


def test_why_there_are_no_words_is_told() -> None:
    with pytest.raises(Unusable, match="it refuses: I will not"):
        words(chat(None, refusal="I will\nnot"))
    cut = chat("", reasoning_content="I wonder")
    cut["choices"][0]["finish_reason"] = "length"
    with pytest.raises(Unusable, match="max_tokens") as error:
        words(cut)
    assert error.value.final


@pytest.mark.parametrize(
    "code",
    [
        CODE,
        f"data:image/png;base64,{CODE}",
        f"DATA:image/png;charset=utf-8;BASE64,{CODE}",
        "\n".join(CODE[start : start + 76] for start in range(0, len(CODE), 76)),
        f"{CODE}\r\n",
        base64.urlsafe_b64encode(FILE).decode(),
        CODE.rstrip("="),
        f"data:image/png;base64,{CODE.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
    ],
)
def test_a_picture_is_read_however_it_is_written(code: str) -> None:
    assert picture({"data": [{"b64_json": code}]}) == FILE
    assert picture({"data": [{"b64_json": None, "url": code}]}) == FILE
    assert picture(chat("Here.", images=[{"type": "image_url", "image_url": {"url": code}}])) == FILE
    assert picture(chat([{"type": "image_url", "image_url": code}, {"type": "text", "text": "Here."}])) == FILE


def test_a_picture_in_markdown_is_read() -> None:
    assert picture(chat(f"Here: ![it](data:image/png;base64,{CODE}) and more")) == FILE


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ({"data": [{"b64_json": None, "url": "https://host/x.png"}]}, "an address instead of a picture"),
        (chat("", images=[{"image_url": {"url": "https://host/x.png"}}]), "an address instead of a picture"),
        ({"data": [{"url": "data:image/svg+xml,<svg/>"}]}, "an address instead of a picture"),
        ({"data": []}, "no picture"),
        ({"data": [{"b64_json": ""}]}, "no picture"),
        (chat("I would rather not."), "no picture"),
    ],
)
def test_a_reply_without_a_picture_says_so(reply: Any, problem: str) -> None:
    with pytest.raises(Unusable, match=problem):
        picture(reply)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "too\nlong", "param": "max_tokens"}}, "too long [max_tokens]"),
        ({"error": "no model"}, "no model"),
        ({"object": "error", "message": "bad", "code": 400}, "bad"),
        (
            {"detail": [{"loc": ["body", "n"], "msg": "Extra inputs are not permitted"}]},
            "Extra inputs are not permitted [n]",
        ),
        ({"detail": "Not here"}, "Not here"),
        ({"errors": [{"message": "bad"}]}, "bad"),
        ({}, ""),
        ([], ""),
        ({"error": [[[[[[[[[[{}]]]]]]]]]]}, ""),
    ],
)
def test_a_complaint_is_found_in_every_shape(body: Any, said: str) -> None:
    assert complaint(body, failed=True) == said


@pytest.mark.parametrize("error", [None, {}, "partly"])
def test_a_good_reply_is_no_complaint(error: Any) -> None:
    assert complaint({"choices": [1], "error": error}, failed=False) is None


@pytest.mark.parametrize("depth", range(4))
def test_a_secret_is_masked_however_deep_it_is_escaped(depth: int) -> None:
    secret = 'sk-"quoted\\"/9'
    for spelt in (secret, "".join(f"\\u{ord(sign):04X}" for sign in secret)):
        text = spelt
        for _ in range(depth):
            text = json.dumps({"said": text})
        assert masked([{text: text}], secret) == [{(told := masked(text, secret)): told}]
        assert ("[key]" in told, "quoted" in told or "0071" in told) == (True, False)
    assert masked("\\" * 10**5, secret) == "\\" * 10**5


KEYS = (
    "choices",
    "message",
    "content",
    "images",
    "image_url",
    "url",
    "type",
    "text",
    "data",
    "b64_json",
    "error",
    "code",
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["image_url", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(value=VALUES, cut=st.integers(0, 40))
def test_whatever_comes_back_is_used_or_unusable(value: Any, cut: int) -> None:
    asking = Endpoint(EndpointOptions(url="http://host/v1", model="m"))
    content = json.dumps(value).encode()
    for body in (content, content[:cut], content.replace(b'"', b"\xff")):
        for read in (words, picture):
            try:
                got = asking._parsed(body)
                complaint(got, failed=True)
                read(got)
            except Unusable:
                pass
            except (ValueError, KeyError, IndexError, TypeError, AttributeError):  # what `post` takes for another shape
                pass
