"""Segments of a thought."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from twgi.errors import TraceError

if TYPE_CHECKING:
    from PIL import Image

Role = Literal["input", "subgoal", "draft", "final"]


@dataclass(frozen=True, kw_only=True)
class TextSegment:
    """A run of text. `tokens` are the ids the model read, which need not be how the tokenizer would write `text`."""

    text: str
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageSegment:
    """One image: boi, image tokens, eoi in `tokens`; its file in `image` (None: not drawn, or not whole)."""

    tokens: tuple[int, ...] = ()
    image: str | None = None
    role: Role = "draft"
    picture: "Image.Image | None" = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise TraceError(f"an image's role must be one of {', '.join(get_args(Role))}, got {self.role!r}")


Segment = TextSegment | ImageSegment


@dataclass(frozen=True, kw_only=True)
class Anomaly:
    """Something in a token sequence that its grammar does not allow; `position` counts ids from its start."""

    position: int
    kind: str
    detail: str


def joined_tokens(segments: Iterable[Segment]) -> tuple[int, ...]:
    """The ids of all segments in a row."""
    return tuple(token for segment in segments for token in segment.tokens)
