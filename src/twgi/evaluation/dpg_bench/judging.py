"""Pictures -> answers: every question about every picture that counts, asked once and kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from twgi.errors import ConfigError, ImageError
from twgi.evaluation.dpg_bench.gating import Truth
from twgi.evaluation.dpg_bench.pictures import Sample, Spot
from twgi.evaluation.dpg_bench.questions import Item
from twgi.evaluation.dpg_bench.scores import Judged
from twgi.evaluation.judges.answer import Answer, Judge, Picture, Query
from twgi.evaluation.judges.cache import AnswerBook
from twgi.evaluation.judges.self_test import self_test
from twgi.tokenizer.image import open_picture

Advance = Callable[[], None]
Counting = Callable[[int, str], AbstractContextManager[Advance]]  # (how many, doing what) -> call it after each
TRUTHS: Mapping[str, Truth] = {"yes": True, "no": False, "invalid": None}


@dataclass(kw_only=True)
class Sheet:
    """One picture of a thought and what was answered about it; `problem` says why it cannot be looked at."""

    item: Item
    sample: int
    image: int
    sha256: str | None = None
    problem: str | None = None
    answers: dict[int, Answer] = field(default_factory=dict)

    @property
    def judged(self) -> Judged:
        return Judged(
            item=self.item,
            sample=self.sample,
            answers={number: TRUTHS[answer.parsed] for number, answer in self.answers.items()},
            p_yes={number: answer.p_yes for number, answer in self.answers.items() if answer.p_yes is not None},
            problem=self.problem,
        )

    @property
    def unanswered(self) -> list[int]:
        """Questions to which nobody said anything (yet), so that the next run asks them again."""
        if self.problem is not None:
            return []
        known = {number for number, answer in self.answers.items() if answer.problem is None}
        return [question.id for question in self.item.questions if question.id not in known]


def images_judged(which: str, count: int) -> Sequence[int]:
    """The numbers of a thought's pictures that are judged.

    Raises:
        ConfigError: `which` is unknown.
    """
    if which not in ("final", "first", "each"):
        raise ConfigError(f"which must be final, first or each, got {which!r}")
    if not count:
        return []
    return {"final": [count - 1], "first": [0], "each": list(range(count))}[which]


def ask_about(
    samples: Sequence[tuple[Item, Sample]],
    judge: Judge,
    book: AnswerBook,
    *,
    which: str,
    counting: Counting,
    test: bool,
) -> list[Sheet]:
    """Ask every question about the pictures of these thoughts, unless the book has its answer.

    With `test`, a judge that needs one has its self-test before its first question.

    Pictures are opened one after the other, as the judge takes them in.

    Raises:
        CheckpointError: the judge fails its self-test.
        ConfigError: the judge refuses, or `which` is unknown.
        RunError: the answers cannot be kept, or the judge is not there.
    """
    wanted = [(item, sample, image) for item, sample in samples for image in images_judged(which, len(sample.spots))]
    sheets = [Sheet(item=item, sample=sample.sample, image=image) for item, sample, image in wanted]
    by_place = {(sheet.item.id, sheet.sample, sheet.image): sheet for sheet in sheets}
    looked = zip(sheets, (sample for _, sample, _ in wanted), strict=True)
    with counting(sum(len(sheet.item.questions) for sheet in sheets), "asking") as advance:
        todo = _open_questions(looked, judge, book, advance)
        for query, answer in judge.answer(_after_test(todo, judge) if test and judge.needs_test else todo):
            item, number_of_sample, image, proposition = query.place
            by_place[item, number_of_sample, image].answers[proposition] = answer
            book.add(query, judge, answer)
            advance()
    return sheets


def _after_test(todo: Iterator[Query], judge: Judge) -> Iterator[Query]:
    for number, query in enumerate(todo):
        if number == 0:
            self_test(judge)
        yield query


def _open_questions(
    sheets: Iterator[tuple[Sheet, Sample]], judge: Judge, book: AnswerBook, advance: Advance
) -> Iterator[Query]:
    """The questions that the book cannot answer; what it can goes onto the sheets at once."""
    files = _LastFile()
    for sheet, sample in sheets:
        try:
            picture = None if sample.recorded else Picture(image=files.open(sample.spots[sheet.image]))
        except ImageError as error:
            sheet.problem = str(error)
            continue
        sheet.sha256 = picture.sha256 if picture else None
        for query in _queries(sheet, picture):
            kept = book.get(query, judge)
            if kept is None:
                yield query
            else:
                sheet.answers[query.proposition] = kept
                advance()


class _LastFile:
    """Opens a grid once for its four pictures, which come one after the other."""

    def __init__(self) -> None:
        self._file: Path | None = None

    def open(self, spot: Spot) -> Image.Image:
        if spot.file is None:
            return spot.open()
        if spot.file != self._file:
            self._file = None
            self._whole = open_picture(spot.file)
            self._file = spot.file
        return spot.open(self._whole)


def _queries(sheet: Sheet, picture: Picture | None) -> Iterator[Query]:
    for question in sheet.item.questions:
        yield Query(
            picture=picture, question=question.text, expected=question.expected, item=sheet.item.id,
            sample=sheet.sample, image=sheet.image, proposition=question.id,
        )  # fmt: skip
