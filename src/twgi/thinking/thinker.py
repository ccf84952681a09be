"""Thinker: prompt -> Trace, with the events of its segments as they appear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from twgi.checkpoint.load import ModelDescription
from twgi.checkpoint.memory import free_memory, kv_bytes_per_token
from twgi.decoding.guidance import Branch, GuidancePlan
from twgi.decoding.params import SamplingParams
from twgi.errors import TwgiError
from twgi.model.transformer import Transformer
from twgi.thinking.events import Done, Picture, Task, ThoughtEvent, ThoughtFailed
from twgi.thinking.request import ModelFacts
from twgi.thinking.session import Inbox, Session
from twgi.thinking.settings import Settings
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.trace import ModelId, Trace

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


_OF_TASK = ("pictures", "seed", "sample", "given")


def task_of(prompt: str, **options: Unpack[ThinkOptions]) -> Task:
    """A prompt and its options as a task. Raises `ConfigError`."""
    own: dict[str, Any] = {name: value for name, value in options.items() if name in _OF_TASK}
    settings: dict[str, Any] = {name: value for name, value in options.items() if name not in _OF_TASK}
    return Task(prompt=prompt, settings=Settings(**settings), **own)


class Thinker:
    """A model that thinks. One prompt with `think` or `stream`, many with `think_many` or `stream_many`.

    Args:
        model: in eval mode, on its device.
        tokenizer: of the same checkpoint.
        checkpoint: its name, its hash, and the settings it is best used with.
        serial: rows of guidance in turn, see `Engine`.
    """

    def __init__(
        self, model: Transformer, tokenizer: MultimodalTokenizer, checkpoint: ModelDescription, *, serial: bool = False
    ) -> None:
        self.model, self.tokenizer, self.serial = model, tokenizer, serial
        self.remarks = checkpoint.remarks
        self.facts = ModelFacts(tokenizer, model.config.max_positions, checkpoint)
        self._session: Session | None = None
        self._room = 0  # thoughts at once that the session was made for

    @property
    def identity(self) -> ModelId:
        """Which weights think."""
        return self.facts.identity

    def resolved(self, settings: Settings) -> Settings:
        """The settings with what they leave to the checkpoint."""
        return self.facts.resolved(settings)

    def think(self, prompt: str, **options: Unpack[ThinkOptions]) -> Trace:
        """The whole thought about one prompt.

        Raises:
            TwgiError: the prompt or an option cannot be used (see `twgi.thinking.request.plan`).
        """
        for event in self.stream(prompt, **options):
            if isinstance(event, Done):
                return event.trace
        raise AssertionError("a thought ends with Done")

    def stream(self, prompt: str, **options: Unpack[ThinkOptions]) -> Iterator[ThoughtEvent]:
        """The events of one thought as they appear; close the iterator to stop thinking. Raises as `think` does."""
        session, inbox = self.session(1), Inbox()
        for event in session.events(session.begin(task_of(prompt, **options), inbox), inbox):
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
                while inbox.events:
                    id, event = inbox.events.popleft()
                    yield (index_of.pop(id) if isinstance(event, Done | ThoughtFailed) else index_of[id]), event
        finally:
            for id in index_of:
                session.cancel(id)

    def session(self, batch: int) -> Session:
        """The session of this model, with room for so many thoughts at once where the memory allows it."""
        if self._session is None or (self._room < batch and not self._session.busy):
            tokens = min(batch * MOST_ROWS * self.facts.context, self._most())
            self._session, self._room = Session(self.model, self.facts, tokens=tokens, serial=self.serial), batch
        return self._session

    def _most(self) -> int:
        """Positions that fit the free memory; never fewer than the full row of one thought."""
        weight = self.model.embed.weight
        free = free_memory(weight.device)
        if free is None:
            return MOST_ROWS * self.facts.context
        return max(self.facts.context, int(free * SHARE) // kv_bytes_per_token(self.model.config, weight.dtype))
