"""Laws of the icon world: scenes, requests, and chains that are true by construction."""

import json
from pathlib import Path

import numpy as np
import pytest

from twgi.icons import chains, tasks, world
from twgi.icons.chains import Drawn
from twgi.icons.world import Placed, Scene, render

GENEVAL = Path(__file__).parents[3] / "shared" / "geneval"
KINDS = list(tasks.TASKS)


def draws(count: int) -> list[tuple[tasks.SceneRequest, Scene, np.random.Generator]]:
    rng = np.random.default_rng(7)
    made = []
    for i in range(count):
        request = tasks.TASKS[KINDS[i % len(KINDS)]](rng)
        made.append((request, tasks.make_scene(request, rng), rng))
    return made


def test_every_name_has_an_icon_of_its_own() -> None:
    masks = {name: world.icon_mask(name) for name in world.NAMES}
    assert len(masks) == 80
    assert all(mask.shape == (24, 24) and mask.max() > 200 for mask in masks.values())
    assert len({mask.tobytes() for mask in masks.values()}) == 80


def test_an_unknown_name_has_no_icon() -> None:
    with pytest.raises(KeyError):
        world.icon_mask("unicorn")


def test_names_are_those_of_geneval() -> None:
    names = GENEVAL / "object_names.txt"
    if not names.exists():
        pytest.skip("GenEval's list of names is not here")
    assert tuple(names.read_text().split("\n")[:80]) == world.NAMES


def test_every_geneval_prompt_is_worded_as_ours() -> None:
    file = GENEVAL / "evaluation_metadata.jsonl"
    if not file.exists():
        pytest.skip("GenEval's prompts are not here")
    for line in file.read_text().splitlines():
        row = json.loads(line)
        clauses = [
            tasks.SceneClause(name=c["class"], count=c["count"], color=c.get("color"), position=tuple(p) if p else None)
            for c in row["include"]
            for p in [c.get("position")]
        ]
        if row["tag"] == "position":
            words = f"{tasks.phrase(clauses[1])} {row['include'][1]['position'][0]} {tasks.phrase(clauses[0])}"
        else:
            words = " and ".join(tasks.phrase(clause) for clause in clauses)
        assert row["prompt"] == f"a photo of {words}"
        request = tasks.SceneRequest(tag=row["tag"], prompt=row["prompt"], include=tuple(clauses))
        assert request.metadata() == row


def test_a_rendered_picture_differs_from_the_ground_only_where_things_stand() -> None:
    picture = np.asarray(render(Scene((Placed("couch", "red", 4, 1),))))
    assert picture.shape == (64, 64, 3)
    changed = (picture != world.GROUND).any(-1)
    assert changed[8:32, 32:56].any()
    changed[8:32, 32:56] = False
    assert not changed.any()


def test_things_never_share_a_quadrant() -> None:
    for _, scene, _ in draws(400):
        quadrants = [thing.quadrant for thing in scene.objects]
        assert len(set(quadrants)) == len(quadrants)


def test_a_scene_fulfils_its_request() -> None:
    for request, scene, _ in draws(400):
        for clause in request.include:
            alike = [t for t in scene.objects if t.name == clause.name and clause.color in (None, t.color)]
            assert len(alike) == clause.count


def test_relations_hold_under_genevals_rule() -> None:
    for request, scene, _ in draws(800):
        placed = next((c for c in request.include if c.position), None)
        if placed is None or placed.position is None:
            continue
        b, a = scene.objects[:2]
        offset = np.array([a.col - b.col, a.row - b.row], float) * world.CELL_PX
        revised = np.maximum(np.abs(offset) - 0.1 * 2 * world.ICON_PX, 0) * np.sign(offset)
        dx, dy = revised / np.linalg.norm(offset)
        holds = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
        assert holds[placed.position[0]]


def test_the_parts_of_a_subgoal_chain_laid_together_are_the_whole() -> None:
    for request, scene, _ in draws(100):
        pictures = [part.scene for part in chains.subgoal(request, scene).response if isinstance(part, Drawn)]
        *parts, whole = pictures
        assert all(len(part.objects) == 1 for part in parts)
        assert sorted(thing for part in parts for thing in part.objects) == sorted(whole.objects)


def test_a_draft_that_is_flawed_is_not_imitated_and_the_last_picture_is_right() -> None:
    rounds = set()
    for request, scene, rng in draws(400):
        response = chains.critique(request, scene, rng).response
        pictures = [part for part in response if isinstance(part, Drawn)]
        assert [p.learn for p in pictures] == [False] * (len(pictures) - 1) + [True]
        assert all(p.scene.objects != scene.objects for p in pictures[:-1])
        assert pictures[-1].scene == scene
        assert str(response[-1]).endswith(chains.FITS)
        rounds.add(len(pictures))
    assert {1, 2, 3} <= rounds


def test_every_flaw_breaks_the_request_and_names_what_is_wrong() -> None:
    seen = set()
    for request, scene, rng in draws(400):
        for flaw in chains.FLAWS:
            made = flaw(request, scene, rng)
            if made is None:
                continue
            wrong, remark = made
            seen.add(flaw)
            assert wrong.objects != scene.objects
            assert remark.endswith(".")
            assert any(thing.name in remark for thing in scene.objects)
    assert seen == set(chains.FLAWS)


def test_a_description_names_everything() -> None:
    for _, scene, _ in draws(50):
        words = chains.describe(scene)
        assert all(chains.named(thing) in words for thing in scene.objects)


def test_general_chains_ask_about_the_picture_they_carry() -> None:
    for _, scene, rng in draws(200):
        chain = chains.general(scene, rng)
        assert chain.prompt.count("<image>") == len(chain.pictures)
        assert chain.response
