"""Token rows: what a model is trained on. Ids, cut into spans that say what they are and whether they carry loss.

A row is `bos`, then one or more turns of `prompt, separator, response, eos`. A prompt and a response are text and whole
images (boi, image tokens, eoi). Loss lies on nothing before a separator.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from twgi.data.lines import Object
from twgi.errors import DataError
from twgi.vocab import Vocab

VERSION = 1

Kind = Literal["bos", "text", "image", "separator", "eos"]
Piece = tuple[Kind, Sequence[int], bool]
"""Kind, ids, and whether they carry loss."""

_KEYS = frozenset({"version", "source", "id", "tokens", "segments"})


@dataclass(frozen=True, kw_only=True)
class Span:
    """The ids [start, end) of a row."""

    kind: Kind
    start: int
    end: int
    loss: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """Ids and the spans they are cut into, without a gap. `source` is the `file:line` it was made from."""

    tokens: tuple[int, ...]
    spans: tuple[Span, ...]
    source: str = ""
    id: str | None = None

    def __post_init__(self) -> None:
        edges = [(0, 0), *((span.start, span.end) for span in self.spans), (len(self.tokens),) * 2]
        if any(left[1] != right[0] for left, right in pairwise(edges)) or any(s.start >= s.end for s in self.spans):
            raise DataError(f"the segments do not cover the {len(self.tokens)} tokens without a gap")

    @classmethod
    def of(cls, pieces: Iterable[Piece], *, source: str = "", id: str | None = None) -> "Row":
        """A row of these pieces in order; empty ones are left out."""
        tokens: list[int] = []
        spans: list[Span] = []
        for kind, ids, loss in pieces:
            if ids:
                spans.append(Span(kind=kind, start=len(tokens), end=len(tokens) + len(ids), loss=loss))
                tokens += ids
        return cls(tokens=tuple(tokens), spans=tuple(spans), source=source, id=id)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool [length]: which ids are to be learnt."""
        mask = np.zeros(len(self.tokens), dtype=np.bool_)
        for span in self.spans:
            mask[span.start : span.end] = span.loss
        return mask

    @property
    def turns(self) -> int:
        """How many prompts it has."""
        return sum(span.kind == "separator" for span in self.spans)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of version 1 (docs/data.md)."""
        head: dict[str, Any] = {"version": VERSION, "source": self.source}
        name = {} if self.id is None else {"id": self.id}
        segments = [[span.kind, span.start, span.end, span.loss] for span in self.spans]
        return {**head, **name, "tokens": list(self.tokens), "segments": segments}

    @classmethod
    def from_json(cls, value: Object) -> "Row":
        """Read `to_json` back. Raises `DataError` for anything unknown, missing, or of another type."""
        if value.get("version") != VERSION:
            raise DataError(f"a row of version {value.get('version')!r}; this program reads version {VERSION}")
        wrong = sorted(_KEYS - {"id"} - value.keys()) or sorted(value.keys() - _KEYS)
        if wrong:
            raise DataError(f"a row {'lacks' if wrong[0] in _KEYS else 'has the unknown key'} {wrong[0]!r}")
        tokens, segments, source, name = (value.get(key) for key in ("tokens", "segments", "source", "id"))
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise DataError("the tokens of a row must be whole numbers")
        if not isinstance(segments, list) or not isinstance(source, str) or not isinstance(name, str | None):
            raise DataError("a row's source and id must be texts and its segments a list")
        return cls(tokens=tuple(tokens), spans=tuple(map(_span, segments)), source=source, id=name)


def _span(value: Any) -> Span:
    if not isinstance(value, list) or [type(part) for part in value] != [str, int, int, bool]:
        raise DataError(f"a segment of a row must be [kind, start, end, loss], got {value!r}"[:160])
    kind, start, end, loss = value
    if kind not in get_args(Kind):
        raise DataError(f"a segment of a row must be one of {', '.join(get_args(Kind))}, got {kind!r}"[:160])
    return Span(kind=kind, start=start, end=end, loss=loss)


def cut(ids: Sequence[int], vocab: Vocab) -> Iterator[Piece]:
    """The pieces of a row that `check_row` finds no fault in; loss on all of every response."""
    marks: dict[int, Kind] = {vocab.bos: "bos", vocab.separator: "separator", vocab.eos: "eos"}
    start, answering = 0, False
    while start < len(ids):
        kind = marks.get(ids[start], "image" if ids[start] == vocab.boi else "text")
        end = start + 1
        if kind == "image":
            end = start + vocab.image_length
        while kind == "text" and end < len(ids) and vocab.is_text(ids[end]):
            end += 1
        yield kind, ids[start:end], answering
        answering = kind == "separator" or (answering and kind != "eos")
        start = end


@dataclass(frozen=True, kw_only=True)
class RowFault:
    """What is wrong with the ids of a row, and where; `position` counts from 0."""

    position: int
    reason: str

    def __str__(self) -> str:
        return f"token {self.position}: {self.reason}"


def check_row(
    ids: Sequence[int], vocab: Vocab, *, turns: int | None = 1, limit: int | None = None
) -> tuple[RowFault, ...]:
    """Every fault in the ids of a row, in order; none where a model may be trained on it.

    It must start with bos and be `turns` turns of a prompt, one separator, a response and eos, with whole images, no
    control id in text, and at most `limit` ids. With `turns` None there may be any number.
    """
    faults = sorted(_faults(ids, vocab, turns), key=lambda fault: fault.position)
    if limit is not None and len(ids) > limit:
        faults.append(RowFault(position=limit, reason=f"too long: {len(ids)} tokens, at most {limit}"))
    return tuple(faults)


def _faults(ids: Sequence[int], vocab: Vocab, turns: int | None) -> Iterator[RowFault]:
    starts_well = bool(ids) and ids[0] == vocab.bos
    if not starts_well:
        yield RowFault(position=0, reason=f"a row starts with bos ({vocab.bos}), got {ids[0] if ids else 'nothing'}")
    position, begin, answering = int(starts_well), int(starts_well), False  # begin: of this prompt or response
    separators: list[int] = []
    while position < len(ids):
        here, token = position, ids[position]
        position += 1
        if token == vocab.boi:
            position, faults = _image(ids, here, vocab)
            yield from faults
        elif token == (vocab.eos if answering else vocab.separator):
            if here == begin:
                yield RowFault(position=here, reason=f"the {'response' if answering else 'prompt'} is empty")
            separators += [] if answering else [here]
            begin, answering = position, not answering
        elif not vocab.is_text(token):
            yield RowFault(position=here, reason=_misplaced(token, vocab))
    yield from _end_faults(separators, turns, len(ids), ended=not answering and begin == len(ids))


def _end_faults(separators: Sequence[int], turns: int | None, length: int, *, ended: bool) -> Iterator[RowFault]:
    if not separators:
        yield RowFault(position=length, reason="the row lacks a separator")
    elif not ended:
        yield RowFault(position=length, reason="the row lacks eos at its end")
    if separators and turns is not None and len(separators) != turns:
        position = separators[turns] if len(separators) > turns else length
        yield RowFault(position=position, reason=f"{len(separators)} turn(s) instead of {turns}")


def _image(ids: Sequence[int], start: int, vocab: Vocab) -> tuple[int, list[RowFault]]:
    """Where the image that starts here ends, and what is wrong with it."""
    end = start + 1
    while end < len(ids) and vocab.is_image(ids[end]):
        end += 1
    count, wanted = end - start - 1, vocab.tokens_per_image
    closed = end < len(ids) and ids[end] == vocab.eoi
    faults = []
    if count != wanted:
        faults.append(RowFault(position=start, reason=f"an image of {count} image tokens instead of {wanted}"))
    if not closed:
        after = f"id {ids[end]} stands there" if end < len(ids) else "the row ends"
        faults.append(RowFault(position=end, reason=f"an image lacks its eoi ({vocab.eoi}): {after}"))
    return end + closed, faults


def _misplaced(token: int, vocab: Vocab) -> str:
    if not 0 <= token < vocab.size:
        return f"id {token} is not in the vocabulary of {vocab.size}"
    if vocab.is_image(token):
        return f"image token {token} outside an image"
    name = next((name for name, known in vocab.special.items() if known == token), "reserved id")
    return f"{name} ({token}) where only text or an image may stand"
