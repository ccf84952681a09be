"""Guidance: its arithmetic and its rows (cases d and e), what may come next, and the filters of a draw (case i)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from twgi.checkpoint.load import Loaded
from twgi.decoding.compat import Quirk
from twgi.decoding.grammar import Choice, Grammar, State, allowed_ids
from twgi.decoding.guidance import Branch, Guidance, branch_ids
from twgi.decoding.params import Filter
from twgi.decoding.sampler import combined, filtered
from twgi.errors import ConfigError
from twgi.thinking.settings import Settings
from twgi.thinking.thinker import Thinker

BRANCHES = {
    "full": Branch.FULL, "image_only": Branch.IMAGE, "unconditional": Branch.UNCONDITIONAL,
    "negative": Branch.NEGATIVE, "original_prompt": Branch.PROMPT,
}  # fmt: skip


def guidance_of(scheme: str, scale: dict[str, float]) -> Guidance:
    if scheme == "normal":
        return Guidance.normal(scale["full"], scale["image"])
    if scheme == "obj":
        return Guidance.obj(scale["full"], scale["negative"])
    return Guidance.full(scale["full"], scale["image"], scale["negative"], scale["original_prompt"])


def test_the_weighted_sum_is_the_arithmetic_of_the_reference(cases: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    batch, checked = cases["d"]["batch_size"], set()
    for scheme, order in cases["d"]["row_blocks"].items():
        logits_RTV = arrays[f"d.{scheme}.input"]
        steps, width = logits_RTV.shape[1:]
        for scales, scale in cases["d"]["scales"].items():
            weights = guidance_of(scheme, scale).weights
            expected = arrays[f"d.{scheme}.{scales}"]
            for prompt in range(batch):
                rows = [
                    (i * batch + prompt, weights[BRANCHES[n]]) for i, n in enumerate(order) if BRANCHES[n] in weights
                ]
                got = torch.stack([combined(logits_RTV[:, t], [rows])[0] for t in range(steps)])
                torch.testing.assert_close(got, expected[prompt], atol=1e-4, rtol=0)
            checked.add(f"d.{scheme}.{scales}")
    assert checked == {name for name in arrays if name.startswith("d.") and not name.endswith(".input")}


def test_the_condition_rows_are_those_of_the_reference(cases: dict[str, Any], loaded: Loaded) -> None:
    vocab = loaded.tokenizer.vocab
    for case in cases["e"]["cases"]:
        made = [
            branch_ids(
                BRANCHES[name], case["token_ids"], prompt=case["original_prompt_tokens"] or (),
                negative=case["negative_ids"], vocab=vocab, bos=case["config_bos_token_id"],
            )
            for name in cases["e"]["row_order"][case["cfg_type"]]
        ]  # fmt: skip
        width = max(map(len, made))
        assert case["input_ids"] == [[vocab.pad] * (width - len(row)) + list(row) for row in made], case["name"]
        assert case["attention_mask"] == [[0] * (width - len(row)) + [1] * len(row) for row in made], case["name"]


def ranges(ids: Any) -> list[list[int]]:
    out: list[list[int]] = []
    for token in sorted(ids):
        if out and token == out[-1][1] + 1:
            out[-1][1] = token
        else:
            out.append([token, token])
    return out


def allowed(grammar: Grammar, state: State) -> list[list[int]]:
    forced = grammar.forced(state)
    return [[forced, forced]] if forced is not None else ranges(allowed_ids(grammar.vocab, grammar.choice(state)))


def after(grammar: Grammar, history: list[int]) -> State:
    """The state after what the model said; a history that the grammar could not have written is none."""
    state = State()
    for token in history[history.index(grammar.vocab.separator) + 1 :] if grammar.vocab.separator in history else []:
        assert grammar.allows(state, token), token
        state = grammar.advance(state, token)
    return state


def test_the_same_tokens_are_allowed(cases: dict[str, Any], loaded: Loaded) -> None:
    vocab, seen = loaded.tokenizer.vocab, set()
    for case in cases["i"]["allowed"]:
        history, mode, seen_before = case["history"], case["mode"], len(case["history"])
        said = seen_before - history.index(vocab.separator) - 1 if vocab.separator in history else 0
        seen.add(mode)
        if mode == "image-only":
            room = case["max_new_tokens"] + said - 2 + 1  # the reference asks for an end token too, and boi is ours
            if not case["allowed_ranges"]:
                with pytest.raises(ConfigError, match="needs"):
                    Grammar(vocab=vocab, budget=case["max_new_tokens"], max_images=1, starts_with_image=True)
                continue
            grammar = Grammar(
                vocab=vocab,
                budget=max(room, vocab.image_length),
                max_images=1,
                starts_with_image=True,
                stop_after_images=1,
            )
            state = after(grammar, history)
            if state.finish is not None:
                assert case["allowed_ranges"] == [[vocab.boi, vocab.boi]]  # quirk 5: the reference would draw another
                continue
        elif mode == "unrestricted":
            assert case["allowed_ranges"] == [[0, vocab.size - 1]]
            continue
        else:
            images = 0 if mode == "text-only" else 4
            budget = case["max_length"] - (seen_before - said)
            grammar = Grammar(vocab=vocab, budget=budget, max_images=images, any_text=True)
            try:
                state = after(grammar, history)
            except AssertionError:  # text inside an image, which our grammar cannot write
                assert case["allowed_ranges"] == ranges(allowed_ids(vocab, Choice.IMAGE))
                continue
        assert allowed(grammar, state) == case["allowed_ranges"], case["name"]
    assert seen == {"image-only", "interleaved-text-image", "text-only", "unrestricted"}


def test_temperature_top_k_and_top_p_cut_where_the_reference_cuts(
    cases: dict[str, Any], arrays: dict[str, Tensor]
) -> None:
    for case in cases["i"]["filters"]:
        by = Filter(temperature=case["temperature"], top_k=case["top_k"] or 0, top_p=case["top_p"] or 1.0)
        probabilities = filtered(arrays["i.scores"], by).softmax(-1)
        torch.testing.assert_close(probabilities.float(), arrays[case["name"]], atol=1e-5, rtol=0)
        assert (probabilities > 0).sum(-1).tolist() == case["kept"]
    assert {case["name"] for case in cases["i"]["filters"]} == {name for name in arrays if name.startswith("i.probs.")}


def test_compat_samples_as_the_reference_does(cases: dict[str, Any], loaded: Loaded) -> None:
    effective = cases["i"]["effective_sampling_of_the_reference_with_this_checkpoint"]
    thinker = Thinker(loaded.model, loaded.tokenizer, loaded)
    sampling = thinker.resolved(Settings(compat=Quirk.PUBLISHED_SAMPLING)).sampling
    for phase, by in (("text_phase", sampling.text), ("image_phase", sampling.image)):
        expected = effective[phase]
        assert (by.temperature, by.top_k, by.top_p) == tuple(expected[key] for key in ("temperature", "top_k", "top_p"))
        neutral = (expected["repetition_penalty"], expected["min_p"], expected["typical_p"], expected["do_sample"])
        assert neutral == (1.0, None, 1.0, True)
