"""Chains to be made, and how: by teachers, in the order of the paper's steps, or by the icon world."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np

from twgi.data.factory import words
from twgi.data.factory.recipe import BEST, BuildRecipe
from twgi.data.factory.teachers import NotMade, PictureStore, Teachers
from twgi.data.records import Part
from twgi.files import Object
from twgi.icons.chains import Drawn
from twgi.icons.sample import chain_of, is_read_right
from twgi.icons.tasks import TASKS, make_scene
from twgi.icons.world import render
from twgi.thinking.modes import MODES

Jobs = Mapping[str, Callable[[], Object]]
"""Name of a chain -> what has it made and gives the line of `items.jsonl` that says what became of it."""


@dataclass(frozen=True, kw_only=True)
class MadeChain:
    """A chain that came to its end, and the judge's score of its last picture, with the reason."""

    prompt: str  # without the mode's template; `<image>` is the place of an input picture
    response: tuple[Part, ...]
    judged: tuple[float, str]
    input_images: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)  # what else is worth keeping beside it


def endpoint_jobs(recipe: BuildRecipe, teachers: Teachers, prompts: Sequence[str]) -> Jobs:
    """A chain of each mode about each prompt."""
    named = {sha256(prompt.encode()).hexdigest()[:16]: prompt for prompt in prompts}
    return _jobs(recipe, named, lambda mode, prompt: _MAKERS[mode](teachers, prompt, recipe))


def icon_jobs(recipe: BuildRecipe, pictures: PictureStore) -> Jobs:
    """A chain of each mode about each of random scenes; true by construction, and the checker is the judge."""
    named = {f"{number:06d}": number for number in range(recipe.count)}
    return _jobs(recipe, named, lambda mode, number: _icon_chain(recipe, pictures, mode, number))


def _jobs(recipe: BuildRecipe, named: Mapping[str, Any], make: Callable[[str, Any], MadeChain]) -> Jobs:
    def item(mode: str, name: str) -> Object:
        line: Object = {"id": f"{mode}-{name}", "mode": mode, "about": named[name]}
        try:
            chain = make(mode, named[name])
        except NotMade as error:
            return {**line, "status": error.status, "step": error.step, "reason": str(error)}
        given = {"input_images": list(chain.input_images)} if chain.input_images else {}
        prompt, segments = MODES[mode].prompt_text(chain.prompt), [part.to_json() for part in chain.response]
        score, reason = chain.judged
        line["status"] = "kept" if score >= recipe.keep_from else "dropped"
        line |= {"step": "judge", "reason": reason, "score": score}
        line["record"] = {"id": line["id"], "prompt": prompt, **given, "segments": segments}
        return {**line, "notes": chain.notes} if chain.notes else line

    return {f"{mode}-{name}": partial(item, mode, name) for name in named for mode in recipe.modes}


def subgoal(teachers: Teachers, prompt: str, recipe: BuildRecipe) -> MadeChain:
    """Part after part, then the whole from all parts; the words are written by who sees all the pictures.

    Raises `NotMade`: the prompt has fewer than two parts, or somebody did not do their part.
    """
    read = words.read_list("parts", least=1, most=recipe.max_parts)
    parts = teachers.ask("decomposer", "parts", read, prompt=prompt, most=recipe.max_parts)
    if (count := len(parts)) < 2:
        raise NotMade("dropped", "decomposer", "fewer than two parts")
    first = teachers.paint("painter", "first part", part=parts[0])
    others = [teachers.paint("editor", "next part", [first], part=part) for part in parts[1:]]
    whole = teachers.paint("editor", "whole", [first, *others], prompt=prompt)
    pictures = [first, *others, whole]
    about = {"listed": "; ".join(f"{number}. {part}" for number, part in enumerate(parts, 1)), "prompt": prompt}
    steps = teachers.ask("writer", "steps", words.read_steps(count), pictures, count=count + 1, parts=count, **about)
    pairs = zip(steps, pictures, strict=True)
    response = tuple(part for step, path in pairs for part in (Part("text", step), Part("image", path)))
    return MadeChain(prompt=prompt, response=response, judged=_judged(teachers, prompt, whole), notes={"parts": parts})


def critique(teachers: Teachers, prompt: str, recipe: BuildRecipe) -> MadeChain:
    """A draft, what is to be said about it, and, unless all fits, the picture drawn again.

    Raises `NotMade`: somebody did not do their part.
    """
    last = draft = teachers.paint("drafter", "draft", prompt=prompt)
    matches, said = teachers.ask("critic", "critique", words.read_critique, [draft], prompt=prompt)
    response = [Part("image", draft, matches or recipe.learn_draft), Part("text", said)]
    if not matches:
        last = teachers.paint("editor", "redrawn", [draft], prompt=prompt, said=said)
        response.append(Part("image", last))
    judged, notes = _judged(teachers, prompt, last), {"redrawn": not matches}
    return MadeChain(prompt=prompt, response=tuple(response), judged=judged, notes=notes)


_MAKERS = {"subgoal": subgoal, "critique": critique}


def _judged(teachers: Teachers, prompt: str, picture: str) -> tuple[float, str]:
    return teachers.ask("judge", "judgement", words.read_judgement, [picture], prompt=prompt, best=BEST)


def _icon_chain(recipe: BuildRecipe, pictures: PictureStore, mode: str, number: int) -> MadeChain:
    """A function of seed, number and mode. Its notes are what the last picture must show, as GenEval's metadata, where
    the chain is about that."""
    icons = recipe.icons
    rng = np.random.default_rng([icons.seed, number, list(MODES).index(mode)])
    request = TASKS[icons.tasks[number % len(icons.tasks)]](rng)
    chain = chain_of(mode, request, make_scene(request, rng), rng)

    def part(said: str | Drawn) -> Part:
        if isinstance(said, str):
            return Part("text", said)
        return Part("image", pictures.add(render(said.scene)), said.learn)

    scenes = [*chain.pictures, *(said.scene for said in chain.response if isinstance(said, Drawn))]
    wrong = sum(not is_read_right(scene) for scene in scenes)
    told = f"misreads {wrong} of {len(scenes)}" if wrong else f"reads all of {len(scenes)}"
    return MadeChain(
        prompt=chain.prompt,
        input_images=tuple(pictures.add(render(scene)) for scene in chain.pictures),
        response=tuple(part(said) for said in chain.response),
        judged=(0 if wrong else BEST, f"the checker {told} pictures"),
        notes={"request": request.metadata()} if chain.prompt == request.prompt else {},
    )
