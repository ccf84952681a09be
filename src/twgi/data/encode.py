"""Lines of records, or of rows, -> checked token rows, by the one prompt builder, `twgi.tokenizer.multimodal`.

What cannot be made into a row, or would be longer than the limit, is told with its place; nothing is ever cut.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from twgi.data.records import ImagePart, Part, TrainingRecord, Turn, parse_record, paths_of, text_of
from twgi.data.report import Encoded, LineOutcome, TooLong
from twgi.data.rows import Kind, Piece, TrainingRow, check_row, pieces_of
from twgi.errors import DataError, TwgiError
from twgi.files import Fault, Line, Object, read_lines
from twgi.tokenizer.image import open_picture
from twgi.tokenizer.multimodal import PLACEHOLDER, Codes, MultimodalTokenizer
from twgi.tokenizer.published import PublishedTokenizer

CodesOf = Callable[[Path], Codes]
"""A picture's file -> its codebook indices."""

PUBLISHED_KEYS = ("prompt", "response", "images")


@dataclass(frozen=True)
class RowEncoder:
    """Lines -> what becomes of them.

    Args:
        tokenizer: of the model that is to read the rows.
        limit: most tokens of a row; None for no limit.
        images: the folder that picture paths are relative to; None for that of each file.
        codes_of: how a picture becomes codes; None for the tokenizer's own way.
        published: as the published code does it, mistakes included, to compare with rows that were made there:
            special names in a text become those tokens; a mark in a prompt, or in a response without pictures, becomes
            an image of placeholders; pictures beyond the marks are passed over. Nothing is checked.
    """

    tokenizer: MultimodalTokenizer
    limit: int | None = None
    images: Path | None = None
    codes_of: CodesOf | None = None
    published: bool = False

    def file(self, path: Path) -> Iterator[LineOutcome]:
        """What becomes of each line, in order, one in memory at a time. Raises `DataError` for an unreadable file."""
        return map(self.line, read_lines(path))

    def line(self, line: Line | Fault) -> LineOutcome:
        """What becomes of one line; never raises what a user can put right."""
        if isinstance(line, Fault):
            return line
        try:
            return self._as_published(line) if self.published else self._encoded(line)
        except TwgiError as error:
            return Fault(where=line.where, reason=str(error))

    def _encoded(self, line: Line) -> Encoded | TooLong:
        """Laid out, checked, and measured; only then are pictures read. Raises `TwgiError` where there is no row."""
        record: TrainingRecord | None = None
        if "version" in line.value:
            row, turns = TrainingRow.from_json(line.value), None
        else:
            record = parse_record(line.value, where=line.where, folder=self.images or line.folder)
            row, turns = self._laid_out(record), len(record.turns) or None
        check_row(row, self.tokenizer.vocab, turns=turns)
        if record and record.tokens is not None:
            _check_pictures(record, row)
        if self.limit is not None and len(row.tokens) > self.limit:
            return TooLong(where=line.where, tokens=len(row.tokens))
        return Encoded(row=self._filled(row, record) if record and record.tokens is None else row, record=record)

    def _laid_out(self, record: TrainingRecord) -> TrainingRow:
        """The row of a record; one that is not tokenised yet has blank pictures."""
        if record.tokens is not None:
            return TrainingRow.of(pieces_of(record.tokens, self.tokenizer.vocab), source=record.where, id=record.id)
        pieces = [piece for turn in record.turns for piece in self._turn(turn)]
        return TrainingRow.of([("bos", [self.tokenizer.vocab.bos], False), *pieces], source=record.where, id=record.id)

    def _turn(self, turn: Turn) -> Iterator[Piece]:
        """prompt, separator, response, eos; the eos carries loss as what it ends does."""
        vocab = self.tokenizer.vocab
        _, *prompt = pieces_of(self.tokenizer.encode_prompt(turn.prompt, [self._blank] * len(turn.input_images)), vocab)
        yield from prompt
        for part in turn.response:
            yield *self._part(part), part.loss
        yield "eos", [vocab.eos], turn.response[-1].loss

    def _part(self, part: Part) -> tuple[Kind, list[int]]:
        if isinstance(part, ImagePart):
            return "image", self.tokenizer.image_block(self._blank)
        return "text", self.tokenizer.text.encode(part.text)

    @cached_property
    def _blank(self) -> Codes:
        return [0] * self.tokenizer.vocab.tokens_per_image

    def _filled(self, row: TrainingRow, record: TrainingRecord) -> TrainingRow:
        """The same row with its pictures, read one at a time."""
        tokens, pictures = list(row.tokens), (path for turn in record.turns for path in turn.pictures)
        images = (span for span in row.spans if span.kind == "image")
        for span, path in zip(images, pictures, strict=True):
            tokens[span.start : span.end] = self.tokenizer.image_block(self._codes(record.folder / path))
        return replace(row, tokens=tuple(tokens))

    def _codes(self, path: Path) -> Codes:
        return self.codes_of(path) if self.codes_of else self.tokenizer.codes([open_picture(path)])[0]

    @cached_property
    def _publisher(self) -> PublishedTokenizer:
        return PublishedTokenizer(self.tokenizer)

    def _as_published(self, line: Line) -> Encoded | TooLong:
        said = {key: line.value[key] for key in PUBLISHED_KEYS if key in line.value}
        prompt, response = text_of(said, "prompt"), text_of(said, "response")
        paths = paths_of(said, "images")
        if "images" in said and not paths:
            raise DataError('"images" is empty; the published code needs a picture, or no such key')
        wanted = paths[: response.count(PLACEHOLDER)]
        pictures = [self._codes((self.images or line.folder) / path) for path in wanted]
        tokens = self._publisher.record(prompt, response, pictures)
        if self.limit is not None and len(tokens) > self.limit:
            return TooLong(where=line.where, tokens=len(tokens))
        row = TrainingRow.of(pieces_of(tokens, self.tokenizer.vocab), source=line.where)
        return Encoded(row=row, published={**said, "tokens": tokens})


def _check_pictures(record: TrainingRecord, row: TrainingRow) -> None:
    """The ids and the words of a record, if it has both, must speak of as many pictures."""
    said = sum(len(turn.pictures) for turn in record.turns)
    held = sum(span.kind == "image" for span in row.spans)
    if record.turns and said != held:
        raise DataError(f'"tokens" has {held} image(s) but the record names {said} picture(s)')


def reference_json(encoded: Encoded) -> Object:
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
