"""The icon world keeps its word: what it draws for a request is right by GenEval's rules, and its flaws are wrong."""

from collections.abc import Iterator

import numpy as np
import pytest

from twgi.evaluation.geneval.rules import TASKS as GENEVAL_TASKS
from twgi.evaluation.geneval.rules import GenEvalItem, judge
from twgi.evaluation.icons import IconDetector
from twgi.icons import chains, tasks
from twgi.icons.world import Scene, render

DETECTOR = IconDetector()


def is_right(request: tasks.SceneRequest, scene: Scene) -> bool:
    item = GenEvalItem.from_json(request.metadata(), 0)
    picture = render(scene)
    return judge(item, picture, DETECTOR.detect([picture])[0], DETECTOR).correct


def requests(task: str, count: int) -> Iterator[tuple[tasks.SceneRequest, Scene, np.random.Generator]]:
    for number in range(count):
        rng = np.random.default_rng([number, list(tasks.TASKS).index(task)])
        request = tasks.TASKS[task](rng)
        yield request, tasks.make_scene(request, rng), rng


def pictures(chain: chains.Chain) -> list[Scene]:
    return [part.scene for part in chain.response if isinstance(part, chains.Drawn)]


def test_the_world_has_genevals_six_tasks_in_its_order() -> None:
    assert tasks.GENEVAL_TASKS == GENEVAL_TASKS


@pytest.mark.parametrize("task", tasks.TASKS)
def test_a_scene_made_for_a_request_is_right(task: str) -> None:
    assert [request.prompt for request, scene, _ in requests(task, 30) if not is_right(request, scene)] == []


@pytest.mark.parametrize("task", tasks.TASKS)
def test_a_critique_chain_is_wrong_until_its_last_picture(task: str) -> None:
    for request, scene, rng in requests(task, 20):
        *drafts, last = pictures(chains.critique(request, scene, rng))
        assert is_right(request, last), request.prompt
        assert [draft for draft in drafts if is_right(request, draft)] == [], request.prompt


@pytest.mark.parametrize("task", tasks.TASKS)
def test_a_subgoal_chain_ends_in_a_right_picture_that_holds_its_parts(task: str) -> None:
    for request, scene, _ in requests(task, 10):
        *parts, whole = pictures(chains.subgoal(request, scene))
        assert is_right(request, whole), request.prompt
        assert sorted(part.objects[0] for part in parts) == sorted(whole.objects)
