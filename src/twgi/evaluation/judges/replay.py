"""The judge that repeats what another one said: recorded answers, for scoring again and for golden tests.

It reads the answers that `twgi score dpg` keeps (JSON lines), and tables (CSV, TSV, parquet) with the columns
`item_id`, `question_id` or `proposition_id`, and `answer`, as the DSG release has them. That release holds the answers
about several models in one file; say which one is meant: `replay:mplug_dsg.csv#sd2dot1`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from twgi.errors import ConfigError, DataError
from twgi.evaluation.judges.answer import Answer, Query, understood
from twgi.evaluation.tables import read_table

_NUMBERS = ("proposition_id", "question_id")
_ANSWERS = ("raw", "answer")
_MODEL = "t2i_model"


class ReplayJudge:
    """Answers by (item, sample, question number). Raises `ConfigError`: not to be read, or answered in two ways."""

    needs_test = False

    def __init__(self, path: Path, *, model: str | None = None) -> None:
        try:
            rows = list(read_table(path))
            self.version = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        except DataError as error:
            raise ConfigError(f"cannot read the recorded answers: {error}") from None
        self.name = f"replay:{path.name}" + (f"#{model}" if model else "")
        self._said: dict[tuple[str, int, int | None, int], tuple[str, float | None]] = {}
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

    def answer(self, queries: Iterable[Query]) -> Iterator[tuple[Query, Answer]]:
        for query in queries:
            item, sample, image, number = query.place
            said = self._said.get((item, sample, image, number)) or self._said.get((item, sample, None, number))
            answer = (
                understood(said[0], expected=query.expected, p_yes=said[1]) if said else Answer(problem="not recorded")
            )
            yield query, answer

    def _take(self, where: str, row: Mapping[str, Any]) -> None:
        try:
            number = next(row[name] for name in _NUMBERS if name in row)
            raw = next(row[name] for name in _ANSWERS if name in row)
            image = None if row.get("image") is None else _whole(row["image"])
            place = (str(row["item_id"]), _whole(row.get("sample") or 0), image, _whole(number))
            p_yes = row.get("p_yes")
            said = ("" if raw is None else str(raw), None if p_yes in (None, "") else float(p_yes))
        except (KeyError, StopIteration, TypeError, ArithmeticError, ValueError):
            needed = "needs item_id, proposition_id or question_id (a whole number), and answer or raw"
            raise ConfigError(f"{where}: {needed}") from None
        if self._said.setdefault(place, said) != said:
            raise ConfigError(f"{where}: question {place[3]} of {place[0]} was answered otherwise before")


def _whole(value: Any) -> int:
    """Also of 1.0, as pandas writes it. Raises `ValueError` or `ArithmeticError` for anything else."""
    number = float(value)
    if number != int(number):
        raise ValueError("not whole")
    return int(number)
