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
from twgi.replies import THOUGHT

Parsed = Literal["yes", "no", "invalid"]
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_EDGES = " \t\r\n.,;:!?\"'*`"
_TAGS = re.compile(r"<[^<>\s]{1,40}>")  # ends of text, "<b>"
_ARTICLE = re.compile(r"\A(?:an?|the)\s+")
_LEAD = re.compile(r"(?:(?:the|my)\W+)?(?:(?:final|short)\W+)?answer\b(?:\W+is\b)?\W*")
_TURN = r"(?:\W*(?:and|or|but)\W+|\s*/\s*|\s+)(?:yes|no)\b"  # "yes and no" is neither
_YES = re.compile(rf"yes\b(?!{_TURN})")
_NO = re.compile(  # "no bus" is neither: it may answer another question than was asked
    rf"no\b(?!{_TURN})(?=\W*\Z|\s*[^\w\s]|\s*\n|\s+"
    r"(?:it|its|there|this|that|these|those|the|they|he|she|i|we|you|not|isn't|in|at|on|as|because)\b)"
)
_LEADS = re.compile(r"(?:there\s+(?:are|is)|i\s+(?:can\s+)?(?:see|count)|it(?:'s|\s+is)|they\s+are)\s+")
_VAGUE = frozenset(  # what is said where nothing is known
    (
        "yes", "no", "unknown", "unsure", "uncertain", "unclear", "unable", "maybe", "perhaps", "possibly", "sorry",
        "cannot", "can't", "invalid", "undefined", "null", "nan", "none", "nothing", "n/a", "idk", "?", "many",
        "several", "some", "few", "both", "neither", "either",
    )
)  # fmt: skip


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
    """Question `proposition` of `item`, a `prompt`, on picture `image` of thought `sample`; `expected` is wanted."""

    picture: Picture | None
    question: str
    expected: str = "yes"
    item: str = ""
    sample: int = 0
    image: int = 0
    proposition: int = 0
    prompt: str = ""

    @property
    def place(self) -> tuple[str, int, int, int, str]:
        return self.item, self.sample, self.image, self.proposition, self.prompt


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
    """Words of a judge as an answer.

    A wanted yes or no is told by the first word: "Yes, there is." is a yes; "no bus" and "1000000" are neither. A
    wanted number is told by the numbers that are said, in digits or words. Of another word any other one of its kind
    is a no. What evades the question ("I cannot tell", "many") is invalid.
    """
    text, expected = plain(raw), _canonical(expected)
    if expected in ("yes", "no"):
        said = "yes" if _YES.match(text) else "no" if _NO.match(text) else None
    elif expected.isdecimal():
        numbers = {_canonical(word) for word in re.findall(r"[\w.]+", text)}
        numbers = {number for number in numbers if number.isdecimal()}
        first = _canonical(re.split(r"[^\w.]", _LEADS.sub("", text, count=1), maxsplit=1)[0])
        said = first if numbers == {first} else None
    else:
        clause = re.split(r"[.,;:!?\n(]|\s-+\s", _LEADS.sub("", text, count=1), maxsplit=1)[0]
        said, expected = _ARTICLE.sub("", clause).strip(_EDGES), _ARTICLE.sub("", expected)
        words = said.split()
        if said != expected and (not words or len(words) > len(expected.split()) or _VAGUE & set(words)):
            said = None
    parsed: Parsed = "invalid" if said is None else "yes" if said == expected else "no"
    return Answer(raw=raw, parsed=parsed, p_yes=p_yes)


def plain(raw: str) -> str:
    """Words in small letters, without thoughts, tags, signs around them, and "Answer:" before them."""
    text = _TAGS.sub(" ", THOUGHT.sub("", raw, count=1)).lower().replace("\u2019", "'").strip(_EDGES + "[](){}<>_\\-")
    return _LEAD.sub("", text, count=1) if _LEAD.match(text) else text


def bare(word: str) -> str:
    """A word or the beginning of one, in small letters without signs around it."""
    return re.sub(r"^[\W_]+|[\W_]+$", "", word.lower())


def _canonical(word: str) -> str:
    """A number in digits, another word in small letters."""
    word = word.strip(_EDGES).lower()
    if word in NUMBERS:
        return str(NUMBERS.index(word))
    number = re.fullmatch(r"0*(\d{1,18})(?:\.0+)?", word, re.ASCII)
    return number[1] if number else word


def spellings(expected: str) -> tuple[str, ...]:
    """How an answer may begin (Soft-TIFA): four spellings, and for a number those of its word and digits."""
    number = _canonical(expected)
    words = [expected, expected.capitalize()]
    if number.isdecimal():
        words = [*words, number, *(w for n in NUMBERS[int(number) : int(number) + 1] for w in (n, n.capitalize()))]
    return tuple(dict.fromkeys(lead + word for word in words for lead in ("", " ")))


def key(query: Query, judge: Judge) -> str:
    """What an answer is kept under: the picture, the question, the judge and its version."""
    picture = query.picture.sha256 if query.picture else list(query.place)
    parts = [picture, query.question, query.expected, judge.name, judge.version]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def kept(book: AnswerBook, query: Query, judge: Judge) -> Answer | None:
    """This judge's answer to this question about this picture, where a book has it."""
    line = book.get(key(query, judge)) or {}
    if not isinstance(raw := line.get("raw"), str):
        return None
    p_yes = line.get("p_yes")
    return understood(raw, expected=query.expected, p_yes=p_yes if isinstance(p_yes, int | float) else None)


def keep(book: AnswerBook, query: Query, judge: Judge, answer: Answer) -> None:
    """Write an answer into a book; one with a problem is none. The `replay` judge reads the lines of such a book."""
    if answer.problem is None:
        book.add({
            "key": key(query, judge), "item_id": query.item, "sample": query.sample, "image": query.image,
            "proposition_id": query.proposition, "picture": query.picture.sha256 if query.picture else None,
            "question": query.question, "expected": query.expected, "prompt": query.prompt, **answer.to_json(),
            "judge": {"name": judge.name, "version": judge.version},
        })  # fmt: skip


def instruction(expected: str) -> str:
    """What follows the question: GenEval 2's words where its answers are numbers."""
    return "Answer with a single word: yes or no." if expected in ("yes", "no") else "Answer in one word."
