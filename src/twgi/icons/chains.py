"""Thoughts about icon scenes that are true by construction: what training data is made of, and what tests know.

A chain is what a mode's response looks like: words and scenes in order. A scene marked `learn=False` is read but not
imitated (a flawed first picture). No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from twgi.icons import tasks
from twgi.icons.tasks import COLOR_NAMES, COUNTS, PLACES, SceneRequest, listed, plural, with_article
from twgi.icons.world import NAMES, Placed, Scene

WHOLE = "Now the whole picture."
FITS = "This matches the prompt."


@dataclass(frozen=True)
class Drawn:
    """A picture in a chain; without `learn` it is context only."""

    scene: Scene
    learn: bool = True


Part = str | Drawn


@dataclass(frozen=True)
class Chain:
    """One row of data: mode, prompt (of a general chain with `<image>` marks for its pictures), and the response."""

    mode: str
    prompt: str
    response: tuple[Part, ...]
    pictures: tuple[Scene, ...] = ()


def reading_order(things: Sequence[Placed]) -> list[Placed]:
    return sorted(things, key=lambda thing: thing.quadrant)


def named(thing: Placed) -> str:
    """ "a red couch at the upper left" """
    return f"{with_article(f'{thing.color} {thing.name}')} {PLACES[thing.quadrant]}"


def describe(scene: Scene) -> str:
    """Everything in the scene in reading order, as one sentence."""
    words = [named(thing) for thing in reading_order(scene.objects)]
    return f"There is {listed(words) if words else 'nothing'}."


def direct(request: SceneRequest, scene: Scene) -> Chain:
    return Chain("direct", request.prompt, (Drawn(scene),))


def subgoal(request: SceneRequest, scene: Scene) -> Chain:
    """Each thing alone where it will stand, then the whole."""
    response: list[Part] = []
    for i, thing in enumerate(scene.objects):
        response += [f"{'Then' if i else 'First'}, {named(thing)}.", Drawn(Scene((thing,)))]
    return Chain("subgoal", request.prompt, (*response, WHOLE, Drawn(scene)))


def _one(rng: np.random.Generator, scene: Scene) -> tuple[int, Placed]:
    i = int(rng.integers(len(scene.objects)))
    return i, scene.objects[i]


def _with(scene: Scene, i: int, *instead: Placed) -> Scene:
    """The scene with another thing, or none, in place of thing `i`."""
    return Scene((*scene.objects[:i], *instead, *scene.objects[i + 1 :]))


def _free(things: Sequence[Placed]) -> list[int]:
    """The quadrants without a thing."""
    return [q for q in range(4) if q not in {thing.quadrant for thing in things}]


def _other(rng: np.random.Generator, all_of: Sequence[str], avoid: set[str]) -> str:
    kept = [value for value in all_of if value not in avoid]
    return kept[rng.integers(len(kept))]


def _absent(rng: np.random.Generator, scene: Scene) -> str:
    return _other(rng, NAMES, {thing.name for thing in scene.objects})


def wrong_color(request: SceneRequest, scene: Scene, rng: np.random.Generator) -> tuple[Scene, str] | None:
    i, thing = _one(rng, scene)
    if not any(clause.color for clause in request.include if clause.name == thing.name):
        return None
    flawed = replace(thing, color=_other(rng, COLOR_NAMES, {thing.color}))
    return _with(scene, i, flawed), f"The {thing.name} should be {thing.color}."


def missing(request: SceneRequest, scene: Scene, rng: np.random.Generator) -> tuple[Scene, str] | None:
    if len(scene.objects) < 2 or _counted(request):
        return None
    i, thing = _one(rng, scene)
    return _with(scene, i), f"{with_article(thing.name).capitalize()} is missing."


def wrong_thing(request: SceneRequest, scene: Scene, rng: np.random.Generator) -> tuple[Scene, str] | None:
    """Another thing in its place."""
    i, thing = _one(rng, scene)
    flawed = replace(thing, name=_absent(rng, scene))
    return _with(scene, i, flawed), f"The {flawed.name} should be {with_article(thing.name)}."


def wrong_count(request: SceneRequest, scene: Scene, rng: np.random.Generator) -> tuple[Scene, str] | None:
    if not _counted(request):
        return None
    want, first = len(scene.objects), scene.objects[0]
    have = int(rng.choice([n for n in (1, 2, 3, 4) if n != want and abs(n - want) < 3]))
    more = [tasks.place(first.name, first.color, q, rng) for q in _free(scene.objects)[: max(have - want, 0)]]
    remark = f"There should be {COUNTS[want]} {plural(first.name)}, not {COUNTS[have]}."
    return Scene((*scene.objects[:have], *more)), remark


def wrong_side(request: SceneRequest, scene: Scene, rng: np.random.Generator) -> tuple[Scene, str] | None:
    """The two things of a relation in each other's place."""
    placed = next((c for c in request.include if c.position), None)
    if placed is None or placed.position is None:
        return None
    b, a, *rest = scene.objects
    flawed = Scene((replace(b, col=a.col, row=a.row), replace(a, col=b.col, row=b.row), *rest))
    return flawed, f"The {a.name} should be {placed.position[0]} the {b.name}."


def _counted(request: SceneRequest) -> bool:
    return any(clause.count > 1 for clause in request.include)


# (request, scene, rng) -> (flawed scene, what to say about it), or None where the flaw does not apply
FLAWS = (wrong_color, missing, wrong_thing, wrong_count, wrong_side)


def flaw(request: SceneRequest, scene: Scene, rng: np.random.Generator) -> tuple[Scene, str]:
    """A random flaw that applies; `wrong_thing` always does."""
    for i in rng.permutation(len(FLAWS)):
        made = FLAWS[i](request, scene, rng)
        if made is not None:
            return made
    raise AssertionError("no flaw applies")


def critique(request: SceneRequest, scene: Scene, rng: np.random.Generator, flawed_share: float = 0.7) -> Chain:
    """Draft, verdict, and (after a flaw) the redrawn picture with its verdict; sometimes it takes a second round."""
    response: list[Part] = []
    while rng.random() < flawed_share:
        wrong, remark = flaw(request, scene, rng)
        response += [Drawn(wrong, learn=False), f"{describe(wrong)} {remark}"]
        flawed_share *= 0.2
    response += [Drawn(scene), f"{describe(scene)} {FITS}"]
    return Chain("critique", request.prompt, tuple(response))


def caption(scene: Scene, rng: np.random.Generator) -> Chain:
    question = ("What is in this picture?", "Describe this picture.", "Tell me about this picture.")[rng.integers(3)]
    return _about(question, scene, describe(scene))


def _about(question: str, scene: Scene, *response: Part) -> Chain:
    return Chain("general", f"{question}<image>", tuple(response), (scene,))


def question(scene: Scene, rng: np.random.Generator) -> Chain:
    """A question about a picture, and its answer."""
    _, thing = _one(rng, scene)
    alike = sum(other.name == thing.name for other in scene.objects)
    match int(rng.integers(4)):
        case 0 if alike == 1:
            return _about(f"Where is the {thing.name}?", scene, f"{PLACES[thing.quadrant].capitalize()}.")
        case 1:
            return _about(f"How many {plural(thing.name)} are there?", scene, f"{COUNTS[alike].capitalize()}.")
        case 2:
            name, answer = ((thing.name, "Yes."), (_absent(rng, scene), "No."))[rng.integers(2)]
            return _about(f"Is there {with_article(name)}?", scene, answer)
    return _about(f"What color is the {thing.name}?", scene, f"{thing.color.capitalize()}.")


def edit(scene: Scene, rng: np.random.Generator) -> Chain:
    """An instruction to change a picture, and the changed picture.

    Of things with one name only the first in reading order is kept, so that the instruction says which is meant.
    """
    first = {thing.name: thing for thing in reversed(reading_order(scene.objects))}
    scene = Scene(tuple(first.values()))
    i, thing = _one(rng, scene)
    free = _free(scene.objects)
    match int(rng.integers(4)):
        case 0 if len(scene.objects) > 1:
            return _about(f"Remove the {thing.name}.", scene, Drawn(_with(scene, i)))
        case 1 if free:
            look = _look(rng, {other.name for other in scene.objects})
            new = tasks.place(*look, free[rng.integers(len(free))], rng)
            return _about(f"Add {named(new)}.", scene, Drawn(Scene((*scene.objects, new))))
        case 2:
            new = replace(thing, name=_absent(rng, scene))
            wish = f"Replace the {thing.name} with {with_article(new.name)}."
            return _about(wish, scene, Drawn(_with(scene, i, new)))
    color = _other(rng, COLOR_NAMES, {thing.color})
    return _about(f"Make the {thing.name} {color}.", scene, Drawn(_with(scene, i, replace(thing, color=color))))


def steps(rng: np.random.Generator) -> Chain:
    """Words and pictures in turn: a thing appears, then changes colour or gets company."""
    first = tasks.place(*_look(rng, set()), int(rng.integers(4)), rng)
    if rng.random() < 0.5:
        color = _other(rng, COLOR_NAMES, {first.color})
        wish, second = f"make it {color}", Scene((replace(first, color=color),))
    else:
        new = tasks.place(*_look(rng, {first.name}), _free([first])[rng.integers(3)], rng)
        wish, second = f"add {with_article(f'{new.color} {new.name}')}", Scene((first, new))
    look, start = with_article(f"{first.color} {first.name}"), Scene((first,))
    response = (describe(start), Drawn(start), describe(second), Drawn(second))
    return Chain("general", f"Show {look}, then {wish}.", response)


def _look(rng: np.random.Generator, avoid: set[str]) -> tuple[str, str]:
    return _other(rng, NAMES, avoid), COLOR_NAMES[rng.integers(len(COLOR_NAMES))]


def general(scene: Scene, rng: np.random.Generator) -> Chain:
    """An edit (hardest, so twice as often), a caption, a question, or words and pictures in turn."""
    kinds = (caption, question, lambda _, rng: steps(rng), edit, edit)
    return kinds[rng.integers(len(kinds))](scene, rng)
