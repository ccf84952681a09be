"""Dense prompts are true by construction: their questions hold of their pictures, and fail where a picture is wrong."""

from pathlib import Path

import numpy as np
import pytest

from twgi.cli import execute
from twgi.errors import ConfigError
from twgi.evaluation.dpg.questions import read_questions
from twgi.evaluation.icons import IconJudge
from twgi.evaluation.judges.answer import Picture, Query
from twgi.icons.chains import flaw
from twgi.icons.dense import Claim, DensePrompt, dense_prompts, write_dense
from twgi.icons.tasks import PAIRS, make_scene
from twgi.icons.world import Scene, render

PROMPTS = dense_prompts(300, seed=7)


def questions(prompt: DensePrompt) -> list[str]:
    return [row["question_natural_language"] for row in prompt.rows()]


def answers(prompt: DensePrompt, scene: Scene) -> list[str]:
    picture = Picture(image=render(scene))
    asked = [Query(picture=picture, question=question) for question in questions(prompt)]
    return [answer.parsed for _, answer in IconJudge().answer(asked)]


def true_of(claim: Claim, scene: Scene) -> bool:
    """What a scene says of a claim, from its objects alone."""
    things = [thing for thing in scene.objects if thing.name == claim.name]
    if claim.count is not None:
        return len(things) == claim.count
    if claim.color is not None:
        return bool(things) and {thing.color for thing in things} == {claim.color}
    if claim.relation is not None:
        others = [thing for thing in scene.objects if thing.name == claim.other]
        places = [(thing.quadrant, other.quadrant) for thing in things for other in others]
        return bool(places) and all(place in PAIRS[claim.relation] for place in places)
    return bool(things)


def test_the_oracle_says_yes_to_everything_about_a_picture_of_the_prompt() -> None:
    for number, prompt in enumerate(PROMPTS):
        assert set(answers(prompt, make_scene(prompt.request, np.random.default_rng(number)))) == {"yes"}, prompt


def test_the_oracle_is_exact_on_pictures_with_a_flaw() -> None:
    for number, prompt in enumerate(PROMPTS):
        rng = np.random.default_rng(number)
        scene, _ = flaw(prompt.request, make_scene(prompt.request, rng), rng)
        expected = ["yes" if true_of(claim, scene) else "no" for claim, _ in prompt.claims]
        assert answers(prompt, scene) == expected, prompt
        assert "no" in expected, "every flaw must be seen by some question"


def test_a_question_is_read_back_as_the_claim_it_was_made_from() -> None:
    for prompt in PROMPTS:
        assert [Claim.read(question) for question in questions(prompt)] == [claim for claim, _ in prompt.claims]


def test_the_oracle_does_not_guess() -> None:
    picture = Picture(image=render(Scene(())))
    ((_, answer),) = IconJudge().answer([Query(picture=picture, question="Is the mood melancholic?")])
    assert (answer.parsed, answer.p_yes) == ("invalid", None)


def test_prompts_hold_two_to_four_things_and_every_kind_of_question() -> None:
    assert {sum(clause.count for clause in prompt.request.include) for prompt in PROMPTS} == {2, 3, 4}
    kinds = {claim.tuple.split(" (")[0] for prompt in PROMPTS for claim, _ in prompt.claims}
    assert kinds == {"entity - whole", "other - count", "attribute - color", "relation - spatial"}
    assert any(len(parents) == 2 for prompt in PROMPTS for _, parents in prompt.claims)


def test_the_same_seed_gives_the_same_prompts_and_another_one_others() -> None:
    assert dense_prompts(5, seed=7) == PROMPTS[:5]
    assert dense_prompts(5, seed=8) != dense_prompts(5, seed=7)
    with pytest.raises(ConfigError, match="count must be 1 or more, got 0"):
        dense_prompts(0)


@pytest.mark.parametrize("name", ["dense.csv", "dense.jsonl"])
def test_the_command_writes_what_the_loader_reads(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["icons", "dense", "--count", "20", "--seed", "3", "--out", f"{tmp_path}/{name}"]) == 0
    assert "20 prompts" in capsys.readouterr().out
    read = read_questions(tmp_path / name)
    assert read.notes == ()
    for prompt in dense_prompts(20, seed=3):
        assert read.items[prompt.id].prompt == prompt.request.prompt
        found = {q.id: q.parents for q in read.items[prompt.id].questions}
        assert found == {number: parents for number, (_, parents) in enumerate(prompt.claims, start=1)}
    assert (tmp_path / name).read_text() == write_dense(dense_prompts(20, seed=3), lines=name.endswith("l"))


def test_the_command_refuses_another_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["icons", "dense", "--out", f"{tmp_path}/dense.xlsx"]) == 2
    assert ".csv or .jsonl" in capsys.readouterr().err
