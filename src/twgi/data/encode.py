"""Records -> token rows. A row is made by the one prompt builder, `twgi.tokenizer.multimodal`, and checked at the end.

What cannot be made into a row, or would be longer than the limit, is told with its place; nothing is ever cut.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twgi.data.lines import Fault, Line, Object, read_lines
from twgi.data.records import ImagePart, Part, Record, Turn, parse_record
from twgi.data.rows import Kind, Piece, Row, Span, check_row, cut
from twgi.errors import DataError, TwgiError
from twgi.tokenizer.image import open_picture
from twgi.tokenizer.multimodal import Codes, MultimodalTokenizer

CodesOf = Callable[[Path], Codes]
"""A picture's file -> its codebook indices."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A row, and the record it was made from; the record is None where the line was a row already.

    `published` is the line that the published code would write, where it was made in its way.
    """

    row: Row
    record: Record | None = None
    published: Object | None = None


@dataclass(frozen=True, kw_only=True)
class TooLong:
    """A line whose row would have more tokens than the limit."""

    where: str
    tokens: int

    def to_json(self) -> dict[str, Any]:
        return {"where": self.where, "tokens": self.tokens}


Outcome = Encoded | TooLong | Fault


def encode_file(
    path: Path,
    tokenizer: MultimodalTokenizer,
    *,
    limit: int | None = None,
    images: Path | None = None,
    codes_of: CodesOf | None = None,
) -> Iterator[Outcome]:
    """What becomes of each line of a file of records, or of rows, in order, one in memory at a time.

    Args:
        path: JSON lines.
        tokenizer: of the model that is to read the rows.
        limit: most tokens of a row; None for no limit.
        images: the folder that picture paths are relative to; None for that of the file.
        codes_of: how a picture becomes codes; None for the tokenizer's own way.

    Raises `DataError` where the file cannot be read.
    """
    reader = Encoder(tokenizer, limit=limit, codes_of=codes_of)
    for line in read_lines(path):
        yield line if isinstance(line, Fault) else reader.outcome(line, images or line.folder)


@dataclass(frozen=True)
class Encoder:
    """Lines -> outcomes, for one tokenizer and one limit."""

    tokenizer: MultimodalTokenizer
    limit: int | None = None
    codes_of: CodesOf | None = None

    def outcome(self, line: Line, folder: Path) -> Outcome:
        """What becomes of one line; never raises what a user can put right."""
        try:
            if "version" in line.value:
                return self._ready(Row.from_json(line.value), line.where)
            return self.encode(parse_record(line.value, where=line.where, folder=folder))
        except TwgiError as error:
            return Fault(where=line.where, reason=str(error))

    def encode(self, record: Record) -> Encoded | TooLong:
        """The row of a record. Raises `TwgiError` where there can be none.

        Its pictures are read only when it is known not to be too long.
        """
        if record.tokens is not None:
            return self._tokenised(record, record.tokens)
        blank = [0] * self.tokenizer.vocab.tokens_per_image
        length = len(self.row(record, lambda path: blank).tokens)
        if self.limit is not None and length > self.limit:
            return TooLong(where=record.where, tokens=length)
        row = self.row(record, self.codes_of or self._codes)
        return self._checked(Encoded(row=row, record=record), record.where, turns=len(record.turns))

    def _ready(self, row: Row, where: str) -> Encoded | TooLong:
        """A line that is a row already."""
        outcome = self._checked(Encoded(row=row), where, turns=None)
        _check_spans(row, self.tokenizer)
        return outcome

    def row(self, record: Record, codes_of: CodesOf) -> Row:
        """The row of a record that is not tokenised, unchecked."""
        pieces = (piece for turn in record.turns for piece in self._turn(turn, record.folder, codes_of))
        bos: Piece = ("bos", [self.tokenizer.vocab.bos], False)
        return Row.of([bos, *pieces], source=record.where, id=record.id)

    def _codes(self, path: Path) -> Codes:
        return self.tokenizer.codes([open_picture(path)])[0]

    def _turn(self, turn: Turn, folder: Path, codes_of: CodesOf) -> Iterator[Piece]:
        """prompt, separator, response, eos; the eos carries loss as what it ends does."""
        inputs = [codes_of(folder / image) for image in turn.input_images]
        _, *prompt = self.tokenizer.encode_prompt(turn.prompt, inputs)
        yield from cut(prompt, self.tokenizer.vocab)
        for part in turn.response:
            kind, ids = self._part(part, folder, codes_of)
            yield kind, ids, part.loss
        yield "eos", [self.tokenizer.vocab.eos], turn.response[-1].loss

    def _part(self, part: Part, folder: Path, codes_of: CodesOf) -> tuple[Kind, Sequence[int]]:
        if isinstance(part, ImagePart):
            return "image", self.tokenizer.image_block(codes_of(folder / part.image))
        return "text", self.tokenizer.text.encode(part.text)

    def _tokenised(self, record: Record, tokens: Sequence[int]) -> Encoded | TooLong:
        """Ids that came with the record: taken as they are if they are a whole row with as many pictures."""
        row = Row.of(cut(tokens, self.tokenizer.vocab), source=record.where, id=record.id)
        outcome = self._checked(Encoded(row=row, record=record), record.where, turns=len(record.turns) or None)
        _check_pictures(record, row)
        return outcome

    def _checked(self, encoded: Encoded, where: str, *, turns: int | None) -> Encoded | TooLong:
        """Raises `DataError` for a row that no model may be trained on."""
        faults = check_row(encoded.row.tokens, self.tokenizer.vocab, turns=turns)
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise DataError(f"{faults[0]}{more}")
        length = len(encoded.row.tokens)
        return TooLong(where=where, tokens=length) if self.limit is not None and length > self.limit else encoded


def _check_pictures(record: Record, row: Row) -> None:
    """The ids and the words of a record must speak of as many pictures."""
    if not record.turns:
        return
    said = sum(len(turn.input_images) + len(turn.images) for turn in record.turns)
    held = sum(span.kind == "image" for span in row.spans)
    if said != held:
        raise DataError(f'"tokens" has {held} image(s) but the record names {said} picture(s)')


def _check_spans(row: Row, tokenizer: MultimodalTokenizer) -> None:
    """The spans must be those of the ids, at most with text cut finer; loss may lie on responses alone."""
    expected = _joined(Row.of(cut(row.tokens, tokenizer.vocab)).spans)
    found = _joined(row.spans)
    if [(span.kind, span.end) for span in found] != [(span.kind, span.end) for span in expected]:
        raise DataError("the segments of the row are not those of its tokens")
    early = next((span for span, may in zip(found, expected, strict=True) if span.loss and not may.loss), None)
    if early is not None:
        raise DataError(f"tokens {early.start} to {early.end - 1} carry loss, but are not of a response")


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Neighbouring spans of text as one, which carries loss where any does."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.kind == joined[-1].kind == "text":
            span = Span(kind="text", start=joined[-1].start, end=span.end, loss=span.loss or joined[-1].loss)
            joined.pop()
        joined.append(span)
    return joined


def reference_json(encoded: Encoded) -> dict[str, Any]:
    """The row in the published format: prompt, response with marks, images, tokens.

    Raises `DataError` for what it cannot say: several turns, pictures in a prompt, parts without loss, ids alone.
    """
    if encoded.published is not None:
        return encoded.published
    record = encoded.record
    if record is None or len(record.turns) != 1 or record.turns[0].input_images:
        raise DataError("the published format holds one turn in words, without pictures in its prompt; use format twgi")
    (turn,) = record.turns
    if not all(part.loss for part in turn.response):
        raise DataError("the published format cannot leave a part out of the loss; use format twgi")
    images, tokens = list(turn.images), list(encoded.row.tokens)
    return {"prompt": turn.prompt, "response": turn.text, "images": images, "tokens": tokens}
