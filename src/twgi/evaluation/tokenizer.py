"""How much of a picture survives the image tokenizer: icon scenes, encoded and decoded, judged by GenEval's rules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twgi.errors import ConfigError
from twgi.evaluation.geneval.rules import GenEvalItem, judge
from twgi.evaluation.icons import IconDetector
from twgi.icons.tasks import GENEVAL_TASKS, TASKS, make_scene
from twgi.icons.world import render
from twgi.tokenizer.image import ImageTokenizer

BATCH = 16


@dataclass(frozen=True, kw_only=True)
class ReconstructionScore:
    """Of one task's scenes: the share right by GenEval's rules, and the share in which everything is as it was."""

    task: str
    scenes: int
    right: float
    exact: float


def judge_tokenizer(images: ImageTokenizer, *, scenes: int = 1000, seed: int = 0) -> list[ReconstructionScore]:
    """Encode and decode random scenes over GenEval's six tasks, in equal parts. Raises `ConfigError`: too few."""
    each = -(-scenes // len(GENEVAL_TASKS))
    if scenes < len(GENEVAL_TASKS):
        raise ConfigError(f"scenes must be {len(GENEVAL_TASKS)} or more, got {scenes}")
    return [_judge_task(images, task, each, seed) for task in GENEVAL_TASKS]


def _judge_task(images: ImageTokenizer, task: str, scenes: int, seed: int) -> ReconstructionScore:
    items, before, detector = [], [], IconDetector()
    for number in range(scenes):
        rng = np.random.default_rng([seed, GENEVAL_TASKS.index(task), number])
        request = TASKS[task](rng)
        items.append(GenEvalItem.from_json(request.metadata(), 0))
        before.append(render(make_scene(request, rng)))
    parts = [before[start : start + BATCH] for start in range(0, scenes, BATCH)]
    after = [picture for part in parts for picture in images.decode(images.encode(part))]
    found, original = detector.detect(after), detector.detect(before)
    judged = zip(items, after, found, strict=True)
    right = [judge(item, picture, seen, detector).correct for item, picture, seen in judged]
    exact = [set(seen) == set(truth) for seen, truth in zip(found, original, strict=True)]
    return ReconstructionScore(task=task, scenes=scenes, right=sum(right) / scenes, exact=sum(exact) / scenes)


def table(results: Sequence[ReconstructionScore]) -> str:
    lines = [f"{'task':15} {'right':>7} {'exact':>7}"]
    lines += [f"{result.task:15} {result.right:7.3f} {result.exact:7.3f}" for result in results]
    return "\n".join([*lines, f"{sum(result.scenes for result in results)} scenes"])
