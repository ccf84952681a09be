"""What `twgi train` draws on the way: the prompts of a recipe's `watch`, judged where the icon world can judge them."""

import json
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np

from twgi.console import complain, counting, reporter
from twgi.errors import TwgiError
from twgi.evaluation.detectors.suite import suite_named
from twgi.evaluation.evaluate import draw, score
from twgi.evaluation.frame import PromptSet
from twgi.evaluation.geneval.benchmark import GenEval
from twgi.evaluation.geneval.rules import GenEvalItem
from twgi.icons import tasks
from twgi.runs.plan import RunPlan
from twgi.thinking.settings import Settings
from twgi.thinking.thinker import Thinker
from twgi.training.recipe import Watching

ICONS, SEED = "icons", 2**32  # a seed that no training row is drawn with


def draw_and_judge(watching: Watching, thinker: Thinker, folder: Path) -> Mapping[str, float]:
    """Think about every prompt into a run folder; scores by task, and `overall`, where they can be judged."""
    benchmark, asked = GenEval(suite_named("icons")), _asked(watching)
    plan = RunPlan(prompts=asked.lines(), settings=Settings(mode=watching.mode), samples=watching.samples)
    with closing(reporter(many=True, json=False)) as report:
        outcome, _ = draw(thinker, benchmark, asked, plan, folder, report=report, batch=watching.batch)
    if outcome.interrupted:
        raise KeyboardInterrupt
    if not outcome.thoughts or any(not item.include for item in asked.items):
        return {}
    try:
        scores = score(benchmark, *benchmark.from_run(folder), folder, which="final", counting=counting)
    except TwgiError as error:  # what it draws need not be pictures of the icon world yet
        complain(str(error))
        return {}
    return {**scores["tasks"], "overall": scores["correct_images"]}


@cache
def _asked(watching: Watching) -> PromptSet:
    """The prompts to draw; those of a file of other prompts than GenEval's are not judged."""
    if watching.prompts == ICONS:
        rng, names = np.random.default_rng(SEED), tasks.GENEVAL_TASKS  # GenEval's six tasks in turn, the same each time
        requests = [tasks.TASKS[names[i % len(names)]](rng).metadata() for i in range(watching.limit)]
        items = tuple(GenEvalItem.from_json(json.loads(json.dumps(said)), i) for i, said in enumerate(requests))
        return PromptSet(items=items, whole=watching.limit)
    asked = GenEval().prompts(Path(watching.prompts))
    return PromptSet(items=asked.items[: watching.limit], whole=min(watching.limit, asked.whole))
