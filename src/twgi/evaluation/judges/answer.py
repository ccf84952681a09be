"""What a judge of pictures is asked and what it answers. Whoever looks at pictures and answers questions can be one."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from PIL import Image

from twgi.answers import AnswerBook

Parsed = Literal["yes", "no", "invalid"]
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_EDGES = " \t\r\n.,;:!?\"'*`"
_FIRST = re.compile(r"(yes|no)\s*[,.;:!\n]")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with its hash, which covers size and mode too: 30 x 100 and 100 x 30 equal bytes are two pictures."""

    image: Image.Image

    @cached_property
    def sha256(self) -> str:
        shape = f"{self.image.mode} {self.image.width}x{self.image.height}\n"
        return hashlib.sha256(shape.encode() + self.image.tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Query:
    """Question `proposition` of prompt `item` on picture `image` of thought `sample`; `expected`: the wanted answer."""

    picture: Picture | None
    question: str
    expected: str = "yes"
    item: str = ""
    sample: int = 0
    image: int = 0
    proposition: int = 0

    @property
    def place(self) -> tuple[str, int, int, int]:
        return self.item, self.sample, self.image, self.proposition


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a judge said, `raw`: the wanted answer (`yes`), another one (`no`), or nobody can tell (`invalid`).

    `p_yes` is the probability of the wanted answer, where it says so. With a `problem` there is no answer at all; such
    an answer is not kept, the next run asks again.
    """

    raw: str = ""
    parsed: Parsed = "invalid"
    p_yes: float | None = None
    problem: str | None = None

    @property
    def text(self) -> str:
        """The words in small letters without signs around them, as the published judge gives them."""
        return self.raw.strip(_EDGES).lower()

    def to_json(self) -> dict[str, Any]:
        return {"raw": self.raw, "parsed": self.parsed, "p_yes": self.p_yes}


class Judge(Protocol):
    """Answers questions about pictures; `needs_test`: it must show that it sees them before it is believed."""

    name: str
    version: str
    needs_test: bool

    def answer(self, queries: Iterable[Query]) -> Iterator[tuple[Query, Answer]]:
        """The answer to each query, in any order, each as soon as it is known."""


def understood(raw: str, *, expected: str = "yes", p_yes: float | None = None) -> Answer:
    """Words of a judge as an answer: only a plain yes or no (or number, where one is wanted) is one.

    "Yes, there is." is a yes; "no bus" and "1000000" are neither yes nor no.
    """
    text = raw.strip(_EDGES).lower()
    first = _FIRST.match(text)
    word = first[1] if first and expected == "yes" else text
    if word in {expected, _digit(expected)}:
        return Answer(raw=raw, parsed="yes", p_yes=p_yes)
    other = word == "no" if expected == "yes" else word in NUMBERS or word.isdecimal()
    return Answer(raw=raw, parsed="no" if other else "invalid", p_yes=p_yes)


def spellings(expected: str) -> tuple[str, ...]:
    """How an answer may begin (Soft-TIFA): four spellings, and the digits where it is a number."""
    words = [expected, expected.capitalize()]
    words += [_digit(expected)] if expected in NUMBERS else []
    return tuple(lead + word for word in words for lead in ("", " "))


def _digit(word: str) -> str:
    return str(NUMBERS.index(word)) if word in NUMBERS else word


def key(query: Query, judge: Judge) -> str:
    """What an answer is kept under: the picture, the question, the judge and its version."""
    picture = query.picture.sha256 if query.picture else list(query.place)
    parts = [picture, query.question, query.expected, judge.name, judge.version]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def kept(book: AnswerBook, query: Query, judge: Judge) -> Answer | None:
    """This judge's answer to this question about this picture, where a book has it."""
    line = book.get(key(query, judge))
    return Answer(raw=line["raw"], parsed=line["parsed"], p_yes=line["p_yes"]) if line else None


def keep(book: AnswerBook, query: Query, judge: Judge, answer: Answer) -> None:
    """Write an answer into a book; one with a problem is none. The `replay` judge reads the lines of such a book."""
    if answer.problem is None:
        book.add({
            "key": key(query, judge), "item_id": query.item, "sample": query.sample, "image": query.image,
            "proposition_id": query.proposition, "picture": query.picture.sha256 if query.picture else None,
            "question": query.question, **answer.to_json(), "judge": {"name": judge.name, "version": judge.version},
        })  # fmt: skip


def instruction(expected: str) -> str:
    """What follows the question: GenEval 2's words where its answers are numbers."""
    return "Answer with a single word: yes or no." if expected == "yes" else "Answer in one word."
