"""A session takes thoughts in and ends them at any time, from any thread, and one that fails ends alone."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.thinking.tiny import thinker, tokenizer

from twgi.decoding.params import SamplingParams
from twgi.errors import ConfigError, RunError
from twgi.model.transformer import Transformer
from twgi.thinking.events import Done, ImageFinished, ImageStarted, ThoughtEvent, ThoughtFailed
from twgi.thinking.thinker import Inbox, ThinkOptions, task_of
from twgi.trace import ImageSegment, Segment

SHORT = SamplingParams(max_tokens=60)
CRITIQUE: ThinkOptions = {"mode": "critique", "seed": 1, "sampling": SHORT}


def test_threads_share_a_session_and_each_hears_its_own_thought() -> None:
    by = thinker()
    by.session(8)
    words = [f"a red {'ab' * i}" for i in range(8)]
    alone = [thinker().think(prompt, **CRITIQUE).tokens for prompt in words]

    def think(prompt: str) -> tuple[int, ...]:
        return by.think(prompt, **CRITIQUE).tokens

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(think, words)) == alone


def test_thoughts_begin_and_end_at_any_step_and_the_others_are_as_alone() -> None:
    by, dice = thinker(), random.Random(1)
    session = by.session(4)
    whole = {seed: by.think("ab", mode="general", seed=seed, sampling=SHORT).tokens for seed in range(4)}

    def think(seed: int) -> None:
        inbox = Inbox()
        id = session.begin(task_of("ab", mode="general", seed=seed, sampling=SHORT), inbox)
        stop_at = dice.randrange(60)
        event, heard = None, 0
        while not isinstance(event, Done):
            session.wait(inbox)
            _, event = inbox.popleft()
            if heard == stop_at:
                session.cancel(id)
            heard += 1
        tokens = event.trace.tokens
        cancelled = event.trace.finish_reason == "cancelled"
        assert tokens == (whole[seed][: len(tokens)] if cancelled else whole[seed])
        ended.append(seed)

    ended: list[int] = []
    threads = [threading.Thread(target=think, args=(number % 4,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == sorted([0, 1, 2, 3] * 3)
    assert not session.busy


def test_a_thought_that_is_not_listened_to_any_more_is_cancelled() -> None:
    by = thinker()
    events = by.stream("a red ab", **CRITIQUE)
    assert isinstance(next(event for event in events if isinstance(event, ImageStarted)), ImageStarted)
    events.close()  # type: ignore[attr-defined]
    by.think("ab", sampling=SHORT)
    assert not by.session(1).busy
    assert not by.session(1).engine.busy


def test_a_picture_that_cannot_be_decoded_ends_its_thought_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    by = thinker()
    good, bad = (task_of("ab", seed=seed) for seed in (0, 1))
    (_, whole), (_, broken) = thinker().think_many([good, bad])
    assert not isinstance(broken, Exception)
    hated = broken.tokens
    draw = type(tokenizer()).draw

    def choosy(self: object, segments: list[Segment]) -> tuple[Segment, ...]:
        if isinstance(segments[0], ImageSegment) and segments[0].tokens == hated:
            raise RuntimeError("out of memory")
        return draw(self, segments)  # type: ignore[arg-type]

    monkeypatch.setattr(type(tokenizer()), "draw", choosy)
    results = dict(by.think_many([good, bad]))
    assert isinstance(results[1], RunError)
    assert "a picture cannot be decoded: out of memory" in str(results[1])
    assert results[0].tokens == whole.tokens  # type: ignore[union-attr]


def test_logits_that_are_no_numbers_end_their_thought_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    by, spoilt = thinker(), 12
    alone = by.think("ab", **CRITIQUE).tokens
    logits = Transformer.logits
    heard, spoiled, ends = list[ThoughtEvent](), list[bool](), dict[int, ThoughtEvent]()

    def sick(self: Transformer, hidden_D: object, ids_A: object) -> object:
        result = logits(self, hidden_D, ids_A)  # type: ignore[arg-type]
        if len(heard) > spoilt and not ends and not spoiled:
            result[0] = float("nan")
            spoiled.append(True)
        return result

    monkeypatch.setattr(Transformer, "logits", sick)
    inbox, session = Inbox(), by.session(2)
    first, second = (session.begin(task_of("ab", **CRITIQUE), inbox) for _ in range(2))
    while len(ends) < 2:
        session.wait(inbox)
        id, event = inbox.popleft()
        heard.append(event)
        if isinstance(event, Done | ThoughtFailed):
            ends[id] = event
    failed = ends[first]
    assert isinstance(failed, ThoughtFailed)
    assert "not finite numbers" in str(failed.error)
    done = ends[second]
    assert isinstance(done, Done)
    assert done.trace.tokens == alone


def test_what_a_thought_has_read_is_kept_for_one_that_goes_on_from_it() -> None:
    by = thinker()
    whole = by.think("ab", **CRITIQUE)
    engine = by.session(1).engine
    read: list[int] = []
    run = engine.runner.run

    def counted(batch: object) -> object:
        read.append(sum(count for _, count in batch.pieces))  # type: ignore[attr-defined]
        return run(batch)  # type: ignore[arg-type]

    engine.runner.run = counted  # type: ignore[method-assign,assignment]
    given = whole.tokens[:-5]
    going_on: ThinkOptions = {**CRITIQUE, "given": given}
    again = by.think("ab", **going_on)
    assert again.tokens == whole.tokens
    rows = 5
    assert sum(read) < rows * (5 + 16 + len(whole.images[0].tokens)), "more than the rest, a page and the open picture"


def test_the_pictures_of_what_is_given_are_there_without_an_event() -> None:
    by = thinker()
    whole = by.think("ab", **CRITIQUE)
    given = whole.tokens[: len(whole.images[0].tokens)]
    going_on: ThinkOptions = {**CRITIQUE, "given": given}
    *events, last = by.stream("ab", **going_on)
    assert [event.number for event in events if isinstance(event, ImageFinished)] == [1] * (len(whole.images) - 1)
    assert isinstance(last, Done)
    assert [image.picture is not None for image in last.trace.images] == [True] * len(whole.images)


def test_a_task_that_cannot_be_begun_is_said_at_once() -> None:
    session = thinker().session(1)
    with pytest.raises(ConfigError, match="max-tokens 3 is too small"):
        session.begin(task_of("ab", sampling=SamplingParams(max_tokens=3)), Inbox())
    assert not session.busy
