"""A model at work for as long as the process lives: thoughts are taken in and cancelled at any time, from any thread.

There is no thread that drives it: whoever waits for an event steps the engine, for everybody, while the others wait for
the lock. Pictures are decoded on a thread of their own beside the steps, each alone, so that their pixels do not depend
on the batch either.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import count

import torch

from twgi.decoding.engine import Engine
from twgi.decoding.events import Event, Failed, Finished, ImageAsked, ImageOpened, Token
from twgi.errors import RunError
from twgi.model.transformer import Transformer
from twgi.thinking.events import Done, Task, ThoughtEvent, ThoughtFailed
from twgi.thinking.request import ModelFacts, plan
from twgi.thinking.thought import Drawn, Thought
from twgi.trace import ImageSegment

Inbox = deque[tuple[int, ThoughtEvent]]
"""Where the events of some thoughts arrive, in order, each with the id of its thought."""


class Session:
    """Thoughts on their way together, in one engine whose cache has room for `tokens`, the bound on its memory.

    The model is in eval mode, on its device; `facts` are of the same checkpoint; for `serial` see `Engine`.
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

    def events(self, id: int, inbox: Inbox) -> Iterator[ThoughtEvent]:
        """The events of one thought that has the inbox for itself."""
        ended = False
        try:
            while not ended:
                self.wait(inbox)
                _, event = inbox.popleft()
                ended = isinstance(event, Done | ThoughtFailed)
                yield event
        finally:
            if not ended:
                self.cancel(id)

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
                    self._hear(self._thoughts[event.id][0], event)
        else:
            wait([thought.awaited for thought, _ in self._thoughts.values() if thought.awaited], None, FIRST_COMPLETED)
        for id, (thought, inbox) in list(self._thoughts.items()):
            for told in thought.events():
                inbox.append((id, told))
                if isinstance(told, Done | ThoughtFailed):
                    self.engine.cancel(id)  # it may still draw, where a picture of it could not be decoded
                    del self._thoughts[id]

    def _hear(self, thought: Thought, event: Event) -> None:
        match event:
            case Token():
                if (tokens := thought.hear(event.token)) is not None:
                    thought.await_picture(self._decoded(tokens))
            case ImageAsked():
                self.engine.answer(event.id, thought.kind_of_next())
            case ImageOpened():
                thought.opened(event)
            case Finished():
                thought.finish(event.reason)
            case Failed():
                thought.fail(RunError(event.problem))

    def _decoded(self, tokens: tuple[int, ...]) -> Future[Drawn]:
        def decode() -> Drawn:
            began = time.monotonic()
            (segment,) = self.facts.tokenizer.draw([ImageSegment(tokens=tokens)])
            assert isinstance(segment, ImageSegment)
            assert segment.picture is not None
            return segment.picture, time.monotonic() - began

        return self._artist.submit(decode)
