"""Training records, as people write them: one JSON object a line, documented in docs/data.md.

Reading is strict: an unknown key, a mark without its picture, or a path that leaves the folder is a fault of that line,
with its place; the other lines live. What a record says is not yet tokens: see `twgi.data.encode`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twgi.errors import DataError
from twgi.files import Object
from twgi.tokenizer.multimodal import PLACEHOLDER

ONE_TURN = ("prompt", "input_images", "response", "images", "segments")
KNOWN = (*ONE_TURN, "turns", "tokens", "id")
_SEGMENT_KEYS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"type", "text", "loss"}),
    "image": frozenset({"type", "image", "loss"}),
}


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """A run of text in a response. `loss`: whether it is to be learnt."""

    text: str
    loss: bool = True

    def to_json(self) -> Object:
        return {"type": "text", "text": self.text, **_loss(self.loss)}


@dataclass(frozen=True, kw_only=True)
class ImagePart:
    """A picture in a response: the path of its file, as the record says it."""

    image: str
    loss: bool = True

    def to_json(self) -> Object:
        return {"type": "image", "image": self.image, **_loss(self.loss)}


Part = TextPart | ImagePart


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A prompt, with a picture for each `<image>` in it, and the response to it."""

    prompt: str
    input_images: tuple[str, ...] = ()
    response: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The response with an `<image>` for each picture, as in the published format."""
        return "".join(part.text if isinstance(part, TextPart) else PLACEHOLDER for part in self.response)

    @property
    def images(self) -> tuple[str, ...]:
        """The pictures of the response."""
        return tuple(part.image for part in self.response if isinstance(part, ImagePart))

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


def parse_record(value: Object, *, where: str, folder: Path) -> TrainingRecord:
    """One JSON object as a record. Raises `DataError` for whatever docs/data.md does not allow."""
    _refuse_unknown(value, KNOWN, "record")
    tokens = _tokens(value["tokens"]) if "tokens" in value else None
    name = value.get("id")
    if not isinstance(name, str | None):
        raise DataError(f'"id" must be a text, got {_short(name)}')
    return TrainingRecord(where=where, folder=folder, turns=_turns(value, tokens is not None), tokens=tokens, id=name)


def _turns(value: Object, tokenised: bool) -> tuple[Turn, ...]:
    single = [key for key in ONE_TURN if key in value]
    if "turns" not in value:
        return () if tokenised and not single else (_turn(value),)
    if single:
        raise DataError(f'with "turns", {_quoted(single[0])} belongs into a turn')
    turns = value["turns"]
    if not isinstance(turns, list) or not turns:
        raise DataError('"turns" must be a list of at least one turn')
    return tuple(_numbered_turn(turn, number) for number, turn in enumerate(turns, 1))


def _numbered_turn(value: Any, number: int) -> Turn:
    try:
        if not isinstance(value, dict):
            raise DataError(f"expected an object, got {_short(value)}")
        _refuse_unknown(value, ONE_TURN, "turn")
        return _turn(value)
    except DataError as error:
        raise DataError(f"turn {number}: {error}") from None


def _turn(value: Object) -> Turn:
    prompt = text_of(value, "prompt")
    if not prompt.strip():
        raise DataError('"prompt" is empty')
    pictures = paths_of(value, "input_images")
    _check_marks("prompt", prompt.count(PLACEHOLDER), "input_images", len(pictures))
    response = _response(value)
    if not response:
        raise DataError("the response is empty")
    return Turn(prompt=prompt, input_images=pictures, response=response)


def _response(value: Object) -> tuple[Part, ...]:
    if "segments" not in value:
        return _marked(text_of(value, "response"), paths_of(value, "images"))
    other = next((key for key in ("response", "images") if key in value), None)
    if other is not None:
        raise DataError(f'give "segments" or {_quoted(other)}, not both')
    segments = value["segments"]
    if not isinstance(segments, list):
        raise DataError('"segments" must be a list')
    return tuple(_segment(segment, number) for number, segment in enumerate(segments, 1))


def _marked(response: str, pictures: tuple[str, ...]) -> tuple[Part, ...]:
    """The published form: text with marks, and the pictures in the order of the marks."""
    pieces = response.split(PLACEHOLDER)
    _check_marks("response", len(pieces) - 1, "images", len(pictures))
    parts: list[Part] = [TextPart(text=pieces[0])]
    for picture, text in zip(pictures, pieces[1:], strict=True):
        parts += [ImagePart(image=picture), TextPart(text=text)]
    return tuple(part for part in parts if isinstance(part, ImagePart) or part.text)


def _segment(value: Any, number: int) -> Part:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _SEGMENT_KEYS:
        raise DataError(f'segment {number}: "type" must be "text" or "image", got {_short(kind)}')
    try:
        _refuse_unknown(value, _SEGMENT_KEYS[kind], f"{kind} segment")
        loss = value.get("loss", True)
        if not isinstance(loss, bool):
            raise DataError(f'"loss" must be true or false, got {_short(loss)}')
        return _text_part(value, loss) if kind == "text" else ImagePart(image=_path(value.get("image")), loss=loss)
    except DataError as error:
        raise DataError(f"segment {number}: {error}") from None


def _text_part(value: Object, loss: bool) -> TextPart:
    text = text_of(value, "text")
    if not text:
        raise DataError('"text" is empty')
    if PLACEHOLDER in text:
        raise DataError(f"{PLACEHOLDER} in a text segment: make the picture a segment of its own")
    return TextPart(text=text, loss=loss)


def _check_marks(text_key: str, marks: int, list_key: str, pictures: int) -> None:
    if marks != pictures:
        raise DataError(
            f"{_quoted(text_key)} has {marks} {PLACEHOLDER} mark(s) but {_quoted(list_key)} has {pictures} picture(s)"
        )


def _loss(loss: bool) -> Object:
    return {} if loss else {"loss": False}


def text_of(value: Object, key: str) -> str:
    """The text under a key. Raises `DataError` where there is none, or no valid one."""
    text = value.get(key)
    if not isinstance(text, str):
        raise DataError(f"no text under {_quoted(key)}" if text is None else f"{_quoted(key)} must be a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{_quoted(key)} is not valid Unicode at character {error.start}") from None
    return text


def paths_of(value: Object, key: str) -> tuple[str, ...]:
    """The list of paths under a key, empty where there is none. Raises `DataError`."""
    paths = value.get(key)
    if paths is None:
        return ()
    if not isinstance(paths, list):
        raise DataError(f"{_quoted(key)} must be a list of paths")
    return tuple(_path(path) for path in paths)


def _path(path: Any) -> str:
    """A path that stays in the folder of the pictures."""
    if not isinstance(path, str) or not path:
        raise DataError(f"the path of a picture must be a text, got {_short(path)}")
    if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", path) or ".." in re.split(r"[/\\]", path) or "\0" in path:
        raise DataError(f"the path of a picture must be relative and stay in its folder, got {_short(path)}")
    return path


def _tokens(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        raise DataError('"tokens" must be a list of whole numbers')
    return tuple(value)


def _refuse_unknown(value: Object, known: Any, what: str) -> None:
    unknown = sorted(value.keys() - set(known))
    if unknown:
        raise DataError(f"unknown key {_quoted(unknown[0])} in a {what}; known are {', '.join(sorted(known))}")


def _quoted(name: str) -> str:
    return f'"{name if len(name) <= 40 else name[:37] + "..."}"'


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
