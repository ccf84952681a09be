"""Thinker: prompt -> Trace, with the events of its segments as they appear.

No thread drives its session: whoever waits for an event steps the engine, for everybody, while the others wait for the
lock. Pictures are decoded on a thread of their own beside the steps, each alone, so that their pixels do not depend on
the batch either.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import fields
from itertools import count
from typing import Any, TypedDict, Unpack

import torch

from twgi.checkpoint.load import ModelDescription
from twgi.checkpoint.memory import free_memory, kv_bytes_per_token
from twgi.decoding.engine import Engine
from twgi.decoding.events import Event, ImageAsked
from twgi.decoding.guidance import Branch, GuidancePlan
from twgi.decoding.params import SamplingParams
from twgi.errors import TwgiError
from twgi.model.transformer import Transformer
from twgi.thinking.events import Done, Picture, Task, ThoughtEvent, ThoughtFailed
from twgi.thinking.request import Described, ModelFacts, plan
from twgi.thinking.settings import Settings
from twgi.thinking.thought import Drawn, Thought
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.trace import ImageSegment, Trace

MOST_ROWS = len(Branch)  # rows of one thought at most, each up to the whole context
SHARE = 0.8  # of the free memory, for the cache


class ThinkOptions(TypedDict, total=False):
    """What may be said of a thought beside its prompt; see `Settings` and `Task`, whose defaults hold."""

    mode: str
    rounds: int
    pictures: Sequence[Picture]
    seed: int
    sample: int
    sampling: SamplingParams
    guidance: str | GuidancePlan | None
    scales: Mapping[str, float]
    negative_prompt: str
    compat: str
    given: Sequence[int]


def task_of(prompt: str, **options: Unpack[ThinkOptions]) -> Task:
    """A prompt and its options as a task. Raises `ConfigError`."""
    own: dict[str, Any] = {**options}
    settings = Settings(**{field.name: own.pop(field.name) for field in fields(Settings) if field.name in own})
    return Task(prompt=prompt, settings=settings, **own)


Inbox = deque[tuple[int, ThoughtEvent]]
"""Where the events of some thoughts arrive, in order, each with the id of its thought."""


class Session:
    """A model at work for as long as the process lives; thoughts are taken in and cancelled at any time, by any thread.

    They are in one engine, whose cache has room for `tokens`, the bound on its memory; for `serial` see `Engine`.
    """

    def __init__(self, model: Transformer, facts: ModelFacts, *, tokens: int, serial: bool = False) -> None:
        self.facts = facts
        self.engine = Engine(model, facts.tokenizer.vocab, tokens=tokens, serial=serial)
        self._lock, self._ids = threading.Lock(), count()
        self._thoughts: dict[int, tuple[Thought, Inbox]] = {}
        threads = torch.get_num_threads()
        self._artist = ThreadPoolExecutor(1, "decode-pictures", lambda: torch.set_num_threads(threads))

    @property
    def busy(self) -> bool:
        return bool(self._thoughts)

    def begin(self, task: Task, inbox: Inbox) -> int:
        """Take a task in, whose events are to arrive there; its id.

        Raises `TwgiError`: it cannot be thought about (see `plan`), or does not fit the cache.
        """
        id = next(self._ids)
        thought = Thought(task, plan(id, task, self.facts), self.facts)
        with self._lock:
            self.engine.submit(thought.request)
            for tokens in thought.given_pictures:
                thought.await_picture(self._decoded(tokens))
            self._thoughts[id] = thought, inbox
        return id

    def cancel(self, id: int) -> None:
        """End a thought: its trace, with what is there of it, comes with the next step. Others are left alone."""
        with self._lock:
            self.engine.cancel(id)

    def wait(self, inbox: Inbox) -> None:
        """Return when something has arrived there, stepping the engine until it has."""
        while not inbox:
            with self._lock:
                if not inbox:
                    assert self._thoughts, "nothing will ever arrive"
                    self._step()

    def _step(self) -> None:
        """One step of the engine, whose time the thoughts bear in equal parts; or a picture's wait, if none is left."""
        if self.engine.busy:
            began = time.monotonic()
            try:
                events = self.engine.step()
            except BaseException:
                self._thoughts.clear()
                raise
            part = (time.monotonic() - began) / max(len(self._thoughts), 1)
            for thought, _ in self._thoughts.values():
                thought.busy += part
            for event in events:
                if event.id in self._thoughts:
                    self._tell(self._thoughts[event.id][0], event)
        else:
            wait([thought.awaited for thought, _ in self._thoughts.values() if thought.awaited], None, FIRST_COMPLETED)
        for id, (thought, inbox) in list(self._thoughts.items()):
            for told in thought.events():
                inbox.append((id, told))
                if isinstance(told, Done | ThoughtFailed):
                    self.engine.cancel(id)  # it may still draw, where a picture of it could not be decoded
                    del self._thoughts[id]

    def _tell(self, thought: Thought, event: Event) -> None:
        if isinstance(event, ImageAsked):
            self.engine.answer(event.id, thought.kind_of_next())
        elif (tokens := thought.hear(event)) is not None:
            thought.await_picture(self._decoded(tokens))

    def _decoded(self, tokens: tuple[int, ...]) -> Future[Drawn]:
        def decode() -> Drawn:
            began = time.monotonic()
            (segment,) = self.facts.tokenizer.draw([ImageSegment(tokens=tokens)])
            assert isinstance(segment, ImageSegment)
            assert segment.picture is not None
            return segment.picture, time.monotonic() - began

        return self._artist.submit(decode)


class Thinker(Described):
    """A model that thinks. One prompt with `think` or `stream`, many with `think_many` or `stream_many`.

    The model is in eval mode, on its device; tokenizer and description are its own; for `serial` see `Engine`.
    """

    def __init__(
        self, model: Transformer, tokenizer: MultimodalTokenizer, checkpoint: ModelDescription, *, serial: bool = False
    ) -> None:
        self.model, self.tokenizer, self.serial = model, tokenizer, serial
        self.source, self.remarks = checkpoint, checkpoint.remarks
        self.facts = ModelFacts(tokenizer, model.config.max_positions, checkpoint)
        self._session: Session | None = None
        self._room = 0  # thoughts at once that the session was made for

    def think(self, prompt: str, **options: Unpack[ThinkOptions]) -> Trace:
        """The whole thought about one prompt.

        Raises `TwgiError`: the prompt or an option cannot be used (see `twgi.thinking.request.plan`).
        """
        *_, last = self.stream(prompt, **options)
        assert isinstance(last, Done)
        return last.trace

    def stream(self, prompt: str, **options: Unpack[ThinkOptions]) -> Iterator[ThoughtEvent]:
        """The events of one thought as they appear; close the iterator to stop thinking. Raises as `think` does."""
        for _, event in self.stream_many([task_of(prompt, **options)], batch=1):
            if isinstance(event, ThoughtFailed):
                raise event.error
            yield event

    def think_many(self, tasks: Iterable[Task], *, batch: int = 8) -> Iterator[tuple[int, Trace | TwgiError]]:
        """(index, trace or what is wrong) of each task, in the order in which they are done.

        `batch` thoughts are on their way at once; tasks are taken in as there is room. No trace depends on it.
        """
        for index, event in self.stream_many(tasks, batch=batch):
            if isinstance(event, Done):
                yield index, event.trace
            elif isinstance(event, ThoughtFailed):
                yield index, event.error

    def stream_many(self, tasks: Iterable[Task], *, batch: int = 8) -> Iterator[tuple[int, ThoughtEvent]]:
        """(index, event) of all tasks, interleaved; each task ends with one Done or one ThoughtFailed."""
        session, inbox, numbered = self.session(batch), Inbox(), enumerate(tasks)
        index_of: dict[int, int] = {}
        try:
            while True:
                while len(index_of) < batch and (entry := next(numbered, None)) is not None:
                    try:
                        index_of[session.begin(entry[1], inbox)] = entry[0]
                    except TwgiError as error:
                        yield entry[0], ThoughtFailed(error)
                if not index_of:
                    return
                session.wait(inbox)
                while inbox:
                    id, event = inbox.popleft()
                    yield (index_of.pop(id) if isinstance(event, Done | ThoughtFailed) else index_of[id]), event
        finally:
            for id in index_of:
                session.cancel(id)

    def session(self, batch: int) -> Session:
        """The session of this model, with room for so many thoughts at once where the memory allows it."""
        if self._session is None or (self._room < batch and not self._session.busy):
            context, weight = self.facts.context, self.model.embed.weight
            free, most = free_memory(weight.device), MOST_ROWS * context
            if free is not None:  # never fewer than the full row of one thought
                fit = max(context, int(free * SHARE) // kv_bytes_per_token(self.model.config, weight.dtype))
                most = min(batch * most, fit)
            self._session, self._room = Session(self.model, self.facts, tokens=most, serial=self.serial), batch
        return self._session
