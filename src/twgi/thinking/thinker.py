"""Thinker: prompt -> Trace, with the events of its segments as they appear."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from twgi.decoding.engine import Engine
from twgi.decoding.events import Failed as SequenceFailed
from twgi.decoding.events import Finished, ImageAsked, ImageOpened, Token
from twgi.decoding.scheduler import most_positions
from twgi.errors import RunError, TwgiError
from twgi.model.transformer import Transformer
from twgi.thinking.thought import Done, Failed, Task, Thinking, Thought, ThoughtEvent
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.trace import ModelId, Trace

MOST_BRANCHES = 5


class Info(Protocol):
    """What a checkpoint says of itself."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def defaults(self) -> Mapping[str, Any]: ...
    @property
    def generation(self) -> Mapping[str, Any]: ...
    @property
    def config_bos(self) -> int: ...
    @property
    def remarks(self) -> tuple[str, ...]: ...


class Thinker:
    """A model that thinks. One prompt with `think` or `stream`, many with `think_many` or `stream_many`.

    Args:
        model: in eval mode, on its device.
        tokenizer: of the same checkpoint.
        info: its name, its hash, and the settings it is best used with.
        serial: rows of guidance in turn, see `Engine`.
    """

    def __init__(self, model: Transformer, tokenizer: MultimodalTokenizer, info: Info, *, serial: bool = False) -> None:
        self.model, self.tokenizer, self.serial = model, tokenizer, serial
        self.remarks = info.remarks
        self.thinking = Thinking(
            tokenizer=tokenizer,
            context=model.config.max_positions,
            model=ModelId(name=info.name, sha256=info.sha256),
            defaults=info.defaults,
            generation=info.generation,
            config_bos=info.config_bos,
        )

    def think(self, prompt: str, **settings: Any) -> Trace:
        """The whole thought about one prompt; `settings` are those of `Task`.

        Raises:
            TwgiError: the prompt or a setting cannot be used (see `Thought`).
        """
        for event in self.stream(prompt, **settings):
            if isinstance(event, Done):
                return event.trace
        raise AssertionError("a thought ends with Done")

    def stream(self, prompt: str, **settings: Any) -> Iterator[ThoughtEvent]:
        """The events of one thought as they appear; close the iterator to stop thinking. Raises as `think` does."""
        for _, event in self.stream_many([Task(prompt=prompt, **settings)], batch=1):
            if isinstance(event, Failed):
                raise event.error
            yield event

    def think_many(self, tasks: Iterable[Task], *, batch: int = 8) -> Iterator[tuple[int, Trace | TwgiError]]:
        """(index, trace or what is wrong) of each task, in the order in which they are done.

        `batch` thoughts are on their way at once; tasks are taken in as there is room. No trace depends on it.
        """
        for index, event in self.stream_many(tasks, batch=batch):
            if isinstance(event, Done):
                yield index, event.trace
            elif isinstance(event, Failed):
                yield index, event.error

    def stream_many(self, tasks: Iterable[Task], *, batch: int = 8) -> Iterator[tuple[int, ThoughtEvent | Failed]]:
        """(index, event) of all tasks, interleaved; each task ends with one Done or one Failed."""
        numbered = enumerate(tasks)
        desk: Desk | None = None
        while True:
            while desk is None or len(desk.thoughts) < batch:
                index, task = next(numbered, (-1, None))
                if task is None:
                    break
                try:
                    thought = Thought(index, task, self.thinking)
                    least = MOST_BRANCHES * self.thinking.context
                    desk = desk or self._desk(max(least, batch * most_positions(thought.request)))
                    desk.begin(thought)
                except TwgiError as error:
                    yield index, Failed(error)
            if desk is None or not desk.thoughts:
                return
            yield from desk.step()

    def _desk(self, tokens: int) -> Desk:
        return Desk(self.model, self.tokenizer, tokens=tokens, serial=self.serial)


class Desk:
    """Thoughts on their way together, in one engine. `step` may be mixed with `begin` and `cancel` as one likes."""

    def __init__(
        self, model: Transformer, tokenizer: MultimodalTokenizer, *, tokens: int, serial: bool = False
    ) -> None:
        self.engine = Engine(model, tokenizer.vocab, tokens=tokens, serial=serial)
        self.thoughts: dict[int, Thought] = {}
        self._begun: list[tuple[int, ThoughtEvent]] = []

    def begin(self, thought: Thought) -> None:
        """Take a thought in; TwgiError when the engine has not the room for it."""
        self.engine.submit(thought.request)
        self.thoughts[thought.id] = thought
        self._begun += [(thought.id, event) for event in thought.begin()]

    def cancel(self, index: int) -> None:
        """End a thought: its trace, with what is there of it, comes with the next step."""
        self.engine.cancel(index)

    def step(self) -> Iterator[tuple[int, ThoughtEvent]]:
        """The events of one step of the engine, whose time the thoughts bear in equal parts."""
        began = time.monotonic()
        stepped = self.engine.step()
        part = (time.monotonic() - began) / max(len(self.thoughts), 1)
        for thought in self.thoughts.values():
            thought.busy += part
        begun, self._begun = self._begun, []
        yield from begun
        for event in stepped:
            thought = self.thoughts[event.id]
            events: Iterator[ThoughtEvent] = iter(())
            if isinstance(event, Token):
                events = thought.hear(event.token)
            elif isinstance(event, ImageAsked):
                self.engine.answer(event.id, thought.kind_of(event.number))
            elif isinstance(event, ImageOpened):
                events = thought.open(event.number, event.kind)
            elif isinstance(event, Finished):
                events = self.thoughts.pop(event.id).finish(event.reason)
            elif isinstance(event, SequenceFailed):
                raise RunError(event.problem)
            for one in events:
                yield event.id, one
