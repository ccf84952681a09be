"""GenEval from prompts to scores: think about every prompt the icon world can draw, and judge what comes of it.

The output is a run folder, so a killed evaluation goes on where it stopped; beside the run lie

    results.jsonl  a row for each thought: right or wrong, why, each picture before the last
    scores.json    each task's score, and what it was measured on and with
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twgi.errors import ConfigError, PromptError
from twgi.evaluation.geneval import IconDetector, Item, read_items
from twgi.evaluation.score import Scores, score
from twgi.icons import world
from twgi.thinking.plan import RunPlan
from twgi.thinking.prompts import PromptLine
from twgi.thinking.run import Outcome, Report, run
from twgi.thinking.thinker import Thinker
from twgi.trace import RUN, Trace, write_file

SCORES, RESULTS = "scores.json", "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The prompts of a metadata file that the icon world can draw, and those that it cannot."""

    path: Path
    items: tuple[Item, ...]
    left_out: tuple[Item, ...] = ()

    @classmethod
    def read(cls, path: Path, *, limit: int | None = None) -> "Benchmark":
        """Read a metadata file of GenEval; `limit` keeps the first so many prompts of each task.

        Raises:
            ConfigError: the limit is below one.
            PromptError: the file cannot be read, a line is not GenEval's, or nothing in it can be drawn.
        """
        if limit is not None and limit < 1:
            raise ConfigError(f"limit must be 1 or more, got {limit}")
        items = read_items(path)
        drawable = [item for item in items if item.names <= set(world.NAMES)]
        if not drawable:
            raise PromptError(f"{path}: the icon world can draw none of its {len(items)} prompts")
        left_out = tuple(item for item in items if item not in drawable)
        return cls(path=path, items=tuple(_first(drawable, limit)), left_out=left_out)

    def plan(self, **settings: Any) -> RunPlan:
        """The run that thinks about every prompt; `settings` are those of `RunPlan`."""
        lines = (PromptLine(where=f"{self.path}, prompt {item.index}", prompt=item.prompt) for item in self.items)
        return RunPlan(prompts=tuple(lines), **settings)


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
    """What an evaluation came to: the run, and `scores` as `scores.json` has them (None: there is nothing to score)."""

    outcome: Outcome
    scores: Mapping[str, Any] | None = field(default=None)


def evaluate(
    thinker: Thinker,
    benchmark: Benchmark,
    plan: RunPlan,
    out: Path,
    *,
    report: Report,
    batch: int = 8,
    resume: bool = False,
) -> Evaluation:
    """Think about all that is not in the folder `out` yet, then judge all that is in it.

    Raises:
        TwgiError: as `run` does.
    """
    outcome = run(thinker, plan, out, report=report, batch=batch, resume=resume)
    if not outcome.traces:
        return Evaluation(outcome=outcome)
    scores = score(benchmark.items, plan.samples, _thoughts(outcome), IconDetector())
    return Evaluation(outcome=outcome, scores=write_scores(scores, benchmark, out))


def _thoughts(outcome: Outcome) -> dict[tuple[int, int], Trace | None]:
    """Every thought of the run with its pictures; None where it failed."""
    failed: dict[tuple[int, int], Trace | None] = dict.fromkeys(outcome.failures)
    traces = {(job.number, job.sample): trace for job, trace in outcome.traces.items()}
    return failed | {key: trace.with_pictures(outcome.folder) for key, trace in traces.items()}


def write_scores(scores: Scores, benchmark: Benchmark, out: Path) -> dict[str, Any]:
    """Write `results.jsonl` and `scores.json` into a run folder; returns what `scores.json` holds."""
    described = json.loads((out / RUN).read_text(encoding="utf-8"))
    content = {
        **scores.to_json(),
        "benchmark": "geneval",
        "left_out": [item.prompt for item in benchmark.left_out],
        "detector": {"name": IconDetector.name, "version": IconDetector.version},
        **{key: described[key] for key in ("model", "settings", "versions")},
    }
    rows = "".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in scores.rows)
    write_file(out / RESULTS, rows.encode())
    write_file(out / SCORES, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
    return content
