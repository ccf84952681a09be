"""What the engine says: tagged values that go to JSON and come back. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from twgi.decoding.grammar import FinishReason
from twgi.decoding.guidance import Branch
from twgi.errors import TraceError


class Event:
    """Something about request `id`."""

    __slots__ = ()
    id: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the event's tag under `type`."""
        return {"type": _TAGS[type(self)], **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Token(Event):
    """The token at `position`, counted from the start of the prompt; eos is one too.

    `drawn` is False where the grammar left no choice. `logprob` is that of a drawn token under the distribution it was
    drawn from, with guidance and filters, where the request asked for it.
    """

    id: int
    token: int
    position: int
    drawn: bool
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class ImageAsked(Event):
    """Which kind is picture `number` (from 0)? The sequence rests until `Engine.answer`."""

    id: int
    number: int


@dataclass(frozen=True, slots=True)
class ImageOpened(Event):
    """Picture `number` is of this kind and is drawn with these weights of branches; once for each picture."""

    id: int
    number: int
    kind: str
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The sequence has its last token."""

    id: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The sequence cannot go on."""

    id: int
    problem: str


_EVENTS: dict[str, type[Event]] = {
    "token": Token, "image_asked": ImageAsked, "image_opened": ImageOpened, "finished": Finished, "failed": Failed,
}  # fmt: skip
_TAGS = {kind: tag for tag, kind in _EVENTS.items()}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "float | None": lambda value: value is None or _is_number(value),
    "Mapping[str, float]": lambda value: (
        isinstance(value, dict) and set(value) <= set(Branch) and all(map(_is_number, value.values()))
    ),
    "FinishReason": lambda value: isinstance(value, str) and value in set(FinishReason),
}
"""Of a field's type, whether a value from JSON can be one."""


def event_from_json(value: Any) -> Event:
    """The event that `to_json` made this of.

    Raises:
        TraceError: an unknown tag, a key too many or missing, or a value that cannot be.
    """
    given = dict(value) if isinstance(value, dict) else {}
    tag = given.pop("type", None)
    kind = _EVENTS.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise TraceError(f"an event of unknown type {tag!r}")
    types: dict[str, str] = {one.name: str(one.type) for one in fields(kind)}  # type: ignore[arg-type]
    if given.keys() != types.keys():
        raise TraceError(f"event {tag!r} has the keys {', '.join(types)}, not {', '.join(map(str, given))}")
    for name, type_ in types.items():
        if not _CHECKS[type_](given[name]):
            raise TraceError(f"event {tag!r}: {name} cannot be {given[name]!r}")
    if kind is Finished:
        given["reason"] = FinishReason(given["reason"])
    return kind(**given)
