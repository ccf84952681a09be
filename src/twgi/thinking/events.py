"""What is asked of a model, and what is heard of it: a task, and the events of its thought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from twgi.errors import TwgiError
from twgi.thinking.settings import Settings
from twgi.trace import Trace

Picture = Image.Image | str | Path


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to think about; prompt, seed and sample decide every draw."""

    prompt: str  # `<image>` stands where a picture is, else pictures come after the text
    pictures: Sequence[Picture] = ()
    seed: int = 0
    sample: int = 0
    settings: Settings = field(default_factory=Settings)
    given: Sequence[int] = ()  # tokens that the thought begins with, as if it had thought them itself


class ThoughtEvent:
    """Something that happens in a thought."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TextPiece(ThoughtEvent):
    """The next words."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageStarted(ThoughtEvent):
    """Picture `number` (from 0) begins; `kind` says what it is drawn as (see `twgi.thinking.modes.KINDS`)."""

    number: int
    kind: str


@dataclass(frozen=True, slots=True)
class ImageProgress(ThoughtEvent):
    """`done` of `total` image tokens of picture `number` are drawn; `token` is the newest of them."""

    number: int
    done: int
    total: int
    token: int


@dataclass(frozen=True, slots=True)
class ImageFinished(ThoughtEvent):
    """Picture `number` is whole."""

    number: int
    picture: Image.Image


@dataclass(frozen=True, slots=True)
class Done(ThoughtEvent):
    """The thought is over; always the last event of a thought that began."""

    trace: Trace


@dataclass(frozen=True, slots=True)
class ThoughtFailed(ThoughtEvent):
    """The task cannot be thought about, or its thought broke off; always the last event."""

    error: TwgiError
