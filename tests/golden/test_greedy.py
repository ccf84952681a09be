"""Greedy decoding, token for token as the reference does it (case f): single pictures, then whole thoughts."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.golden.test_guidance import BRANCHES, guidance_of
from torch import Tensor

from twgi.checkpoint.load import Loaded
from twgi.decoding.engine import Engine
from twgi.decoding.events import Token
from twgi.decoding.grammar import Grammar
from twgi.decoding.guidance import PRESETS, Guidance, GuidancePlan, Ids, Scales, branch_ids
from twgi.decoding.params import Filter, SamplingParams
from twgi.decoding.request import Conditions, Request
from twgi.decoding.sampler import combined
from twgi.thinking.modes import NEGATIVE_PROMPT
from twgi.thinking.request import plan
from twgi.thinking.thinker import Thinker, ThinkOptions, task_of

GREEDY = Filter(temperature=0)
MODES = {
    "image_critique": "critique",
    "object_thoughts": "subgoal",
    "general": "general",
    "general_with_image": "general",
}
LOGITS = 5e-4


class Reference:
    """The set's model, and the rows of its guidance."""

    def __init__(self, loaded: Loaded, cases: dict[str, Any]) -> None:
        self.model, self.vocab, self.loaded = loaded.model, loaded.tokenizer.vocab, loaded
        self.negative: list[int] = cases["f"]["negative_prompt_ids"]
        self.scales: dict[str, dict[str, float]] = cases["d"]["scales"]

    def row(self, branch: Any, history: Any, prompt: Any) -> Ids:
        return branch_ids(
            branch, history, prompt=prompt or (), negative=self.negative, vocab=self.vocab, bos=self.loaded.config_bos
        )

    def request(self, id: int, ids: list[int], guidance: Guidance, prompt: Any) -> Request:
        """One picture, from a history that ends in boi."""
        assert ids[-1] == self.vocab.boi != ids[0]
        grammar = Grammar(
            vocab=self.vocab, budget=self.vocab.image_length, max_images=1, starts_with_image=True, stop_after_images=1
        )
        return Request(
            id=id, prompt=tuple(ids[:-1]), grammar=grammar, text=GREEDY, image=GREEDY,
            guidance={"picture": guidance},
            conditions=Conditions(
                prompt=tuple(prompt or ()), negative=tuple(self.negative), bos=self.loaded.config_bos
            ),
        )  # fmt: skip

    def draw(self, *requests: Request) -> list[list[int]]:
        engine = Engine(self.model, self.vocab, tokens=5 * self.model.config.max_positions)
        for request in requests:
            engine.submit(request)
        drawn: list[list[int]] = [[] for _ in requests]
        for event in engine.run():
            if isinstance(event, Token):
                drawn[event.id].append(event.token)
        return [tokens[1:] for tokens in drawn]  # without boi, which the histories have


@pytest.fixture(scope="module")
def reference(loaded: Loaded, cases: dict[str, Any]) -> Reference:
    return Reference(loaded, cases)


def test_every_picture_is_drawn_token_for_token(reference: Reference, cases: dict[str, Any]) -> None:
    for case in cases["f"]["segments"]:
        guidance = guidance_of(case["cfg_type"], reference.scales[case["scales"]])
        request = reference.request(0, case["token_ids"], guidance, case["original_prompt_tokens"])
        (drawn,) = reference.draw(request)
        assert drawn == case["kept"], case["name"]
        assert case["generated"] == [*drawn, reference.vocab.eos]


def test_two_prompts_at_once_are_drawn_as_each_alone(reference: Reference, cases: dict[str, Any]) -> None:
    case = cases["f"]["batch_of_two"]
    guidance = guidance_of(case["cfg_type"], reference.scales[case["scales"]])
    pairs = list(zip(case["token_ids"], case["original_prompt_tokens"], strict=True))
    drawn = reference.draw(*(reference.request(i, ids, guidance, prompt) for i, (ids, prompt) in enumerate(pairs)))
    assert [[*tokens, reference.vocab.eos] for tokens in drawn] == case["generated"]
    order = cases["e"]["row_order"][case["cfg_type"]]
    rows = [reference.row(BRANCHES[name], ids, prompt) for name in order for ids, prompt in pairs]
    width = max(map(len, rows))
    assert case["input_ids"] == [[reference.vocab.pad] * (width - len(row)) + list(row) for row in rows]
    assert case["attention_mask"] == [[0] * (width - len(row)) + [1] * len(row) for row in rows]


def test_the_mixed_logits_of_every_step(reference: Reference, cases: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    checked = set()
    for case in cases["f"]["segments"]:
        name, generated = case["name"], case["generated"]
        logits_TV = mixed_logits(reference, case)
        values, ids = logits_TV.topk(arrays[f"{name}.top5_ids"].shape[1])
        assert len(ids) == len(generated)
        torch.testing.assert_close(values, arrays[f"{name}.top5_values"], atol=LOGITS, rtol=0)
        told = logits_TV.gather(1, arrays[f"{name}.top5_ids"])  # two that are next to equal may change places
        torch.testing.assert_close(told, arrays[f"{name}.top5_values"], atol=LOGITS, rtol=0)
        first = arrays[f"{name}.mixed_logits_first_2_steps"]
        torch.testing.assert_close(logits_TV[: len(first)], first, atol=LOGITS, rtol=0)
        checked |= {f"{name}.{what}" for what in ("top5_ids", "top5_values", "mixed_logits_first_2_steps")}
    assert checked == {name for name in arrays if name.startswith("f.")}


def mixed_logits(reference: Reference, case: dict[str, Any]) -> Tensor:
    """[steps, vocabulary], before any token is masked; each row read in one pass with what was drawn."""
    guidance = guidance_of(case["cfg_type"], reference.scales[case["scales"]])
    rows, weights = [], []
    for branch, weight in guidance.weights.items():
        ids = [*reference.row(branch, case["token_ids"], case["original_prompt_tokens"]), *case["generated"][:-1]]
        states = reference.model(torch.tensor([ids]))[0, -len(case["generated"]) :]
        rows.append(reference.model.logits(states))
        weights.append(weight)
    steps = [
        combined(torch.stack([row[t] for row in rows]), [list(enumerate(weights))])[0]
        for t in range(len(case["generated"]))
    ]
    return torch.stack(steps)


def thinker_of(loaded: Loaded) -> Thinker:
    return Thinker(loaded.model, loaded.tokenizer, loaded)


def options_of(case: dict[str, Any], golden: Path, mode: str) -> ThinkOptions:
    return {
        "mode": MODES[mode],
        "pictures": [golden / name for name in case.get("images", ())],
        "compat": "reference",
    }


def test_the_prompts_are_encoded_as_published(loaded: Loaded, cases: dict[str, Any], golden: Path) -> None:
    facts, boi = thinker_of(loaded).facts, loaded.tokenizer.vocab.boi
    assert cases["f"]["negative_prompt_text"] == NEGATIVE_PROMPT
    assert loaded.tokenizer.text.encode(NEGATIVE_PROMPT) == cases["f"]["negative_prompt_ids"]
    for mode, prompts in cases["f"]["loaded_prompts"].items():
        for case in prompts:
            request = plan(0, task_of(case["prompt"], **options_of(case, golden, mode)), facts).request
            forced = [boi] if request.grammar.starts_with_image else []
            assert [*request.prompt, *forced] == case["prompt_tokens"]
            if mode == "object_thoughts":  # a quirk: the prompt branch has lost it
                assert request.conditions.prompt == ()
            else:
                assert list(request.conditions.prompt) == case["original_prompt_tokens"]


def test_whole_thoughts_are_those_of_the_reference(loaded: Loaded, cases: dict[str, Any], golden: Path) -> None:
    thinker, vocab = thinker_of(loaded), loaded.tokenizer.vocab
    assert {MODES[flow["mode"]] for flow in cases["f"]["flows"]} == {"critique", "subgoal", "general"}
    for flow in cases["f"]["flows"]:
        options = options_of(flow, golden, flow["mode"])
        if flow["name"].endswith("_intended"):  # quirk 9 set right, all others kept
            options["compat"] = "reference,-prompt-forgotten"
        prompt = plan(0, task_of(flow["prompt"], **options), thinker.facts).request.prompt
        options |= {"guidance": plan_of(flow, cases), "sampling": greedy(flow, len(prompt))}
        done = thinker.think(flow["prompt"], **options)
        assert done.end_token == (vocab.eos if flow["ends_with_eos"] else None)
        ended = [vocab.eos] if flow["ends_with_eos"] else []
        assert [*prompt, *done.tokens, *ended] == flow["tokens"], flow["name"]
        assert len(done.images) == flow["num_images"]


def greedy(flow: dict[str, Any], prompt: int) -> SamplingParams:
    """The published limit counts the prompt, ours what comes after it."""
    return SamplingParams(
        text_temperature=0, image_temperature=0, max_images=flow["max_images"], max_tokens=flow["max_length"] - prompt
    )


def plan_of(flow: dict[str, Any], cases: dict[str, Any]) -> GuidancePlan:
    """The preset `reference`, whose scales must be the set's; in general mode any scheme may be asked for."""
    published, preset = cases["d"]["scales"]["reference"], PRESETS["reference"]
    for kind in ("part", "whole", "draft", "redraw"):
        scheme = "obj" if kind == "part" else "full"
        assert preset.for_picture(kind).weights == guidance_of(scheme, published).weights
    scales = {"full": published["full"], "image": published["image"]}
    if flow["cfg_type"] == "full":
        scales |= {"negative": published["negative"], "prompt": published["original_prompt"]}
    if flow["mode"] != "general":
        return preset
    return replace(preset, scales={**preset.scales, "free": Scales(scheme=flow["cfg_type"], **scales)})


def test_padding_inside_a_text_is_not_read_as_in_the_reference(loaded: Loaded, cases: dict[str, Any]) -> None:
    case, vocab = cases["f"]["padding_id_inside_a_text_prompt"], loaded.tokenizer.vocab
    prompt = tuple(case["token_ids"])
    assert vocab.pad in prompt
    write = partial(written, loaded, prompt, len(case["with_full_mask"]))
    assert write(frozenset()) == case["with_full_mask"]
    assert write(frozenset({vocab.pad})) == case["reference_without_mask"]


def written(loaded: Loaded, prompt: Ids, count: int, unread: frozenset[int]) -> list[int]:
    vocab = loaded.tokenizer.vocab
    grammar = Grammar(vocab=vocab, budget=count, max_images=0, any_text=True)
    engine = Engine(loaded.model, vocab, tokens=2 * loaded.model.config.max_positions)
    engine.submit(Request(id=0, prompt=prompt, grammar=grammar, text=GREEDY, image=GREEDY, guidance={}, unread=unread))
    return [event.token for event in engine.run() if isinstance(event, Token)]
