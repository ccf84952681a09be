"""What the engine says: tagged values that go to JSON. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from twgi.decoding.grammar import FinishReason


class Event:
    """Something about request `id`."""

    __slots__ = ()
    type: ClassVar[str]
    id: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the event's tag under `type`."""
        return {"type": self.type, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Token(Event):
    """The token at `position`, counted from the start of the prompt; eos is one too.

    `drawn` is False where the grammar left no choice. `logprob` is that of a drawn token under the distribution it was
    drawn from, with guidance and filters, where the request asked for it.
    """

    type: ClassVar[str] = "token"
    id: int
    token: int
    position: int
    drawn: bool
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class ImageAsked(Event):
    """Which kind is picture `number` (from 0)? The sequence rests until `Engine.answer`."""

    type: ClassVar[str] = "image_asked"
    id: int
    number: int


@dataclass(frozen=True, slots=True)
class ImageOpened(Event):
    """Picture `number` is of this kind and is drawn with these weights of branches; once for each picture."""

    type: ClassVar[str] = "image_opened"
    id: int
    number: int
    kind: str
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The sequence has its last token."""

    type: ClassVar[str] = "finished"
    id: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The sequence cannot go on."""

    type: ClassVar[str] = "failed"
    id: int
    problem: str
