"""What `twgi train` draws on the way: the prompts of a recipe's `watch`, judged where the icon world can judge them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from twgi.console import reporter
from twgi.evaluation.detectors.named import eyes_named
from twgi.evaluation.generate import Benchmark, evaluate
from twgi.evaluation.geneval import Item
from twgi.icons import tasks
from twgi.thinking.thinker import Thinker
from twgi.training.recipe import Watching

ICONS, SEED = "icons", 2**32  # a seed that no training row is drawn with


def draw_and_judge(watching: Watching, thinker: Thinker, folder: Path) -> Mapping[str, float]:
    """Think about every prompt into a run folder; scores by task, and `overall`, where they can be judged."""
    benchmark, report = _benchmark(watching), reporter(many=True, json=False)
    plan = benchmark.plan(mode=watching.mode, samples=watching.samples)
    try:
        scores = evaluate(
            thinker,
            benchmark,
            plan,
            folder,
            report=report,
            eyes=eyes_named("icons"),
            which="final",
            batch=watching.batch,
        ).scores
    finally:
        report.close()
    return {} if scores is None else {**scores["tasks"], "overall": scores["correct_images"]}


@cache
def _benchmark(watching: Watching) -> Benchmark:
    """The prompts to draw; those of a file of other prompts than GenEval's are not judged."""
    if watching.prompts == ICONS:
        return Benchmark(path=Path(ICONS), items=icon_items(watching.limit), whole=watching.limit)
    benchmark = Benchmark.read(Path(watching.prompts))
    return replace(benchmark, items=benchmark.items[: watching.limit], whole=min(watching.limit, benchmark.whole))


def icon_items(count: int) -> tuple[Item, ...]:
    """Requests of GenEval's six tasks in turn, the same each time."""
    rng = np.random.default_rng(SEED)
    names = tasks.GENEVAL_TASKS
    requests = (tasks.TASKS[names[i % len(names)]](rng) for i in range(count))
    return tuple(Item.from_json(json.loads(json.dumps(r.metadata())), i) for i, r in enumerate(requests))
