"""What a benchmark is: its prompts, what is right about a picture, and how judgements become scores.

The rest is the same for all of them: `evaluate` judges what is there, writes results and says what is missing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from twgi.errors import ConfigError, PromptError
from twgi.evaluation.pictures import PictureSet
from twgi.runs.prompts import BadLine, PromptLine

if TYPE_CHECKING:
    from twgi.evaluation.evaluate import Evaluation

Part = tuple[int, int]
"""(which, of how many), from 1: every so-many-th prompt"""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One prompt of a benchmark; `record` is its line as it was. What its pictures must show, a benchmark adds."""

    id: str
    prompt: str
    task: str = ""
    record: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def label(self) -> str:
        return self.id


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is right about one picture: a `score` in 0..1, None where nothing is known, and each thing that is wrong.

    `pending` questions were not answered yet; `parts` and `detail` are for the row of results, `source` is what the
    benchmark makes its scores of.
    """

    score: float | None
    reasons: tuple[str, ...] = ()
    pending: int = 0
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)
    source: Any = None

    @property
    def correct(self) -> bool:
        return self.score == 1


@dataclass(frozen=True, kw_only=True)
class PictureToJudge:
    """Picture `number` of a thought, opened; without an image there are recorded answers only."""

    item: Any
    sample: int
    number: int
    image: Image.Image | None


Judged = tuple[PictureToJudge, Verdict]


class Benchmark(Protocol):
    """What the frame asks of a benchmark; `name` is its key in `benchmarks.BENCHMARKS`.

    Its command asks it for `prompts` and for a `table` of `scores.json` as well.
    """

    @property
    def name(self) -> str: ...

    def judge(self, pictures: Iterable[PictureToJudge], out: Path, part: Part) -> Iterable[Judged]:
        """The verdict on each picture, in any order; costly answers are kept in `out`, so that none is asked for twice.

        One without a score and with a reason is on a picture that whoever judges cannot look at.
        """

    def wrong(self, item: Any, problem: str) -> Verdict:
        """The verdict where there is nothing to look at."""

    def scores(self, evaluation: "Evaluation") -> dict[str, Any]:
        """What the verdicts come to: what `scores.json` holds beside what the frame says.

        `unknown` says how much nobody knows, where that is too much for a score.
        """

    def describe(self) -> dict[str, Any]:
        """Who judges, and how."""

    def lay_out(self, asked: "PromptSet", pictures: PictureSet) -> Path:
        """Lay the last pictures of a run out as other scorers read them; where they are."""


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """The prompts that are asked for, out of the `whole` benchmark; `left_out` cannot be drawn or judged."""

    items: tuple[Any, ...]
    whole: int
    left_out: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> "PromptSet":
        """The first so many prompts of each task. Raises `ConfigError` for a limit below one."""
        if limit is not None and limit < 1:
            raise ConfigError(f"limit must be 1 or more, got {limit}")
        taken: Counter[str] = Counter()
        kept = []
        for item in self.items:
            taken[item.task] += 1
            kept += [item] if limit is None or taken[item.task] <= limit else []
        return replace(self, items=tuple(kept))

    def lines(self) -> tuple[PromptLine | BadLine, ...]:
        """The prompts as a run takes them."""
        lines: list[PromptLine | BadLine] = []
        for item in self.items:
            where = f"prompt {item.id}"
            try:
                lines.append(PromptLine(where=where, prompt=item.prompt))
            except PromptError as error:
                lines.append(BadLine(where=where, problem=str(error)))
        return tuple(lines)

    def describe(self, benchmark: str) -> dict[str, Any]:
        """What a run says of its benchmark in `run.json`, so that its folder can be judged without anything else."""
        ids, lines = [item.id for item in self.items], [dict(item.record) for item in self.items]
        told = {"name": benchmark, "whole": self.whole, "left_out": list(self.left_out), "ids": ids, "lines": lines}
        return {"benchmark": told}
