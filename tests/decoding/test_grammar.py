"""Whatever the model prefers, a thought is text and whole images, and it fits its room."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twgi.decoding.grammar import Choice, FinishReason, Grammar, State, allowed_ids
from twgi.errors import ConfigError
from twgi.vocab import Vocab

VOCAB = Vocab(
    size=40, bos=0, pad=1, eos=2, unk=3, boi=20, eoi=21, separator=22, placeholder=23, reserved=(24, 25),
    image_tokens=(9, 8, 7, 6, 5, 4, 19, 18), tokens_per_image=5,
)  # fmt: skip


@st.composite
def grammars(draw: st.DrawFn) -> Grammar:
    starts = draw(st.booleans())
    budget = draw(st.integers(VOCAB.image_length if starts else 1, 60))
    stop = draw(st.one_of(st.none(), st.integers(1, 3)))
    images = draw(st.integers(1 if starts else 0, 4))
    return Grammar(vocab=VOCAB, budget=budget, max_images=images, starts_with_image=starts, stop_after_images=stop)


def walk(grammar: Grammar, seed: int) -> tuple[list[int], State]:
    """A thought of a model that prefers everything equally, or bois above all."""
    chance, state, tokens = random.Random(seed), State(), []
    while state.finish is None:
        token = grammar.forced(state)
        if token is None:
            ids = allowed_ids(VOCAB, grammar.choice(state))
            greedy_for_images = VOCAB.boi in ids and chance.random() < 0.3
            token = VOCAB.boi if greedy_for_images else chance.choice(ids)
        assert grammar.allows(state, token)
        tokens.append(token)
        state = grammar.advance(state, token)
    return tokens, state


def split(tokens: list[int]) -> tuple[list[list[int]], list[int]]:
    """The images (between boi and eoi) and the words."""
    images, words, rest = [], [], iter(tokens)
    for token in rest:
        if token == VOCAB.boi:
            images.append(list(iter(lambda: next(rest), VOCAB.eoi)))
        else:
            words.append(token)
    return images, words


@given(grammars(), st.integers(0, 2**32))
def test_every_image_is_whole_and_text_is_only_text(grammar: Grammar, seed: int) -> None:
    tokens, state = walk(grammar, seed)
    images, words = split(tokens)
    assert all(len(image) == VOCAB.tokens_per_image and VOCAB.image_ids.issuperset(image) for image in images)
    assert set(words[:-1]) <= set(VOCAB.text_ids)
    assert set(words[-1:]) <= {*VOCAB.text_ids, VOCAB.eos}
    assert len(images) == state.images <= grammar.max_images


@given(grammars(), st.integers(0, 2**32))
def test_a_thought_fits_its_budget_and_says_why_it_ended(grammar: Grammar, seed: int) -> None:
    tokens, state = walk(grammar, seed)
    assert len(tokens) == state.tokens <= grammar.budget
    complete = tokens[-1] == VOCAB.eoi and state.images == grammar.stop_after_images
    stopped = tokens[-1] == VOCAB.eos or complete
    assert state.finish == (FinishReason.STOP if stopped else FinishReason.LENGTH)
    assert stopped or len(tokens) == grammar.budget


@given(grammars(), st.integers(0, 2**32))
def test_a_forced_first_image_is_drawn(grammar: Grammar, seed: int) -> None:
    tokens, _ = walk(grammar, seed)
    assert not grammar.starts_with_image or tokens[0] == VOCAB.boi


@given(grammars(), st.integers(0, 2**32))
def test_only_what_is_allowed_is_allowed(grammar: Grammar, seed: int) -> None:
    tokens, _ = walk(grammar, seed)
    state = State()
    for token in tokens:
        forced = grammar.forced(state)
        expected = {forced} if forced is not None else set(allowed_ids(VOCAB, grammar.choice(state)))
        assert {other for other in range(VOCAB.size) if grammar.allows(state, other)} == expected
        state = grammar.advance(state, token)
    assert not any(grammar.allows(state, other) for other in range(VOCAB.size))


def test_no_image_starts_where_a_whole_one_does_not_fit() -> None:
    cost = VOCAB.image_length
    fits = Grammar(vocab=VOCAB, budget=cost, max_images=1)
    short = Grammar(vocab=VOCAB, budget=cost - 1, max_images=1)
    assert fits.choice(State()) is Choice.TEXT_OR_BOI
    assert short.choice(State()) is Choice.TEXT


def test_a_forced_image_without_room_is_an_error_with_the_counts() -> None:
    with pytest.raises(ConfigError, match="needs 7 tokens, and there is room for 6"):
        Grammar(vocab=VOCAB, budget=6, max_images=1, starts_with_image=True)


def test_text_may_follow_the_last_image_that_is_allowed() -> None:
    grammar = Grammar(vocab=VOCAB, budget=100, max_images=1)
    state = State()
    for token in (VOCAB.boi, *VOCAB.image_tokens[:5], VOCAB.eoi):
        state = grammar.advance(state, token)
    assert state.finish is None
    assert grammar.choice(state) is Choice.TEXT
    assert not grammar.allows(state, VOCAB.boi)


def test_a_thought_of_one_picture_ends_with_it() -> None:
    tokens, state = walk(Grammar(vocab=VOCAB, budget=100, max_images=1, starts_with_image=True, stop_after_images=1), 0)
    assert (len(tokens), state.finish) == (VOCAB.image_length, FinishReason.STOP)
