"""The quirks of the published code: each has a name, and each alone changes what it says and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.thinking.tiny import thinker, tokenizer

from twgi.decoding.compat import ALL, OF_GUIDANCE, PUBLISHED_IMAGES, PUBLISHED_TOP_K, Quirk, parse_compat
from twgi.decoding.grammar import Choice, allowed_ids
from twgi.errors import ConfigError
from twgi.thinking.thought import Task, Thought


def thought(compat: str, mode: str = "subgoal", **settings: Any) -> Thought:
    return Thought(0, Task(prompt="a red ab", mode=mode, compat=compat, **settings), thinker().thinking)


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
    assert thought("").prompt_ids == (bos, *thought("prompt-without-bos").prompt_ids)
    assert thought("", "general").prompt_ids == thought("prompt-without-bos", "general").prompt_ids


def test_the_prompt_branch_of_general_keeps_its_marks() -> None:
    assert thought("prompt-with-marks", "general").bare_ids == thought("", "general").prompt_ids
    assert thought("prompt-with-marks").bare_ids == thought("").bare_ids


def test_any_text_opens_all_ids_but_those_of_images() -> None:
    vocab = tokenizer().vocab
    for choice, boi in ((Choice.ANY_TEXT, False), (Choice.ANY_TEXT_OR_BOI, True)):
        grammar = thought("any-text").request.grammar
        ids = set(allowed_ids(vocab, choice))
        assert grammar.any_text
        assert ids == set(range(vocab.size)) - vocab.image_ids - {vocab.eoi} - (set() if boi else {vocab.boi})
    assert not thought("").request.grammar.any_text


def test_the_end_at_the_last_image() -> None:
    assert thought("").request.grammar.stop_after_images is None
    grammar = thought("end-at-last-image,published-limits").request.grammar
    assert grammar.stop_after_images == grammar.max_images == PUBLISHED_IMAGES


def test_a_first_image_that_does_not_fit_is_drawn_all_the_same() -> None:
    sampling = thinker().thinking.sampling(Task(prompt="")).updated({"max_tokens": 3})
    with pytest.raises(ConfigError, match="too small for one picture"):
        thought("", "critique", sampling=sampling)
    grammar = thought("unchecked-first-image", "critique", sampling=sampling).request.grammar
    assert grammar.budget == tokenizer().vocab.image_length


def test_published_sampling_takes_the_checkpoints_own_settings() -> None:
    by = thinker(text_temperature=0.5)
    by.thinking.generation.update({"top_p": 0.7})  # type: ignore[attr-defined]
    sampling = by.thinking.sampling(Task(prompt="", compat="published-sampling"))
    assert (sampling.image_top_p, sampling.image_top_k, sampling.text_top_k) == (0.7, PUBLISHED_TOP_K, PUBLISHED_TOP_K)
    assert (sampling.text_temperature, sampling.text_top_p) == (1.0, 0.9)


def test_any_quirk_of_guidance_takes_the_published_scales_and_says_so_in_the_trace() -> None:
    trace = thinker().think("a red ab", mode="critique", compat="reference")
    assert trace.settings["guidance"]["plan"] == "reference"
    assert set(trace.settings["compat"]) == set(ALL)
    assert set(thought("", guidance="reference").quirks) == OF_GUIDANCE
    assert thought("any-text").plan.name == "paper"
    assert "compat" not in thinker().think("a red ab").settings


def test_padding_that_was_written_is_not_read_again_after_the_next_image() -> None:
    assert thought("pads-unread,any-text").request.unread == {tokenizer().vocab.pad}
    assert thought("").request.unread == frozenset()
