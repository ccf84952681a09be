"""How much of a picture survives the image tokenizer: icon scenes, encoded and decoded, judged by GenEval's rules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from twgi.errors import ConfigError
from twgi.evaluation.detectors.icons import IconDetector
from twgi.evaluation.geneval.rules import GenEvalItem, judge
from twgi.icons.tasks import GENEVAL_TASKS, TASKS, SceneRequest, make_scene
from twgi.icons.world import Scene, render
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
    """Encode and decode this many random scenes over GenEval's six tasks, in equal parts.

    Raises:
        ConfigError: fewer scenes than tasks.
    """
    each = -(-scenes // len(GENEVAL_TASKS))
    if scenes < len(GENEVAL_TASKS):
        raise ConfigError(f"scenes must be {len(GENEVAL_TASKS)} or more, got {scenes}")
    return [_judge_task(images, task, each, seed) for task in GENEVAL_TASKS]


def _judge_task(images: ImageTokenizer, task: str, scenes: int, seed: int) -> ReconstructionScore:
    made = [_make(task, number, seed) for number in range(scenes)]
    before = [render(scene) for _, scene in made]
    after = _there_and_back(images, before)
    detector = IconDetector()
    found, original = detector.detect(after), detector.detect(before)
    right = [
        judge(GenEvalItem.from_json(request.metadata(), 0), picture, seen, detector).correct
        for (request, _), picture, seen in zip(made, after, found, strict=True)
    ]
    exact = [set(seen) == set(truth) for seen, truth in zip(found, original, strict=True)]
    return ReconstructionScore(task=task, scenes=scenes, right=sum(right) / scenes, exact=sum(exact) / scenes)


def _make(task: str, number: int, seed: int) -> tuple[SceneRequest, Scene]:
    rng = np.random.default_rng([seed, GENEVAL_TASKS.index(task), number])
    request = TASKS[task](rng)
    return request, make_scene(request, rng)


def _there_and_back(images: ImageTokenizer, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    parts = [list(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
    return [picture for part in parts for picture in images.decode(images.encode(part))]


def table(results: Sequence[ReconstructionScore]) -> str:
    """The shares as lines for people."""
    lines = [f"{'task':15} {'right':>7} {'exact':>7}"]
    lines += [f"{result.task:15} {result.right:7.3f} {result.exact:7.3f}" for result in results]
    return "\n".join([*lines, f"{sum(result.scenes for result in results)} scenes"])
