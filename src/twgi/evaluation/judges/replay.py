"""The judge that repeats what another one said: recorded answers, for scoring again and for golden tests.

It reads the answers that `twgi score dpg` keeps (JSON lines), and tables (CSV, TSV, parquet) with the columns
`item_id`, `question_id` or `proposition_id`, and `answer`, as the DSG release has them; `question` and `prompt` too
where they are there. That release holds the answers
about several models in one file; say which one is meant: `replay:mplug_dsg.csv#sd2dot1`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twgi.errors import ConfigError, DataError
from twgi.evaluation.judges.answer import Answer, Query, understood
from twgi.evaluation.pictures import matched, words
from twgi.evaluation.tables import read_table
from twgi.files import short

_NUMBERS = ("proposition_id", "question_id")
_ANSWERS = ("raw", "answer")
_MODEL = "t2i_model"
_WORDS = (("question", "question_natural_language"), ("prompt", "text"), ("picture",), ("expected",))


class ReplayJudge:
    """Answers by question and picture; without pictures by prompt, sample and question. What is meant is told by its
    hash or its words where they were recorded, and by its id or number only where they were not.

    Raises `ConfigError`: not to be read, or answered in two ways.
    """

    needs_test = False

    def __init__(self, path: Path, *, model: str | None = None) -> None:
        try:
            rows = list(read_table(path))
            self.version = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        except DataError as error:
            raise ConfigError(f"cannot read the recorded answers: {error}") from None
        self.name = f"replay:{path.name}" + (f"#{model}" if model else "")
        self._said: dict[tuple[str, int, int | None, str | None], dict[int, _Said]] = {}
        self._seen: dict[tuple[str, str], _Said] = {}  # by picture and question, whatever their place was
        self._items: dict[str, str] | None = None
        self.prompts: dict[str, str] = {}  # words of each item, where they were recorded
        models = sorted({str(row[_MODEL]) for _, row in rows if _MODEL in row})
        if model is None and len(models) > 1:
            raise ConfigError(
                f"{path} holds answers about {', '.join(models)}: say which, as replay:{path}#{models[0]}"
            )
        if model is not None and model not in models:
            known = ", ".join(models) or "no models named"
            raise ConfigError(f"{path} holds no answers about {model!r}; there are {known}")
        for where, row in rows:
            if model is None or row.get(_MODEL) == model:
                self._take(where, row)

    @property
    def images(self) -> dict[tuple[str, int], int]:
        """(item, sample) of every thought that was spoken of -> how many pictures it had, as far as known."""
        counts: dict[tuple[str, int], int] = {}
        for item, sample, image, _ in self._said:
            counts[item, sample] = max(counts.get((item, sample), 1), 1 + (image or 0))
        return counts

    @property
    def numbered(self) -> bool:
        """Whether there are answers of which nothing but a number says to which question."""
        return any(question is None for _, _, _, question in self._said)

    def about(self, asked: Mapping[str, str]) -> None:
        """The prompts that it will be asked about, id -> words, so that it finds them under whatever id it has them."""
        told = {item: self.prompts.get(item, "") for item, _, _, _ in self._said}
        self._items = {ours: item for item, ours in matched(told, asked).items()}

    def answer(self, queries: Iterable[Query]) -> Iterator[tuple[Query, Answer]]:
        for query in queries:
            said = self._of_picture(query) if query.picture and self._seen else self._of_place(query)
            if said is None:
                yield query, Answer(problem="not recorded")
            else:
                p_yes = said.p_yes if said.expected in (None, query.expected) else None
                yield query, understood(said.raw, expected=query.expected, p_yes=p_yes)

    def _of_picture(self, query: Query) -> "_Said | None":
        return self._seen.get((query.picture.sha256 if query.picture else "", query.question))

    def _of_place(self, query: Query) -> "_Said | None":
        item = query.item if self._items is None else self._items.get(query.item, "")
        for image in (query.image, None):
            for question in (query.question, None):  # words, where they were recorded
                numbers = self._said.get((item, query.sample, image, question), {})
                if query.proposition in numbers:
                    return numbers[query.proposition]
                if question and len(set(numbers.values())) == 1:
                    return next(iter(numbers.values()))
        return None

    def _take(self, where: str, row: Mapping[str, Any]) -> None:
        try:
            number = _whole(next(row[name] for name in _NUMBERS if name in row))
            raw = next(row[name] for name in _ANSWERS if name in row)
            image = None if row.get("image") in (None, "") else _whole(row["image"])
            item, sample, p_yes = str(row["item_id"]), _whole(row.get("sample") or 0), row.get("p_yes")
            p_yes = None if p_yes in (None, "") else float(p_yes)
            if p_yes is not None and not 0 <= p_yes <= 1:
                raise ValueError("no probability")
        except (KeyError, StopIteration, TypeError, ArithmeticError, ValueError):
            needed = "needs item_id, proposition_id or question_id (a whole number), and answer or raw"
            raise ConfigError(f"{where}: {needed}") from None
        question, prompt, picture, expected = (_text(row, *names) for names in _WORDS)
        said = _Said("" if raw is None else str(raw), p_yes, expected)
        if self._said.setdefault((item, sample, image, question), {}).setdefault(number, said) != said:
            raise ConfigError(f"{where}: question {number} of {item} was answered otherwise before")
        if prompt and words(self.prompts.setdefault(item, prompt)) != words(prompt):
            raise ConfigError(f"{where}: {item} was another prompt before: {short(self.prompts[item])}")
        if question and picture:
            self._seen.setdefault((picture, question), said)


class _Said(NamedTuple):
    """What was answered, and the answer that was wanted, where that is known."""

    raw: str
    p_yes: float | None
    expected: str | None


def _text(row: Mapping[str, Any], *names: str) -> str | None:
    """The first of these columns that holds a text."""
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)


def _whole(value: Any) -> int:
    """Also of 1.0, as pandas writes it. Raises `ValueError` or `ArithmeticError` for anything else."""
    number = float(value)
    if number != int(number):
        raise ValueError("not whole")
    return int(number)
