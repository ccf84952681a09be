"""Token rows: what a model is trained on. Ids, cut into spans that say what they are and whether they carry loss.

A row is `bos`, then one or more turns of `prompt, separator, response, eos`. A prompt and a response are text and whole
images (boi, image tokens, eoi). Loss lies on nothing before a separator.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from twgi.data.records import whole_numbers
from twgi.errors import DataError
from twgi.files import Object
from twgi.tokenizer.multimodal import end_of_image, image_anomalies, kind_of_misplaced, misplaced
from twgi.trace import Anomaly
from twgi.vocab import Vocab

VERSION = 1

Kind = Literal["bos", "text", "image", "separator", "eos"]
Piece = tuple[Kind, Sequence[int], bool]
"""Kind, ids, and whether they carry loss."""

_OPTIONAL = frozenset({"id", "tokenizer"})
_KEYS = _OPTIONAL | {"version", "source", "tokens", "segments"}


@dataclass(frozen=True)
class Span:
    """The ids [start, end) of a row."""

    kind: Kind
    start: int
    end: int
    loss: bool


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """Ids [length], which of them are to be learnt [length], and where the row comes from."""

    ids: npt.NDArray[np.integer[Any]]
    learn: npt.NDArray[np.bool_]
    source: str


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """Ids and the spans they are cut into, without a gap. `source` is the `file:line` it was made from.

    `tokenizer` is the hash of the one that made the ids; empty where that is not known.
    """

    tokens: tuple[int, ...]
    spans: tuple[Span, ...]
    source: str = ""
    id: str | None = None
    tokenizer: str = ""

    def __post_init__(self) -> None:
        edges = [(0, 0), *((span.start, span.end) for span in self.spans), (len(self.tokens),) * 2]
        if any(left[1] != right[0] for left, right in pairwise(edges)) or any(s.start >= s.end for s in self.spans):
            raise DataError(f"the segments do not cover the {len(self.tokens)} tokens without a gap")

    @classmethod
    def of(cls, pieces: Iterable[Piece], **known: Any) -> "TrainingRow":
        """A row of these pieces in order; empty ones are left out. `known` is what else is to be said of it."""
        tokens: list[int] = []
        spans: list[Span] = []
        for kind, ids, loss in pieces:
            if ids:
                spans.append(Span(kind, len(tokens), len(tokens) + len(ids), loss))
                tokens += ids
        return cls(tokens=tuple(tokens), spans=tuple(spans), **known)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool [length]: which ids are to be learnt."""
        mask = np.zeros(len(self.tokens), dtype=np.bool_)
        for span in self.spans:
            mask[span.start : span.end] = span.loss
        return mask

    def compact(self) -> "TokenRow":
        """What of it training holds, in arrays."""
        width = np.uint16 if max(self.tokens) < 2**16 else np.int64
        return TokenRow(ids=np.array(self.tokens, width), learn=self.mask, source=self.source)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of version 1 (docs/data.md)."""
        head = {"version": VERSION, "source": self.source} | ({} if self.id is None else {"id": self.id})
        head |= {"tokenizer": self.tokenizer} if self.tokenizer else {}
        return {**head, "tokens": list(self.tokens), "segments": [list(vars(span).values()) for span in self.spans]}

    @classmethod
    def from_json(cls, value: Object) -> "TrainingRow":
        """Read `to_json` back. Raises `DataError` for anything unknown, missing, or of another type."""
        if value.get("version") != VERSION:
            raise DataError(f"a row of version {value.get('version')!r}; this program reads version {VERSION}")
        wrong = sorted(_KEYS - _OPTIONAL - value.keys()) or sorted(value.keys() - _KEYS)
        if wrong:
            raise DataError(f"a row {'lacks' if wrong[0] in _KEYS else 'has the unknown key'} {wrong[0]!r}")
        tokens = whole_numbers(value["tokens"], "the tokens of a row must be whole numbers")
        segments, given = value["segments"], {key: value[key] for key in _OPTIONAL if value.get(key) is not None}
        known = {"source": value["source"], **given}
        if not isinstance(segments, list) or not all(isinstance(text, str) for text in known.values()):
            raise DataError("a row's source, id and tokenizer must be texts and its segments a list")
        return cls(tokens=tokens, spans=tuple(map(_span, segments)), **known)

    def check_tokenizer(self, sha256: str) -> None:
        """Raises `DataError` where the ids were made by another tokenizer than that of this hash."""
        if self.tokenizer not in ("", sha256):
            hashes = f"({self.tokenizer:.12}) than this model's ({sha256:.12})"
            raise DataError(f"its ids are of another vocabulary or image tokenizer {hashes}")


def _span(value: Any) -> Span:
    if not isinstance(value, list) or [type(part) for part in value] != [str, int, int, bool]:
        raise DataError(f"a segment of a row must be [kind, start, end, loss], got {value!r}"[:160])
    if value[0] not in get_args(Kind):
        raise DataError(f"a segment of a row must be one of {', '.join(get_args(Kind))}, got {value[0]!r}"[:160])
    return Span(*value)


def pieces_of(ids: Sequence[int], vocab: Vocab) -> Iterator[Piece]:
    """The pieces that ids are cut into; loss on all of every response."""
    return ((span.kind, ids[span.start : span.end], span.loss) for span in scan(ids, vocab)[0])


def check_row(row: TrainingRow, vocab: Vocab, *, turns: int | None = 1) -> None:
    """Whether a model may be trained on a row: on its ids, and where its spans say that loss lies.

    The ids must be bos and `turns` turns (None: any number) of a prompt, one separator, a response and eos, with whole
    images and no control id in text. The spans must be those of the ids, at most with text cut finer, and loss may lie
    on responses alone. Raises `DataError` of the first fault.
    """
    spans, faults = scan(row.tokens, vocab, turns=turns)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        first = faults[0]
        raise DataError(f"token {first.position}: {first.kind.replace('_', ' ')}: {first.detail}{more}")
    if _fixed(row.spans) != _fixed(spans):
        raise DataError("the segments of the row are not those of its tokens")
    may = replace(row, spans=tuple(spans)).mask
    early = next((span for span in row.spans if span.loss and not may[span.start]), None)
    if early is not None:
        raise DataError(f"tokens {early.start} to {early.end - 1} carry loss, but are not of a response")


def _fixed(spans: Iterable[Span]) -> list[tuple[Kind, int, int]]:
    """All but text, which lies between them and may be cut finer."""
    return [(span.kind, span.start, span.end) for span in spans if span.kind != "text"]


def scan(ids: Sequence[int], vocab: Vocab, *, turns: int | None = None) -> tuple[list[Span], list[Anomaly]]:
    """The spans of ids, with loss on every response, and every fault in them, in order; see `check_row`.

    Of any ids: the spans cover them, and what has no place where it stands is text.
    """
    spans, faults = list[Span](), list[Anomaly]()
    if len(ids) and ids[0] == vocab.bos:
        spans.append(Span("bos", 0, 1, False))
    else:
        detail = f"{ids[0] if len(ids) else 'nothing'} where a row starts with {vocab.bos}"
        faults.append(Anomaly(position=0, kind="no_bos", detail=detail))
    position = begin = len(spans)  # begin: of this prompt or response
    answering, separators = False, list[int]()
    while position < len(ids):
        kind, end = _stretch(ids, position, vocab, answering=answering)
        spans.append(Span(kind, position, end, answering))
        if kind == "image":
            faults += image_anomalies(ids, position, end, vocab)
        elif kind == "text" and not vocab.is_text(ids[position]):
            faults.append(misplaced(kind_of_misplaced(ids[position], vocab), position, ids[position:end]))
        elif kind in ("separator", "eos"):
            if position == begin:
                part = "response" if answering else "prompt"
                faults.append(Anomaly(position=position, kind=f"empty_{part}", detail=f"{kind} without a {part}"))
            separators += [] if answering else [position]
            begin, answering = end, not answering
        position = end
    faults += _end_faults(separators, turns, len(ids), ended=not answering and begin == len(ids))
    return spans, sorted(faults, key=lambda fault: fault.position)


def _stretch(ids: Sequence[int], start: int, vocab: Vocab, *, answering: bool) -> tuple[Kind, int]:
    """What begins here, and its end; an eos may end a response, a separator a prompt."""
    if ids[start] == vocab.boi:
        return "image", end_of_image(ids, start, vocab)
    if ids[start] == (vocab.eos if answering else vocab.separator):
        return "eos" if answering else "separator", start + 1
    end = start + 1
    while vocab.is_text(ids[start]) and end < len(ids) and vocab.is_text(ids[end]):
        end += 1
    return "text", end


def _end_faults(separators: Sequence[int], turns: int | None, length: int, *, ended: bool) -> Iterator[Anomaly]:
    if not separators:
        yield Anomaly(position=length, kind="no_separator", detail="the row has a prompt at most")
    elif not ended:
        yield Anomaly(position=length, kind="no_eos", detail="the row ends without it")
    if separators and turns is not None and len(separators) != turns:
        position = separators[turns] if len(separators) > turns else length
        yield Anomaly(position=position, kind="wrong_turns", detail=f"{len(separators)} turn(s) instead of {turns}")
