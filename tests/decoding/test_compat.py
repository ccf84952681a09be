"""The quirks of the published code: each has a name, and each alone changes what it says and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.thinking.tiny import thinker, tokenizer

from twgi.decoding.compat import ALL, OF_GUIDANCE, PUBLISHED_IMAGES, PUBLISHED_TOP_K, Quirk, parse_compat
from twgi.decoding.grammar import Choice, allowed_ids
from twgi.decoding.params import SamplingParams
from twgi.decoding.request import Request
from twgi.errors import ConfigError
from twgi.thinking.request import Planned, plan
from twgi.thinking.settings import Settings
from twgi.thinking.thinker import task_of


def planned(compat: str, mode: str = "subgoal", **settings: Any) -> Planned:
    return plan(0, task_of("a red ab", mode=mode, compat=compat, **settings), thinker().facts)


def request(compat: str, mode: str = "subgoal", **settings: Any) -> Request:
    return planned(compat, mode, **settings).request


def test_quirks_go_by_name_all_together_and_without_some() -> None:
    assert parse_compat("") == frozenset()
    assert parse_compat("reference") == ALL
    assert parse_compat("any-text, config-bos") == {Quirk.ANY_TEXT, Quirk.CONFIG_BOS}
    assert parse_compat("reference,-any-text") == ALL - {Quirk.ANY_TEXT}
    with pytest.raises(ConfigError, match=r"unknown quirk 'bos'; known are reference \(all\), prompt-without-bos"):
        parse_compat("bos")


def test_every_quirk_is_documented(repository: Path) -> None:
    page = (repository / "docs/compat.md").read_text()
    assert [quirk for quirk in Quirk if f"`{quirk}`" not in page] == []


def test_a_prompt_with_a_template_loses_its_bos_and_no_other() -> None:
    bos = tokenizer().vocab.bos
    assert request("").prompt == (bos, *request("prompt-without-bos").prompt)
    assert request("", "general").prompt == request("prompt-without-bos", "general").prompt


def test_the_prompt_branch_of_general_keeps_its_marks() -> None:
    assert request("prompt-with-marks", "general").conditions.prompt == request("", "general").prompt
    assert request("prompt-with-marks").conditions.prompt == request("").conditions.prompt


def test_any_text_opens_all_ids_but_those_of_images() -> None:
    vocab = tokenizer().vocab
    for choice, boi in ((Choice.ANY_TEXT, False), (Choice.ANY_TEXT_OR_BOI, True)):
        grammar = request("any-text").grammar
        ids = set(allowed_ids(vocab, choice))
        assert grammar.any_text
        assert ids == set(range(vocab.size)) - vocab.image_ids - {vocab.eoi} - (set() if boi else {vocab.boi})
    assert not request("").grammar.any_text


def test_the_end_at_the_last_image() -> None:
    assert request("").grammar.stop_after_images is None
    grammar = request("end-at-last-image,published-limits").grammar
    assert grammar.stop_after_images == grammar.max_images == PUBLISHED_IMAGES


def test_a_first_image_that_does_not_fit_is_drawn_all_the_same() -> None:
    sampling = SamplingParams(max_tokens=3)
    with pytest.raises(ConfigError, match="too small for one picture"):
        request("", "critique", sampling=sampling)
    grammar = request("unchecked-first-image", "critique", sampling=sampling).grammar
    assert grammar.budget == tokenizer().vocab.image_length


def test_published_sampling_takes_the_checkpoints_own_settings() -> None:
    by = thinker(text_temperature=0.5)
    by.facts.source.generation.update({"top_p": 0.7})  # type: ignore[attr-defined]
    sampling = by.resolved(Settings(compat="published-sampling")).sampling
    assert (sampling.image_top_p, sampling.image_top_k, sampling.text_top_k) == (0.7, PUBLISHED_TOP_K, PUBLISHED_TOP_K)
    assert (sampling.text_temperature, sampling.text_top_p) == (1.0, 0.9)


def test_any_quirk_of_guidance_takes_the_published_scales_and_says_so_in_the_trace() -> None:
    trace = thinker().think("a red ab", mode="critique", compat="reference")
    assert trace.settings["guidance"]["name"] == "reference"
    assert set(trace.settings["compat"]) == set(ALL)
    assert planned("", guidance="reference").settings.quirks == OF_GUIDANCE
    assert planned("any-text").settings.plan.name == "paper"
    assert thinker().think("a red ab").settings["compat"] == []


def test_padding_that_was_written_is_not_read_again_after_the_next_image() -> None:
    assert request("pads-unread,any-text").unread == {tokenizer().vocab.pad}
    assert request("").unread == frozenset()
