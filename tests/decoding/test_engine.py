"""The laws of the engine, on tiny random models."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.decoding.worlds import (
    NEGATIVE,
    VOCAB,
    decode,
    events_of,
    kind_of,
    numbered,
    request,
    room,
    tiny_model,
    tokens_of,
)

from twgi.decoding.engine import Engine
from twgi.decoding.events import Event, Finished, ImageAsked, ImageOpened, Token
from twgi.decoding.grammar import FinishReason, allowed_ids
from twgi.decoding.guidance import Guidance, Ids, branch_ids, merge_equal
from twgi.decoding.params import Filter
from twgi.decoding.request import Request
from twgi.decoding.sampler import draw, filtered
from twgi.decoding.sequence import Noise, Sequence
from twgi.errors import ConfigError
from twgi.model.transformer import Transformer

GUIDANCES: tuple[tuple[Guidance, ...], ...] = (
    (Guidance.normal(1.0),),
    (Guidance.normal(2.0),),
    (Guidance.obj(5.0, 3.0), Guidance.obj(5.0, 3.0), Guidance.full(2.0, 1.2, 3.0, 5.0)),
    (Guidance.full(1.5, 0.8, 3.0, 5.0),),
    (Guidance.full(0.0, 1.0, 0.0, 5.0), Guidance.normal(2.0, 1.0)),
)
PROMPTS: tuple[Ids, ...] = ((0, 30, 31, 32, 22), (0, 30, 31, 33, 22), (0, 45, 22), (50,), (0, *range(26, 60), 22))
PAGES = (1, 4, 32)
WINDOWS = st.one_of(st.sampled_from((1, 2, 64)), st.integers(1, 64))


@st.composite
def requests(draw_: st.DrawFn) -> Request:
    starts = draw_(st.booleans())
    return request(
        prompt=draw_(st.sampled_from(PROMPTS)),
        guidances=draw_(st.sampled_from(GUIDANCES)),
        seed=draw_(st.integers(0, 3)),
        sample=draw_(st.integers(0, 3)),
        budget=draw_(st.integers(VOCAB.image_length, 50)),
        by=draw_(st.sampled_from((Filter(), Filter(temperature=0), Filter(temperature=0.7, top_p=0.9, top_k=20)))),
        starts_with_image=starts,
        stop_after_images=draw_(st.sampled_from((None, 1))) if starts else None,
    )


def weighted_rows(one: Request, number: int, history: Ids) -> list[tuple[Ids, float]]:
    told = one.conditions
    return list(
        merge_equal(
            (branch_ids(branch, history, prompt=told.prompt, negative=told.negative, vocab=VOCAB, bos=told.bos), weight)
            for branch, weight in one.guidance[kind_of(one, number)].weights.items()
        )
    )


def naive(one: Request, model: Transformer) -> Iterator[tuple[int, float | None]]:
    """(token, log p where it was drawn) of a request: every row read anew for every token, nothing kept or batched."""
    noise = Noise(seed=one.seed, prompt=one.prompt, sample=one.sample)
    state, tokens, opened = one.grammar.after(one.given), list(one.given), 0
    while state.finish is None:
        token, log_p, history = one.grammar.forced(state), None, (*one.prompt, *tokens)
        if token is None:
            if state.in_image:
                opened = max(i + 1 for i, token in enumerate(history) if token == VOCAB.boi)
                start = weighted_rows(one, state.images - 1, history[:opened])
                rows = [((*ids, *history[opened:]), weight) for ids, weight in start]
            else:
                last = max((i + 1 for i, token in enumerate(history) if token == VOCAB.eoi), default=len(one.prompt))
                read = tuple(token for token in history[:last] if token not in one.unread)
                rows = [((*read, *history[last:]), 1.0)]
            ids = torch.tensor(allowed_ids(VOCAB, one.grammar.choice(state)))
            logits = sum(weight * model.logits(model(torch.tensor([row]))[:, -1])[:, ids] for row, weight in rows)
            assert isinstance(logits, torch.Tensor)
            by = one.image if state.in_image else one.text
            token = int(draw(logits, ids, by, torch.tensor([noise.start(len(history))])).tokens_R)
            scores = filtered(logits, by) if by.temperature else torch.where(ids == token, 0.0, -torch.inf)[None]
            log_p = float(scores.log_softmax(-1)[0, ids == token])
        tokens.append(token)
        state = one.grammar.advance(state, token)
        yield token, log_p


def check_naive(one: Request, model: Transformer, **settings_: Any) -> None:
    with torch.inference_mode():
        assert decode([one], model=model, **settings_)[one.id] == [token for token, _ in naive(one, model)]


@settings(max_examples=10)
@given(st.lists(requests(), min_size=1, max_size=6), st.integers(0, 600), st.sampled_from(PAGES), WINDOWS, st.randoms())
def test_a_sequence_does_not_depend_on_its_neighbours_nor_on_pages_room_and_window(
    many: list[Request], spare: int, page: int, window: int, chance: random.Random
) -> None:
    many = numbered(many)
    together = decode(many, tokens=room(many, page) + spare, page=page, window=window)
    shuffled = many[:]
    chance.shuffle(shuffled)
    assert decode(shuffled) == together
    for one in many:
        assert decode([one], window=1)[one.id] == together[one.id]


@settings(max_examples=15)
@given(st.lists(requests(), min_size=1, max_size=5), WINDOWS, st.sampled_from(PAGES), st.randoms())
def test_guesses_leave_every_token_as_it_is(many: list[Request], window: int, page: int, chance: random.Random) -> None:
    """Most guesses are right here, words too, so that windows go over every border."""
    many = numbered(many)
    plain = decode(many, window=1)

    def guess(sequence: Sequence, most: int) -> list[int]:
        one, missing, drawn = sequence.request, sequence.state.missing, len(sequence.full.ids)
        most = min(most, (one.grammar.budget - sequence.state.tokens if missing is None else missing) - 1)
        right = [*one.prompt, *plain[one.id]][drawn : drawn + max(most, 0)]
        if missing is None:
            right = list(itertools.takewhile(VOCAB.is_text, right))
        return [token if chance.random() < 0.8 else 30 if missing is None else VOCAB.image_tokens[0] for token in right]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sequence, "guess", guess)
        assert decode(many, window=window, page=page, tokens=room(many, page) + chance.randrange(600)) == plain


@settings(max_examples=15)
@given(requests(), st.booleans(), st.booleans(), st.sampled_from(PAGES), WINDOWS)
def test_a_sequence_is_what_decoding_without_any_cache_gives(
    one: Request, swin_norm: bool, packed: bool, page: int, window: int
) -> None:
    model = tiny_model(swin_norm=swin_norm, packed=packed)
    check_naive(one, model, tokens=room([one], page), page=page, window=window)


@settings(max_examples=8)
@given(requests())
def test_text_can_be_written_as_if_some_ids_were_not_there(one: Request) -> None:
    assume(len(one.prompt) > 1)
    check_naive(replace(one, unread=frozenset({one.prompt[0], 33, 9})), tiny_model(packed=False))


@settings(max_examples=12)
@given(st.lists(requests(), min_size=2, max_size=6), st.sampled_from(PAGES), st.randoms())
def test_sequences_enter_leave_and_are_answered_at_any_step_and_harm_no_other(
    many: list[Request], page: int, chance: random.Random
) -> None:
    many = numbered(many)
    alone = {one.id: decode([one])[one.id] for one in many}
    window = chance.choice((1, 3, 64))
    engine = Engine(tiny_model(), VOCAB, tokens=room(many, page) + 200, page=page, window=window)
    left, events, asked = many[:], list[Event](), list[ImageAsked]()
    doomed = {one.id for one in many if chance.random() < 0.4}
    while left or asked or engine.busy:
        if left and chance.random() < 0.3:
            engine.submit(left.pop())
        if chance.random() < 0.05:
            engine.cancel(doomed.pop() if doomed else -1)
        if asked and chance.random() < 0.4:
            question = asked.pop(chance.randrange(len(asked)))
            engine.answer(question.id, kind_of(many[question.id], question.number))
        stepped = engine.step()
        asked += [event for event in stepped if isinstance(event, ImageAsked)]
        events += stepped
    reasons = {event.id: event.reason for event in events if isinstance(event, Finished)}
    assert set(reasons) == set(alone)
    assert engine.pages.in_use == 0
    for name, tokens in tokens_of(events).items():
        cancelled = reasons[name] is FinishReason.CANCELLED
        assert tokens == (alone[name][: len(tokens)] if cancelled else alone[name])


@settings(max_examples=10)
@given(st.lists(requests(), min_size=1, max_size=4), st.sampled_from(PAGES), st.randoms())
def test_what_is_read_anew_is_what_was_there(many: list[Request], page: int, chance: random.Random) -> None:
    """Rows lose their pages at any step, and find what they held again, or not."""
    many = numbered(many)
    engine, events = Engine(tiny_model(), VOCAB, tokens=room(many, page) + 300, page=page), list[Event]()
    for one in many:
        engine.submit(one)
    for event in engine.run(lambda id, number: kind_of(many[id], number)):
        events.append(event)
        for sequence in engine.scheduler.live:
            for row in sequence.rows if chance.random() < 0.05 else ():
                engine.pages.close(row, keep=chance.random() < 0.5)
    assert tokens_of(events) == decode(many)


def test_tokens_say_where_they_are_and_whether_they_were_drawn() -> None:
    engine = Engine(tiny_model(), VOCAB, tokens=200)
    events = events_of(engine, [request(prompt=PROMPTS[0], starts_with_image=True, stop_after_images=1)])
    tokens = [event for event in events if isinstance(event, Token)]
    assert [event.position for event in tokens] == list(range(5, 5 + VOCAB.image_length))
    assert events[-1] == Finished(0, FinishReason.STOP)
    assert (tokens[0].token, tokens[-1].token) == (VOCAB.boi, VOCAB.eoi)
    assert [event.drawn for event in tokens] == [False, *[True] * VOCAB.tokens_per_image, False]
    assert {event.logprob for event in tokens} == {None}


@settings(max_examples=8)
@given(requests())
def test_a_drawn_token_comes_with_its_log_probability_where_that_is_asked_for(one: Request) -> None:
    model = tiny_model(packed=False)
    asked = replace(one, logprobs=True)
    events = events_of(Engine(model, VOCAB, tokens=1000), [asked, replace(one, id=1)])
    told = [event.logprob for event in events if isinstance(event, Token) and event.id == 0]
    with torch.inference_mode():
        expected = [log_p for _, log_p in naive(asked, model)]
    assert [log_p is None for log_p in told] == [log_p is None for log_p in expected]
    assert told == pytest.approx(expected, abs=1e-3)
    assert all(event.logprob is None for event in events if isinstance(event, Token) and event.id == 1)


def test_the_last_token_is_an_event_too() -> None:
    for seed in range(20):
        tokens = decode([request(seed=seed, max_images=0)])[0]
        if len(tokens) < 60:
            assert tokens[-1] == VOCAB.eos
            return
    raise AssertionError("the test needs a text that ends")


class Counter:
    """How many ids the model reads, in how many rows at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read, self.steps, self.most_rows = 0, 0, 0
        forward = Transformer.forward_cached

        def counted(model: Transformer, tokens_N: torch.Tensor, step: Any) -> torch.Tensor:
            self.read += len(tokens_N)
            self.steps += 1
            self.most_rows = max(self.most_rows, len(step.pieces))
            return forward(model, tokens_N, step)

        monkeypatch.setattr(Transformer, "forward_cached", counted)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


PICTURE: dict[str, Any] = {"starts_with_image": True, "stop_after_images": 1}
DRAWN = VOCAB.tokens_per_image  # image tokens that each row of a picture reads, but for the last one


def test_a_branch_without_weight_does_not_run(counter: Counter) -> None:
    prompt = PROMPTS[0]
    decode([request(prompt=prompt, guidances=(Guidance.normal(1.0),), **PICTURE)], window=1)
    assert counter.most_rows == 1
    assert counter.read == len(prompt) + 1 + DRAWN - 1
    assert counter.steps == DRAWN
    decode([request(prompt=prompt, guidances=(Guidance.obj(2.0, 0.0),), **PICTURE)], window=1)
    assert counter.most_rows == 2


def test_rows_of_equal_tokens_run_once(counter: Counter) -> None:
    """The first picture of a prompt without bos: its image row and its unconditional row are both boi alone."""
    decode([request(prompt=(50,), guidances=(Guidance.full(2.0, 1.2, 0.0, 5.0),), **PICTURE)], window=1)
    assert counter.most_rows == 2  # without words its prompt row is boi alone, too


@pytest.mark.parametrize("spare", [0, 1000])
def test_nothing_is_read_twice_in_a_thought_of_many_pictures(counter: Counter, spare: int) -> None:
    prompt, guidances = PROMPTS[0], (Guidance.obj(5.0, 3.0),)
    one = request(prompt=prompt, guidances=guidances, budget=80, max_images=4, starts_with_image=True, seed=5)
    tokens = decode([one], tokens=room([one]) + spare, window=1)[one.id]
    pictures = tokens.count(VOCAB.boi)
    assert pictures > 1, "the test needs a thought of more pictures"
    full = len(prompt) + len(tokens) - 1
    assert counter.read <= full + len(NEGATIVE) + pictures * 2 * DRAWN
    assert counter.read >= full + len(NEGATIVE) + (pictures - 1) * 2 * DRAWN


@pytest.mark.parametrize("spare", [0, 1000])
def test_the_image_row_goes_on_from_picture_to_picture(counter: Counter, spare: int) -> None:
    prompt, guidances = PROMPTS[0], (Guidance.normal(2.0, -1.0),)  # full and image; no weight is left for unconditional
    one = request(prompt=prompt, guidances=guidances, budget=80, max_images=4, starts_with_image=True, seed=5)
    tokens = decode([one], tokens=room([one]) + spare, window=1)[one.id]
    full = len(prompt) + len(tokens) - 1
    pictures = tokens.count(VOCAB.boi)
    assert pictures > 1, "the test needs a thought of more pictures"
    assert counter.read <= full + 1 + pictures * VOCAB.image_length


@pytest.mark.parametrize("tokens", [150, 300, 2000])
@pytest.mark.parametrize("page", PAGES)
def test_samples_of_a_prompt_share_its_reading(counter: Counter, tokens: int, page: int) -> None:
    prompt, count = PROMPTS[4], 6
    guidances = (Guidance.full(2.0, 1.0, 3.0, 5.0),)
    many = [
        request(i, prompt=prompt, sample=i, guidances=guidances, budget=VOCAB.image_length, max_images=1, **PICTURE)
        for i in range(count)
    ]
    decode(many, tokens=max(tokens, room(many, page)), page=page, window=1)
    once = (len(prompt) - 1) + (len(prompt) - 2) + len(NEGATIVE) + 1  # beginnings of full, bare, negative, image rows
    own = count * (2 + 4 * 1 + 5 * (DRAWN - 1))
    assert counter.read <= once + own + (0 if tokens == 2000 else count * page)  # where room is short, whole pages
    assert counter.read >= own + len(prompt)


def test_a_thought_that_has_ended_is_not_read_again(counter: Counter) -> None:
    engine = Engine(tiny_model(), VOCAB, tokens=1000, window=1)
    first = request(prompt=PROMPTS[4], starts_with_image=True, seed=5, budget=50)
    tokens = tokens_of(events_of(engine, [first]))[0]
    before = counter.read
    given = tuple(tokens[: VOCAB.image_length + 2])
    events = events_of(engine, [replace(first, id=1, given=given)])
    assert tokens_of(events)[1] == tokens[len(given) :]
    read_anew = len(tokens) - len(given) + tokens[len(given) :].count(VOCAB.eoi) * VOCAB.image_length
    assert counter.read - before <= read_anew


def test_what_is_kept_gives_way_to_what_runs() -> None:
    one = request(prompt=PROMPTS[4], guidances=GUIDANCES[3], starts_with_image=True)
    engine = Engine(tiny_model(), VOCAB, tokens=room([one]))
    for name in range(3):
        other = replace(one, id=name, sample=name, prompt=(0, 30 + name, *one.prompt[2:]))
        assert tokens_of(events_of(engine, [other]))[name] == decode([other])[name]


def test_rows_are_bounded_and_everything_is_done_in_the_end(counter: Counter) -> None:
    many = [request(i, sample=i, guidances=GUIDANCES[2 + i % 2], starts_with_image=True) for i in range(5)]
    assert set(decode(many, tokens=room(many))) == set(range(5))
    assert counter.most_rows <= 5


def test_a_long_prompt_is_read_in_pieces_and_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one = request(prompt=PROMPTS[4], guidances=GUIDANCES[3], starts_with_image=True, by=Filter(temperature=0))
    whole = decode([one])
    monkeypatch.setattr("twgi.decoding.scheduler.PIECE", 5)
    assert decode([one]) == whole
    assert decode([one, replace(one, id=1), replace(one, id=2)]) == dict.fromkeys(range(3), whole[0])


def test_the_context_can_be_used_to_its_last_position() -> None:
    for seed in range(8):
        one = request(prompt=PROMPTS[4], budget=160 - 36, max_images=99, starts_with_image=True, seed=seed)
        if len(decode([one])[0]) == 124:
            return
    raise AssertionError("the test needs a thought that fills its context")


def test_what_is_not_there_can_be_cancelled_and_answered_and_nothing_happens() -> None:
    engine = Engine(tiny_model(), VOCAB, tokens=160)
    engine.cancel(7)
    engine.answer(7, "kind 0")
    assert not engine.busy


def test_a_question_is_answered_once_with_a_known_kind() -> None:
    engine = Engine(tiny_model(), VOCAB, tokens=400)
    engine.submit(request(guidances=GUIDANCES[4], starts_with_image=True))
    with pytest.raises(ConfigError, match="has not asked"):
        engine.answer(0, "kind 1")
    assert engine.step() == [Token(0, VOCAB.boi, 5, False), ImageAsked(0, 0)]
    assert not engine.busy
    assert engine.step() == []
    with pytest.raises(ConfigError, match="unknown kind of picture 'whole'; known are kind 0, kind 1"):
        engine.answer(0, "whole")
    engine.answer(0, "kind 1")
    opened = engine.step()[0]
    assert opened == ImageOpened(0, 0, "kind 1", {"full": 2.0, "image": 1.0, "unconditional": -2.0})
    with pytest.raises(ConfigError, match="has not asked"):
        engine.answer(0, "kind 1")


@settings(max_examples=10)
@given(requests(), st.data())
def test_what_is_given_goes_on_as_if_it_had_been_drawn_and_makes_no_events(one: Request, data: st.DataObject) -> None:
    whole = decode([one])[0]
    count = data.draw(st.integers(0, len(whole) - 1))
    again = replace(one, given=tuple(whole[:count]))
    events = events_of(Engine(tiny_model(), VOCAB, tokens=1000), [again])
    assert tokens_of(events)[0] == whole[count:]
    opened = [event.number for event in events if isinstance(event, ImageOpened)]
    closed = whole[:count].count(VOCAB.eoi)
    assert opened == list(range(closed, whole.count(VOCAB.boi)))


@settings(max_examples=8)
@given(st.lists(requests(), min_size=1, max_size=3))
def test_rows_in_turn_give_the_same_tokens(many: list[Request]) -> None:
    many = numbered(many)
    assert decode(many, serial=True) == decode(many)
