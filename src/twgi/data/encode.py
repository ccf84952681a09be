"""Lines of records, or of rows, -> checked token rows, by the one prompt builder, `twgi.tokenizer.multimodal`.

What cannot be made into a row, or would be longer than the limit, is told with its place; nothing is ever cut.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from twgi.data.records import TrainingRecord, parse_record, paths_of, text_of
from twgi.data.rows import Piece, TrainingRow, check_row, pieces_of
from twgi.errors import DataError, TwgiError
from twgi.files import Fault, Line, Object, inside, read_lines, writing_lines
from twgi.tokenizer.image import open_picture
from twgi.tokenizer.multimodal import PLACEHOLDER, Codes, MultimodalTokenizer
from twgi.tokenizer.published import PublishedTokenizer

PUBLISHED_KEYS = ("prompt", "response", "images")


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A row, and the record it was made from; the record is None where the line was a row already.

    `published` is the line that the published code would write, where it was made in its way.
    """

    row: TrainingRow
    record: TrainingRecord | None = None
    published: Object | None = None


@dataclass(frozen=True, kw_only=True)
class TooLong:
    """A line whose row would have more tokens than the limit."""

    where: str
    tokens: int


LineOutcome = Encoded | TooLong | Fault


@dataclass(frozen=True)
class RowEncoder:
    """Lines -> what becomes of them.

    `published`: as the published code does it, mistakes included, to compare with rows that were made there. Special
    names in a text become those tokens; a mark in a prompt, or in a response without pictures, becomes an image of
    placeholders; pictures beyond the marks are passed over; nothing is checked.
    """

    tokenizer: MultimodalTokenizer  # of the model that is to read the rows
    limit: int | None = None  # most tokens of a row
    images: Path | None = None  # the folder that picture paths are relative to; None for that of each file
    codes_of: Callable[[Path], Codes] | None = None  # a picture's file -> its codes; None for the tokenizer's own way
    published: bool = False

    def files(self, paths: Iterable[Path]) -> Iterator[LineOutcome]:
        """What becomes of each line, in order, one in memory at a time. Raises `DataError` for an unreadable file."""
        return (self.line(line) for path in paths for line in read_lines(path))

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
        vocab, record, turns = self.tokenizer.vocab, None, None
        if "version" in line.value:
            row = TrainingRow.from_json(line.value)
            row.check_tokenizer(self.tokenizer.sha256)
        else:
            record = parse_record(line.value, where=line.where, folder=self.images or line.folder)
            turns = len(record.turns) or None
            pieces = self._laid_out(record) if record.tokens is None else pieces_of(record.tokens, vocab)
            known = self.tokenizer.sha256 if record.tokens is None else ""  # whose ids a record brings is not told
            row = TrainingRow.of(pieces, source=record.where, id=record.id, tokenizer=known)
        check_row(row, vocab, turns=turns)
        if record and turns:
            said = sum(len(turn.pictures) for turn in record.turns)
            if said != (held := sum(span.kind == "image" for span in row.spans)):
                raise DataError(f'"tokens" has {held} image(s) but the record names {said} picture(s)')
        if self.limit is not None and len(row.tokens) > self.limit:
            return TooLong(where=line.where, tokens=len(row.tokens))
        return Encoded(row=self._filled(row, record) if record and record.tokens is None else row, record=record)

    def pictures_of(self, line: Line | Fault) -> tuple[Path, ...]:
        """The pictures that a line's row is made from; none where it is at fault."""
        if isinstance(line, Fault) or "version" in line.value:
            return ()
        try:
            return parse_record(line.value, where=line.where, folder=self.images or line.folder).files
        except TwgiError:
            return ()

    def _laid_out(self, record: TrainingRecord) -> Iterator[Piece]:
        """Of each turn prompt, separator, response, eos, which carries loss as what it ends; pictures are blank."""
        vocab = self.tokenizer.vocab
        blank = [0] * vocab.tokens_per_image
        yield "bos", [vocab.bos], False
        for turn in record.turns:
            _, *prompt = pieces_of(self.tokenizer.encode_prompt(turn.prompt, [blank] * len(turn.input_images)), vocab)
            yield from prompt
            for part in turn.response:
                is_text = part.kind == "text"
                ids = self.tokenizer.text.encode(part.content) if is_text else self.tokenizer.image_block(blank)
                yield part.kind, ids, part.loss
            yield "eos", [vocab.eos], turn.response[-1].loss

    def _filled(self, row: TrainingRow, record: TrainingRecord) -> TrainingRow:
        """The same row with its pictures, read one at a time."""
        tokens, images = list(row.tokens), (span for span in row.spans if span.kind == "image")
        for span, file in zip(images, record.files, strict=True):
            tokens[span.start : span.end] = self.tokenizer.image_block(self._codes(file))
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
        pictures = [self._codes(inside(self.images or line.folder, path)) for path in wanted]
        tokens = self._publisher.record(prompt, response, pictures)
        if self.limit is not None and len(tokens) > self.limit:
            return TooLong(where=line.where, tokens=len(tokens))
        row = TrainingRow.of(pieces_of(tokens, self.tokenizer.vocab), source=line.where)
        return Encoded(row=row, published={**said, "tokens": tokens})


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


@dataclass(kw_only=True)
class EncodingReport:
    """What became of all lines: counts of what was kept, and the place of everything that was not.

    `limit`: most tokens of a row; `unlearnt`: how many of those kept have no token to be learnt.
    """

    kept: int = 0
    tokens: int = 0
    learnt: int = 0
    unlearnt: int = 0
    images: int = 0
    limit: int | None
    too_long: list[Object] = field(default_factory=list)
    refused: list[Object] = field(default_factory=list)

    def add(self, outcome: LineOutcome) -> None:
        """One more line."""
        if not isinstance(outcome, Encoded):
            (self.refused if isinstance(outcome, Fault) else self.too_long).append({**vars(outcome)})
            return
        self.kept += 1
        self.tokens += len(outcome.row.tokens)
        learnt = int(outcome.row.mask.sum())
        self.learnt += learnt
        self.unlearnt += not learnt
        self.images += sum(span.kind == "image" for span in outcome.row.spans)

    @property
    def good(self) -> bool:
        """Whether there is something to learn, and nothing is refused."""
        return self.learnt > 0 and not self.refused

    def problems(self) -> list[str]:
        """A line of text for each row that was not kept, as `file:line: reason`."""
        long = [f"{row['where']}: too long: {row['tokens']} tokens, at most {self.limit}" for row in self.too_long]
        return [*long, *(f"{fault['where']}: {fault['reason']}" for fault in self.refused)]

    def summary(self) -> str:
        """All of it in a line."""
        what = f"{self.tokens} tokens, {self.learnt} of them to be learnt, {self.images} images"
        bare = f", {self.unlearnt} of them WITHOUT A TOKEN TO BE LEARNT" if self.unlearnt else ""
        return f"{self.kept} kept ({what}){bare}, {len(self.too_long)} too long, {len(self.refused)} refused"

    def to_json(self) -> Object:
        """Everything, for programs."""
        return {"lines": self.kept + len(self.too_long) + len(self.refused), **vars(self)}

    @classmethod
    def from_json(cls, value: Object) -> "EncodingReport":
        """Read `to_json` back."""
        return cls(**{key: value[key] for key in value if key != "lines"})


def write_rows(out: Path, outcomes: Iterable[LineOutcome], *, limit: int | None, as_reference: bool) -> EncodingReport:
    """Write a line for each row. A row that the published format cannot hold is a fault; no row makes no file."""
    report = EncodingReport(limit=limit)

    def lines() -> Iterator[Object]:
        for outcome in outcomes:
            line = None
            if isinstance(outcome, Encoded):
                try:
                    line = reference_json(outcome) if as_reference else outcome.row.to_json()
                except DataError as error:
                    outcome = Fault(where=outcome.row.source, reason=str(error))
            report.add(outcome)
            if line:
                yield line

    rows = lines()
    if first := next(rows, None):
        with writing_lines(out) as file:
            for line in chain([first], rows):
                file.write(line)
    return report
