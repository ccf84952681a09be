"""Greedy decoding, token for token as the reference does it, on its tiny model (golden set f)."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from twgi.checkpoint.load import Loaded, load
from twgi.decoding.engine import Engine
from twgi.decoding.grammar import Grammar
from twgi.decoding.guidance import Guidance, Ids, branch_ids, merge_equal
from twgi.decoding.logits import Noise
from twgi.decoding.params import Filter
from twgi.decoding.sequence import Guide, Request, Token
from twgi.vocab import Vocab

Find = Callable[[str], Path]
GREEDY = Filter(temperature=0)


@pytest.fixture
def loaded(shared: Find) -> Loaded:
    return load(shared("golden/checkpoint_fork"))


@pytest.fixture
def cases(shared: Find) -> dict[str, Any]:
    everything: dict[str, Any] = json.loads(shared("golden/cases.json").read_text())
    return everything


def guidance_of(cases: dict[str, Any], scheme: str, scales: str) -> Guidance:
    scale = cases["d"]["scales"][scales]
    if scheme == "normal":
        return Guidance.normal(scale["full"], scale["image"])
    if scheme == "obj":
        return Guidance.obj(scale["full"], scale["negative"])
    return Guidance.full(scale["full"], scale["image"], scale["negative"], scale["original_prompt"])


def rows(
    k: int, history: Ids, *, guidance_at: Callable[[int], Guidance], prompt: Ids, negative: Ids, vocab: Vocab
) -> tuple[tuple[Ids, float], ...]:
    ids = partial(branch_ids, history=history, prompt=prompt, negative=negative, vocab=vocab, bos=vocab.pad)
    return merge_equal((ids(branch), weight) for branch, weight in guidance_at(k).weights.items())


def decode(loaded: Loaded, prompt: list[int], guide: Guide, **rules: Any) -> list[int]:
    engine = Engine(loaded.model, loaded.tokenizer.vocab, rows=5)
    grammar = Grammar(vocab=loaded.tokenizer.vocab, **rules)
    noise = Noise(seed=0, prompt=prompt)
    engine.submit(
        Request(
            id=0,
            prompt=tuple(prompt),
            grammar=grammar,
            text=GREEDY,
            image=GREEDY,
            noise=noise,
            guide=guide,
            most_rows=5,
        )
    )
    return [event.token for event in engine.run() if isinstance(event, Token)]


def test_every_picture_is_drawn_as_the_reference_draws_it(loaded: Loaded, cases: dict[str, Any]) -> None:
    vocab = loaded.tokenizer.vocab
    for segment in cases["f"]["segments"]:

        def guidance_at(k: int, scheme: str = segment["cfg_type"], scales: str = segment["scales"]) -> Guidance:
            return guidance_of(cases, scheme, scales)

        guide = partial(
            rows,
            guidance_at=guidance_at,
            prompt=tuple(segment["original_prompt_tokens"] or ()),
            negative=tuple(cases["f"]["negative_prompt_ids"]),
            vocab=vocab,
        )
        prompt = segment["token_ids"]
        assert prompt[-1] == vocab.boi
        drawn = decode(
            loaded, prompt[:-1], guide, budget=100, max_images=1, starts_with_image=True, stop_after_images=1
        )
        assert drawn[1:] == segment["kept"], segment["name"]


def test_whole_thoughts_are_those_of_the_reference(loaded: Loaded, cases: dict[str, Any]) -> None:
    vocab = loaded.tokenizer.vocab
    for flow in cases["f"]["flows"]:
        scheme, mode = flow["cfg_type"], flow["mode"]
        lost = flow["name"] in ("object_0", "object_1")  # the reference loses the prompt of subgoal chains
        prompt = flow["prompt_tokens"]
        forced = prompt[-1] == vocab.boi
        prompt = prompt[:-1] if forced else prompt

        def guidance_at(k: int, scheme: str = scheme, mode: str = mode) -> Guidance:
            name = ("obj" if k < 2 else "full") if mode == "object_thoughts" else scheme
            return guidance_of(cases, name, "reference")

        guide = partial(
            rows,
            guidance_at=guidance_at,
            prompt=() if lost else tuple(flow["original_prompt_tokens"]),
            negative=tuple(cases["f"]["negative_prompt_ids"]),
            vocab=vocab,
        )
        tokens = decode(
            loaded, prompt, guide, budget=flow["max_length"] - len(prompt), max_images=flow["max_images"],
            starts_with_image=forced, stop_after_images=flow["max_images"],
        )  # fmt: skip
        assert [*prompt, *tokens] == flow["tokens"], flow["name"]
