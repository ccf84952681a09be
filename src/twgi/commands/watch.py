"""What `twgi train` draws on the way: the prompts of a recipe's `watch`, judged where the icon world can judge them."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from twgi.console import reporter
from twgi.errors import PromptError
from twgi.evaluation.generate import Benchmark, evaluate
from twgi.evaluation.geneval import Item
from twgi.icons import tasks
from twgi.thinking.plan import RunPlan
from twgi.thinking.prompts import read_prompts
from twgi.thinking.run import run
from twgi.thinking.thinker import Thinker
from twgi.training.recipe import Watching

ICONS, SEED = "icons", 2**32  # a seed that no training row is drawn with


def draw_and_judge(watching: Watching, thinker: Thinker, folder: Path) -> Mapping[str, float]:
    """Think about every prompt into a run folder; scores by task, and `overall`, where they can be judged."""
    benchmark = _benchmark(watching)
    report = reporter(many=True, json=False)
    settings: dict[str, Any] = {"mode": watching.mode, "samples": watching.samples}
    try:
        if benchmark is None:
            lines = tuple(read_prompts(Path(watching.prompts)))[: watching.limit]
            run(thinker, RunPlan(prompts=lines, **settings), folder, report=report, batch=watching.batch)
            return {}
        plan = benchmark.plan(**settings)
        scores = evaluate(thinker, benchmark, plan, folder, report=report, batch=watching.batch).scores
    finally:
        report.close()
    return {} if scores is None else {**scores["tasks"], "overall": scores["correct_images"]}


@cache
def _benchmark(watching: Watching) -> Benchmark | None:
    """The prompts that can be judged; None for a file of other prompts."""
    if watching.prompts == ICONS:
        return Benchmark(path=Path(ICONS), items=icon_items(watching.limit))
    try:
        benchmark = Benchmark.read(Path(watching.prompts))
    except PromptError:
        return None
    return Benchmark(path=benchmark.path, items=benchmark.items[: watching.limit])


def icon_items(count: int) -> tuple[Item, ...]:
    """Requests of GenEval's six tasks in turn, the same each time."""
    rng = np.random.default_rng(SEED)
    names = tasks.GENEVAL_TASKS
    requests = (tasks.TASKS[names[i % len(names)]](rng) for i in range(count))
    return tuple(Item.from_json(json.loads(json.dumps(r.metadata())), i) for i, r in enumerate(requests))
