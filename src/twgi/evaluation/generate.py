"""GenEval from prompts to scores: think about every prompt that the judge can see, and judge what comes of it.

The output is a run folder, so a killed evaluation goes on where it stopped; beside the run lie

    geneval/       the last picture of each thought in GenEval's own folder shape, for any other scorer
    results.jsonl  a row for each thought: right or wrong, why, each picture before the last
    scores.json    each task's score, and what it was measured on and with
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twgi.errors import ConfigError, PromptError
from twgi.evaluation.collection import about, item_of, prompt_line, read_run
from twgi.evaluation.detectors.eyes import Eyes, self_test
from twgi.evaluation.geneval import Item, read_items
from twgi.evaluation.official import export
from twgi.evaluation.score import score, write_scores
from twgi.thinking.plan import RunPlan
from twgi.thinking.prompts import BadLine, PromptLine, read_prompts
from twgi.thinking.run import Outcome, Report, Thinks, run


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The prompts of a metadata file that are asked for, and those that a judge cannot see; `whole` counts all."""

    path: Path
    items: tuple[Item, ...]
    left_out: tuple[Item, ...] = ()
    whole: int

    @classmethod
    def read(cls, path: Path, *, names: frozenset[str] | None = None, limit: int | None = None) -> "Benchmark":
        """Read a metadata file of GenEval.

        Args:
            names: of the things that can be seen; prompts about any other are left out. None: all can.
                Plain prompts, without metadata, can be thought about and not be judged: nothing says what is right.
            limit: keeps the first so many prompts of each task.

        Raises:
            ConfigError: the limit is below one.
            PromptError: the file cannot be read, a line is not GenEval's, or nothing in it can be seen.
        """
        if limit is not None and limit < 1:
            raise ConfigError(f"limit must be 1 or more, got {limit}")
        items = _plain(path) or read_items(path)
        seen = [item for item in items if names is None or item.names <= names]
        if not seen:
            raise PromptError(f"{path}: the judge knows the things in none of its {len(items)} prompts")
        left_out = tuple(item for item in items if item not in seen)
        return cls(path=path, items=tuple(_first(seen, limit)), left_out=left_out, whole=len(items))

    @property
    def plain(self) -> bool:
        """Whether these are prompts alone."""
        return any(not item.include for item in self.items)

    def plan(self, **settings: Any) -> RunPlan:
        """The run that thinks about every prompt; `settings` are those of `RunPlan`."""
        return RunPlan(prompts=tuple(map(prompt_line, self.items)), **settings)


def _plain(path: Path) -> list[Item]:
    """The prompts of a file whose lines say no more than a prompt; empty where the first is one of GenEval's.

    Raises:
        PromptError: the file cannot be read, or a line of it cannot be used.
    """
    lines = read_prompts(path)
    for line in lines:
        if isinstance(line, BadLine):
            raise PromptError(f"{line.where}: {line.problem}")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    if "include" in records[0]:
        return []
    for line in lines:
        if isinstance(line, PromptLine) and (line.images or line.mode or line.seed is not None):
            raise PromptError(f"{line.where}: a line with images, mode or seed is for twgi think --prompts")
    return [item_of(record, index) for index, record in enumerate(records)]


def _first(items: Sequence[Item], limit: int | None) -> list[Item]:
    taken: Counter[str] = Counter()
    kept = []
    for item in items:
        taken[item.tag] += 1
        if limit is None or taken[item.tag] <= limit:
            kept.append(item)
    return kept


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation came to: the run, and `scores` as `scores.json` has them (None: nothing was judged)."""

    outcome: Outcome
    scores: Mapping[str, Any] | None = None


def evaluate(
    thinker: Thinks,
    benchmark: Benchmark,
    plan: RunPlan,
    out: Path,
    *,
    report: Report,
    eyes: Eyes | None,
    which: str = "each",
    batch: int = 8,
    resume: bool = False,
) -> Evaluation:
    """Think about all that is not in the folder `out` yet, lay it out in GenEval's shape, and judge it.

    Without `eyes`, for a shard, and for plain prompts nothing is judged: that is for `twgi score`.

    Raises:
        CheckpointError: the eyes fail their self-test; nothing was drawn.
        TwgiError: as `run` does.
    """
    if eyes is not None:
        self_test(eyes)
    told = about(benchmark.items, whole=benchmark.whole, left_out=benchmark.left_out)
    outcome = run(thinker, plan, out, report=report, batch=batch, resume=resume, about=told)
    if not outcome.traces:
        return Evaluation(outcome=outcome)
    collection = read_run(out)
    export(collection)
    if eyes is None or benchmark.plain or plan.shard != (1, 1):
        return Evaluation(outcome=outcome)
    return Evaluation(outcome=outcome, scores=write_scores(score(collection, eyes, which=which), out))
