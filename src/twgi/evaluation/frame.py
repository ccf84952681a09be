"""What a benchmark is: its prompts, what is right about a picture, and how judgements become scores.

The rest is the same for all of them: `evaluate` judges what is there, writes results and says what is missing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from twgi.errors import ConfigError
from twgi.evaluation.pictures import PictureSet, prompt_line
from twgi.runs.prompts import BadLine, PromptLine

if TYPE_CHECKING:
    from twgi.evaluation.evaluate import Evaluation

Part = tuple[int, int]
"""(which, of how many), from 1: every so-many-th prompt"""
Place = tuple[str, int, int]
"""(id of the prompt, sample, number of the picture)"""


class Item(Protocol):
    """One prompt of a benchmark with what its pictures must show; `record` is its line, `label` names it in lists."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def record(self) -> Mapping[str, Any]: ...


class PictureJudgement(Protocol):
    """What is right about one picture.

    `score` is in 0..1, None where nothing is known; `reasons` is what is wrong; `pending` counts questions that nobody
    answered yet; `parts` and `detail` go into the row of results.
    """

    @property
    def score(self) -> float | None: ...
    @property
    def reasons(self) -> tuple[str, ...]: ...
    @property
    def pending(self) -> int: ...
    @property
    def parts(self) -> Mapping[str, tuple[float, float]]: ...
    @property
    def detail(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A judgement without parts: right or wrong, and each thing that is wrong."""

    score: float | None
    reasons: tuple[str, ...] = ()
    pending: int = 0
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def correct(self) -> bool:
        return self.score == 1


@dataclass(frozen=True, kw_only=True)
class PictureToJudge:
    """One picture, opened; without an image there are recorded answers only."""

    item: Any
    sample: int
    number: int
    image: Image.Image | None

    @property
    def place(self) -> Place:
        return self.item.id, self.sample, self.number


Judged = tuple[PictureToJudge, PictureJudgement]


class Benchmark(Protocol):
    """What is to be said of a benchmark; `name` is its key in `benchmarks.BENCHMARKS`."""

    @property
    def name(self) -> str: ...

    def prompts(self, path: Path) -> "PromptSet":
        """All prompts of a file. Raises `PromptError`."""

    def judge(self, pictures: Iterable[PictureToJudge], out: Path, part: Part) -> Iterable[Judged]:
        """The judgement of each picture, in any order, after whoever judges has shown that it can see.

        Answers that are costly are kept in `out`, so that none is asked for twice.
        """

    def wrong(self, item: Any, problem: str) -> PictureJudgement:
        """The judgement where there is nothing to look at."""

    def scores(self, evaluation: "Evaluation") -> dict[str, Any]:
        """What the judgements come to: what `scores.json` holds beside what the frame says."""

    def describe(self) -> dict[str, Any]:
        """Who judges, and how."""

    def lay_out(self, asked: "PromptSet", pictures: PictureSet) -> Path:
        """Lay the last pictures of a run out as other scorers read them; where they are."""

    def table(self, scores: Mapping[str, Any]) -> str:
        """`scores.json` as lines for people."""


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """The prompts that are asked for, out of the `whole` benchmark; `left_out` cannot be drawn or judged."""

    items: tuple[Any, ...]
    whole: int
    left_out: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> "PromptSet":
        """The first so many prompts of each task. Raises `ConfigError` for a limit below one."""
        if limit is None:
            return self
        if limit < 1:
            raise ConfigError(f"limit must be 1 or more, got {limit}")
        taken: Counter[str] = Counter()
        kept = []
        for item in self.items:
            taken[item.task] += 1
            kept += [item] if taken[item.task] <= limit else []
        return replace(self, items=tuple(kept))

    def lines(self) -> tuple[PromptLine | BadLine, ...]:
        """The prompts as a run takes them."""
        return tuple(prompt_line(item.id, item.prompt) for item in self.items)

    def describe(self, benchmark: str) -> dict[str, Any]:
        """What a run says of its benchmark in `run.json`, so that its folder can be judged without anything else."""
        return {
            "benchmark": {
                "name": benchmark,
                "whole": self.whole,
                "left_out": list(self.left_out),
                "ids": [item.id for item in self.items],
                "lines": [dict(item.record) for item in self.items],
            }
        }
