"""The sieve: every prompt once, none against the rules, and no prompt without a word about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twgi.data.factory.prompts import PromptFilter


def sifted(*prompts: str, max_words: int = 5) -> PromptFilter:
    sieve = PromptFilter(max_words=max_words)
    for prompt in prompts:
        sieve.add(prompt)
    return sieve


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("  !? ", "no words"),
        ("a cat <image>", "<image> in it"),
        ("one two three four five six", "more than 5 words"),
        ("A  CAT!", "there already"),
        ("ａ cat", "there already"),
        ("a cats", None),
    ],
)
def test_a_prompt_that_is_dropped_is_told_why(prompt: str, reason: str | None) -> None:
    seen = sifted("a cat", prompt).seen[1]
    assert (seen["status"], seen.get("reason")) == ("kept" if reason is None else "dropped", reason)


@given(st.lists(st.text(alphabet="aAb !", max_size=6)))
def test_what_is_kept_is_kept_again_and_everything_is_seen(prompts: list[str]) -> None:
    sieve = sifted(*prompts)
    assert len(sieve.seen) == len(prompts)
    assert [line["prompt"] for line in sieve.seen if line["status"] == "kept"] == sieve.kept
    assert sifted(*sieve.kept).kept == sieve.kept
    assert not [prompt for prompt in sieve.kept if prompt != " ".join(prompt.split())]
