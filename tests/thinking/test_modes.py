"""What each mode says to the model, and what it takes its pictures for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from twgi.decoding.guidance import PRESETS
from twgi.errors import ConfigError
from twgi.thinking.modes import KINDS, MODES, images_allowed, mode_named, roles, subgoal_kind

Find = Callable[[str], Path]


@pytest.mark.parametrize(("mode", "number"), [("critique", 0), ("subgoal", 1)])
def test_the_prompts_are_those_of_the_published_rows(mode: str, number: int, shared: Find) -> None:
    lines = shared("seed_data/training/dataset_example.jsonl").read_text().splitlines()
    template = json.loads(lines[number])["prompt"]
    said = template.split("The prompt is: ")[1]
    assert MODES[mode].prompt_text(said) == template


def test_a_prompt_may_hold_anything() -> None:
    for mode in MODES.values():
        assert mode.prompt_text("a {prompt} of {0} {x}").endswith("a {prompt} of {0} {x}")


def test_every_kind_of_picture_has_its_guidance() -> None:
    kinds = {kind for mode in MODES.values() for kind in mode.kinds}
    assert kinds == set(PRESETS["paper"].scales) == set(KINDS)


@pytest.mark.parametrize(
    ("k", "text", "kind"),
    [
        (0, "I will draw the couch first.", "part"),
        (0, "The final image needs both. First the couch:", "part"),
        (0, "There is one object. Now the whole picture:", "whole"),
        (1, "Next, the horse.", "part"),
        (2, "Now the whole picture: a red couch left of a blue horse.", "whole"),
        (2, "Now, the final image should combine both.\n\nGenerating Image 3: the two of them.", "whole"),
        (5, "And the COMPLETE\nimage.", "whole"),
        (1, "Both are wholesome pictures.", "part"),
    ],
)
def test_the_whole_is_what_the_words_announce(k: int, text: str, kind: str) -> None:
    assert subgoal_kind(k, text) == kind


def test_the_last_picture_is_the_final_one() -> None:
    assert roles(["part", "part", "whole"]) == ["subgoal", "subgoal", "final"]
    assert roles(["draft", "redraw"]) == ["draft", "final"]
    assert roles(["direct"]) == ["final"]
    assert roles([]) == []


def test_rounds_belong_to_critique() -> None:
    assert images_allowed(MODES["critique"], 3) == 4
    assert images_allowed(MODES["direct"], 1) == 1
    with pytest.raises(ConfigError, match="'direct' has no rounds"):
        images_allowed(MODES["direct"], 2)
    with pytest.raises(ConfigError, match="rounds must be 1 or more, got 0"):
        images_allowed(MODES["critique"], 0)


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(ConfigError, match="unknown mode 'dream'; known are direct, subgoal, critique, general"):
        mode_named("dream")
