"""A critique's remark is true of the picture it was made for, and false where its flaw is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twgi.evaluation.audit.remarks import read_remark
from twgi.evaluation.geneval.rules import GenEvalItem, judge
from twgi.evaluation.icons import icon_suite
from twgi.icons import chains
from twgi.icons.tasks import GENEVAL_TASKS, TASKS, make_scene
from twgi.icons.world import Placed, Scene, render

EYES = icon_suite()


def remark(text: str, item: GenEvalItem, scene: Scene) -> tuple[str, bool]:
    picture = render(scene)
    seen = EYES.detector.detect([picture])[0]
    found = read_remark(text, item, seen, correct=judge(item, picture, seen, EYES.colors).correct)
    return found.says, found.true


@given(st.sampled_from(GENEVAL_TASKS), st.integers(0, 2**32 - 1))
def test_what_chains_say_is_so(task: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    request = TASKS[task](rng)
    scene, item = make_scene(request, rng), GenEvalItem.from_json(request.metadata(), 0)
    flawed, flaw = chains.flaw(request, scene, rng)
    assert remark(f"{chains.describe(flawed)} {flaw}", item, flawed) == ("flaw", True)
    assert remark(f"{chains.describe(scene)} {flaw}", item, scene) == ("flaw", False)
    assert remark(f"{chains.describe(scene)} {chains.FITS}", item, scene) == ("fits", True)
    assert remark(f"{chains.describe(flawed)} {chains.FITS}", item, flawed) == ("fits", False)


RED_CAT = GenEvalItem.from_json(
    {"tag": "colors", "prompt": "a red cat", "include": [{"class": "cat", "count": 1, "color": "red"}]}, 0
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat should be red.", ("flaw", True)),
        ("The cat should be green.", ("flaw", False)),  # nobody asked for it
        ("The dog should be red.", ("flaw", False)),
        ("A cat is missing.", ("flaw", False)),
        ("A dog is missing.", ("flaw", False)),
        ("Hm.", ("unclear", False)),
        ("", ("unclear", False)),
    ],
)
def test_a_flaw_that_is_not_there_is_not_true(text: str, expected: tuple[str, bool]) -> None:
    blue = Scene((Placed("cat", "blue", 1, 1),))
    assert remark(text, RED_CAT, blue) == expected
