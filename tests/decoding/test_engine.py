"""The laws of the engine, on tiny random models."""

import random
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.decoding.worlds import NEGATIVE, VOCAB, decode, request, tiny_model, tokens_of

from twgi.decoding.engine import Engine
from twgi.decoding.grammar import FinishReason, State, allowed_ids
from twgi.decoding.guidance import Guidance, Ids
from twgi.decoding.logits import draw
from twgi.decoding.params import Filter
from twgi.decoding.sequence import Event, Finished, Request, Token
from twgi.errors import ConfigError, PromptError
from twgi.model.transformer import Transformer

GUIDANCES: tuple[tuple[Guidance, ...], ...] = (
    (Guidance.normal(1.0),),
    (Guidance.normal(2.0),),
    (Guidance.obj(5.0, 3.0), Guidance.obj(5.0, 3.0), Guidance.full(2.0, 1.2, 3.0, 5.0)),
    (Guidance.full(1.5, 0.8, 3.0, 5.0),),
    (Guidance.full(0.0, 1.0, 0.0, 5.0), Guidance.normal(2.0, 1.0)),
)
PROMPTS: tuple[Ids, ...] = ((0, 30, 31, 32, 22), (0, 30, 31, 33, 22), (0, 45, 22), (50,), (0, *range(26, 60), 22))


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


def renamed(many: list[Request]) -> list[Request]:
    return [Request(**{**one.__dict__, "id": name}) for name, one in enumerate(many)]


def naive(one: Request, model: Transformer) -> list[int]:
    """Every row read anew for every token, nothing kept, nothing batched, nothing shared."""
    state, tokens = State(), list[int]()
    rows: tuple[tuple[Ids, float], ...] = ((one.prompt if one.reread is None else one.reread(one.prompt), 1.0),)
    while state.finish is None:
        token = one.grammar.forced(state)
        if token is None:
            choice = one.grammar.choice(state)
            ids = torch.tensor(allowed_ids(VOCAB, choice))
            logits = sum(weight * model.logits(model(torch.tensor([row]))[:, -1])[:, ids] for row, weight in rows)
            by = one.image if state.in_image else one.text
            assert isinstance(logits, torch.Tensor)
            (token,) = draw(logits, ids, by, [one.noise.start(len(one.prompt) + len(tokens))])
        tokens.append(token)
        state = one.grammar.advance(state, token)
        history = (*one.prompt, *tokens)
        if token == VOCAB.boi:
            rows = one.guide(state.images - 1, history)
        elif state.in_image:
            rows = tuple(((*row, token), weight) for row, weight in rows)
        elif token == VOCAB.eoi:
            rows = ((history if one.reread is None else one.reread(history), 1.0),)
        else:
            rows = (((*rows[0][0], token), 1.0),)
    return tokens


@settings(max_examples=12)
@given(st.lists(requests(), min_size=1, max_size=7), st.integers(5, 40), st.randoms())
def test_a_sequence_does_not_depend_on_its_neighbours(many: list[Request], rows: int, chance: random.Random) -> None:
    many = renamed(many)
    together = decode(many, rows=rows)
    shuffled = many[:]
    chance.shuffle(shuffled)
    assert decode(shuffled, rows=11) == together
    for one in many:
        assert decode([one], rows=5)[one.id] == together[one.id]


@settings(max_examples=15)
@given(requests(), st.booleans())
def test_a_sequence_is_what_decoding_without_any_cache_gives(one: Request, swin_norm: bool) -> None:
    model = tiny_model(swin_norm=swin_norm, packed=False)
    with torch.inference_mode():
        assert decode([one], model=model)[one.id] == naive(one, model)


@settings(max_examples=12)
@given(st.lists(requests(), min_size=2, max_size=6), st.randoms())
def test_sequences_enter_and_leave_at_any_step_and_harm_no_other(many: list[Request], chance: random.Random) -> None:
    many = renamed(many)
    alone = {one.id: decode([one], rows=5)[one.id] for one in many}
    engine, left, events = Engine(tiny_model(), VOCAB, rows=12), many[:], list[Event]()
    doomed = {one.id for one in many if chance.random() < 0.4}
    while left or engine.busy:
        if left and chance.random() < 0.3:
            engine.submit(left.pop())
        if chance.random() < 0.05:
            engine.cancel(doomed.pop() if doomed else -1)
        events += engine.step()
    reasons = {event.id: event.reason for event in events if isinstance(event, Finished)}
    assert set(reasons) == set(alone)
    for name, tokens in tokens_of(events).items():
        cancelled = reasons[name] is FinishReason.CANCELLED
        assert tokens == (alone[name][: len(tokens)] if cancelled else alone[name])


def test_the_positions_of_tokens_count_from_the_prompt() -> None:
    engine = Engine(tiny_model(), VOCAB, rows=5)
    engine.submit(request(prompt=PROMPTS[0], starts_with_image=True, stop_after_images=1))
    events = list(engine.run())
    tokens = [event for event in events if isinstance(event, Token)]
    assert [event.position for event in tokens] == list(range(5, 5 + VOCAB.image_length))
    assert events[-1] == Finished(0, FinishReason.STOP)
    assert (tokens[0].token, tokens[-1].token) == (VOCAB.boi, VOCAB.eoi)


class Counter:
    """How many ids the model reads, in how many rows at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read, self.steps, self.most_rows, self.slots = 0, 0, 0, set[int]()
        forward = Transformer.forward_cached

        def counted(model: Transformer, tokens_N: torch.Tensor, step: Any) -> torch.Tensor:
            self.read += len(tokens_N)
            self.steps += 1
            self.most_rows = max(self.most_rows, len(step.pieces))
            self.slots |= {piece.row for piece in step.pieces}
            return forward(model, tokens_N, step)

        monkeypatch.setattr(Transformer, "forward_cached", counted)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


PICTURE: dict[str, Any] = {"starts_with_image": True, "stop_after_images": 1}
DRAWN = VOCAB.tokens_per_image  # image tokens that each row of a picture reads, but for the last one


def test_a_branch_without_weight_does_not_run(counter: Counter) -> None:
    prompt = PROMPTS[0]
    decode([request(prompt=prompt, guidances=(Guidance.normal(1.0),), **PICTURE)])
    assert counter.most_rows == 1
    assert counter.read == len(prompt) + 1 + DRAWN - 1
    decode([request(prompt=prompt, guidances=(Guidance.obj(2.0, 0.0),), **PICTURE)])
    assert counter.most_rows == 2


def test_rows_of_equal_tokens_run_once(counter: Counter) -> None:
    """The first picture of a prompt without bos: its image row and its unconditional row are both boi alone."""
    decode([request(prompt=(50,), guidances=(Guidance.full(2.0, 1.2, 0.0, 5.0),), **PICTURE)])
    assert counter.most_rows == 2  # without words its prompt row is boi alone, too


def test_nothing_is_read_twice_in_a_thought_of_many_pictures(counter: Counter) -> None:
    prompt, guidances = PROMPTS[0], (Guidance.obj(5.0, 3.0),)
    one = request(prompt=prompt, guidances=guidances, budget=80, max_images=4, starts_with_image=True, seed=5)
    tokens = decode([one])[one.id]
    pictures = tokens.count(VOCAB.boi)
    assert pictures > 1, "the test needs a thought of more pictures"
    full = len(prompt) + len(tokens) - 1
    assert counter.read <= full + len(NEGATIVE) + pictures * 2 * DRAWN
    assert counter.read >= full + len(NEGATIVE) + (pictures - 1) * 2 * DRAWN


def test_the_image_row_goes_on_from_picture_to_picture(counter: Counter) -> None:
    prompt, guidances = PROMPTS[0], (Guidance.normal(2.0, -1.0),)  # full and image; no weight is left for unconditional
    one = request(prompt=prompt, guidances=guidances, budget=80, max_images=4, starts_with_image=True, seed=5)
    tokens = decode([one])[one.id]
    full = len(prompt) + len(tokens) - 1
    pictures = tokens.count(VOCAB.boi)
    assert pictures > 1, "the test needs a thought of more pictures"
    assert counter.read <= full + 1 + pictures * VOCAB.image_length


@pytest.mark.parametrize("rows", [5, 8, 40])
def test_samples_of_a_prompt_share_its_reading(counter: Counter, rows: int) -> None:
    prompt, count = PROMPTS[4], 6
    guidances = (Guidance.full(2.0, 1.0, 3.0, 5.0),)
    decode([request(i, prompt=prompt, sample=i, guidances=guidances, **PICTURE) for i in range(count)], rows=rows)
    once = (len(prompt) - 1) + (len(prompt) - 2) + len(NEGATIVE) + 1  # full, bare, negative, image rows: beginnings
    own = count * (2 + 4 * 1 + 5 * (DRAWN - 1))
    assert counter.read == once + own
    assert len(counter.slots) <= rows


def test_rows_are_bounded_and_everything_is_done_in_the_end(counter: Counter) -> None:
    many = [request(i, sample=i, guidances=GUIDANCES[2 + i % 2], starts_with_image=True) for i in range(9)]
    assert set(decode(many, rows=7)) == set(range(9))
    assert counter.most_rows <= 7
    assert counter.slots <= set(range(7))


def test_a_long_prompt_is_read_in_pieces_and_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one = request(prompt=PROMPTS[4], guidances=GUIDANCES[3], starts_with_image=True, by=Filter(temperature=0))
    whole = decode([one])
    monkeypatch.setattr("twgi.decoding.engine.PIECE", 5)
    assert decode([one]) == whole


def test_more_than_the_context_holds_is_refused_before_anything_runs() -> None:
    engine = Engine(tiny_model(), VOCAB, rows=5)
    with pytest.raises(PromptError, match="36 prompt tokens and 130 more exceed the context of 160"):
        engine.submit(request(prompt=PROMPTS[4], budget=130))
    with pytest.raises(ConfigError, match="needs 5 cache rows, and there are 4"):
        Engine(tiny_model(), VOCAB, rows=4).submit(request(guidances=GUIDANCES[3]))
    assert not engine.busy


def test_the_context_can_be_used_to_its_last_position() -> None:
    one = request(prompt=PROMPTS[4], budget=160 - 36, max_images=99, starts_with_image=True, by=Filter(temperature=0))
    assert len(decode([one])[one.id]) <= 124


def test_cancelling_what_is_not_there_does_nothing() -> None:
    engine = Engine(tiny_model(), VOCAB, rows=5)
    engine.cancel(7)
    assert not engine.busy


@settings(max_examples=8)
@given(st.lists(requests(), min_size=1, max_size=3))
def test_rows_in_turn_give_the_same_tokens(many: list[Request]) -> None:
    many = renamed(many)
    assert decode(many, serial=True) == decode(many)


@settings(max_examples=8)
@given(requests())
def test_text_can_be_written_after_another_row(one: Request) -> None:
    """With a first id that is left out of what text is written after, as if it had never been there."""
    assume(len(one.prompt) > 1)
    without_first = Request(**{**one.__dict__, "reread": lambda history: history[1:], "most_rows": 6})
    assert decode([without_first], model=tiny_model(packed=False))[0] == naive(without_first, tiny_model(packed=False))
