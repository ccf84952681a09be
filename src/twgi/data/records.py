"""Training records, as people write them: one JSON object a line, documented in docs/data.md.

Reading is strict: an unknown key, a mark without its picture, or a path that leaves the folder is a fault of that line,
with its place; the other lines live. What a record says is not yet tokens: see `twgi.data.encode`.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from twgi.errors import DataError
from twgi.files import Object, inside
from twgi.tokenizer.multimodal import PLACEHOLDER

ONE_TURN = ("prompt", "input_images", "response", "images", "segments")
KNOWN = (*ONE_TURN, "turns", "tokens", "id")
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A run of text in a response, or the path of a picture as the record says it. `loss`: whether it is learnt."""

    kind: Literal["text", "image"]
    content: str
    loss: bool = True

    def to_json(self) -> Object:
        return {"type": self.kind, self.kind: self.content, **({} if self.loss else {"loss": False})}


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A prompt, with a picture for each `<image>` in it, and the response to it."""

    prompt: str
    input_images: tuple[str, ...] = ()
    response: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The response with an `<image>` for each picture, as in the published format."""
        return "".join(part.content if part.kind == "text" else PLACEHOLDER for part in self.response)

    @property
    def images(self) -> tuple[str, ...]:
        """The pictures of the response."""
        return tuple(part.content for part in self.response if part.kind == "image")

    @property
    def pictures(self) -> tuple[str, ...]:
        """Those of the prompt and of the response, in the order of the row."""
        return *self.input_images, *self.images


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """One record. With `tokens` it is tokenised already; then `turns` may be empty.

    `where` is `file:line`; picture paths are relative to `folder`.
    """

    where: str
    folder: Path
    turns: tuple[Turn, ...]
    tokens: tuple[int, ...] | None = None
    id: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The pictures that its row is made from. Raises `DataError` where a link leads out of their folder."""
        paths = [path for turn in self.turns for path in turn.pictures] if self.tokens is None else []
        return tuple(inside(self.folder, path) for path in paths)


def parse_record(value: Object, *, where: str, folder: Path) -> TrainingRecord:
    """One JSON object as a record. Raises `DataError` for whatever docs/data.md does not allow."""
    _refuse_unknown(value, KNOWN, "record")
    tokens, name = None, value.get("id")
    if "tokens" in value:
        tokens = whole_numbers(value["tokens"], '"tokens" must be a list of whole numbers')
    if not isinstance(name, str | None):
        raise DataError(f'"id" must be a text, got {_short(name)}')
    return TrainingRecord(where=where, folder=folder, turns=_turns(value), tokens=tokens, id=name)


def _turns(value: Object) -> tuple[Turn, ...]:
    single = {key: value[key] for key in ONE_TURN if key in value}
    if "turns" not in value:
        return () if "tokens" in value and not single else (_turn(single),)
    if single:
        raise DataError(f'with "turns", "{next(iter(single))}" belongs into a turn')
    turns = value["turns"]
    if not isinstance(turns, list) or not turns:
        raise DataError('"turns" must be a list of at least one turn')
    return _each(turns, "turn", _turn)


def _each(values: Sequence[Any], what: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    """All of them read; a fault says in which it is."""

    def one(number: int, value: Any) -> T:
        try:
            return read(value)
        except DataError as error:
            raise DataError(f"{what} {number}: {error}") from None

    return tuple(one(number, value) for number, value in enumerate(values, 1))


def _turn(value: Any) -> Turn:
    if not isinstance(value, dict):
        raise DataError(f"expected an object, got {_short(value)}")
    _refuse_unknown(value, ONE_TURN, "turn")
    prompt = text_of(value, "prompt")
    if not prompt.strip():
        raise DataError('"prompt" is empty')
    pictures = paths_of(value, "input_images")
    _check_marks("prompt", prompt, "input_images", pictures)
    response = _segments(value) if "segments" in value else _marked(text_of(value, "response"), value)
    if not response:
        raise DataError("the response is empty")
    return Turn(prompt=prompt, input_images=pictures, response=response)


def _segments(value: Object) -> tuple[Part, ...]:
    if other := [key for key in ("response", "images") if key in value]:
        raise DataError(f'give "segments" or "{other[0]}", not both')
    if not isinstance(value["segments"], list):
        raise DataError('"segments" must be a list')
    return _each(value["segments"], "segment", _segment)


def _marked(response: str, value: Object) -> tuple[Part, ...]:
    """The published form: text with marks, and the pictures in the order of the marks."""
    pictures = paths_of(value, "images")
    _check_marks("response", response, "images", pictures)
    first, *texts = response.split(PLACEHOLDER)
    parts = [Part("text", first)]
    for picture, text in zip(pictures, texts, strict=True):
        parts += [Part("image", picture), Part("text", text)]
    return tuple(part for part in parts if part.content)


def _segment(value: Any) -> Part:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("text", "image"):
        raise DataError(f'"type" must be "text" or "image", got {_short(kind)}')
    _refuse_unknown(value, ("type", kind, "loss"), f"{kind} segment")
    loss = value.get("loss", True)
    if not isinstance(loss, bool):
        raise DataError(f'"loss" must be true or false, got {_short(loss)}')
    if kind == "image":
        return Part("image", _path(value.get("image")), loss)
    text = text_of(value, "text")
    if not text:
        raise DataError('"text" is empty')
    if PLACEHOLDER in text:
        raise DataError(f"{PLACEHOLDER} in a text segment: make the picture a segment of its own")
    return Part("text", text, loss)


def _check_marks(text_key: str, text: str, list_key: str, pictures: Sequence[str]) -> None:
    marks, there = text.count(PLACEHOLDER), len(pictures)
    if marks != there:
        raise DataError(f'"{text_key}" has {marks} {PLACEHOLDER} mark(s) but "{list_key}" has {there} picture(s)')


def text_of(value: Object, key: str) -> str:
    """The text under a key. Raises `DataError` where there is none, or no valid one."""
    text = value.get(key)
    if not isinstance(text, str):
        raise DataError(f'no text under "{key}"' if text is None else f'"{key}" must be a text')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f'"{key}" is not valid Unicode at character {error.start}') from None
    return text


def paths_of(value: Object, key: str) -> tuple[str, ...]:
    """The list of paths under a key, empty where there is none. Raises `DataError`."""
    paths = value.get(key)
    if not isinstance(paths, list | None):
        raise DataError(f'"{key}" must be a list of paths')
    return tuple(_path(path) for path in paths or ())


def _path(path: Any) -> str:
    """A path that stays in the folder of the pictures."""
    if not isinstance(path, str) or not path:
        raise DataError(f"the path of a picture must be a text, got {_short(path)}")
    if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", path) or ".." in re.split(r"[/\\]", path) or "\0" in path:
        raise DataError(f"the path of a picture must be relative and stay in its folder, got {_short(path)}")
    return path


def whole_numbers(value: Any, otherwise: str) -> tuple[int, ...]:
    """A JSON list of ids; for anything else it raises `DataError` with these words."""
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise DataError(otherwise)
    return tuple(value)


def _refuse_unknown(value: Object, known: Collection[str], what: str) -> None:
    if unknown := sorted(value.keys() - set(known)):
        raise DataError(f'unknown key "{unknown[0]:.40}" in a {what}; known are {", ".join(sorted(known))}')


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
