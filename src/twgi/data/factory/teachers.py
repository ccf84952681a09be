"""Who makes chains. A teacher has a list of things to make, and makes each of them alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

import numpy as np

from twgi.data.factory import chains
from twgi.data.factory.answers import Album
from twgi.data.factory.chains import Made
from twgi.data.factory.crew import Crew
from twgi.data.factory.prompts import Sieve
from twgi.data.factory.recipe import BEST, STEPS, BuildRecipe
from twgi.data.factory.words import Verdict
from twgi.data.records import ImagePart, Part, TextPart
from twgi.icons.chains import Chain, Drawn
from twgi.icons.sample import chain_of, is_read_right
from twgi.icons.tasks import TASKS, Request, make_scene
from twgi.icons.world import Scene, render
from twgi.thinking.modes import MODES


@dataclass(frozen=True, kw_only=True)
class Job:
    """One chain to be made: its name, its mode, and the prompt or the number of the scene it is about."""

    id: str
    mode: str
    about: str | int


class Teacher(Protocol):
    """Makes chains; threads may share it."""

    jobs: Sequence[Job]
    steps: Mapping[str, Sequence[str]]  # mode -> the roles that a chain of it passes, in order

    def make(self, job: Job) -> Made:
        """Raises `Dropped` or `Unanswered` where nothing comes of it."""


class EndpointTeacher:
    """A crew that makes a chain of each mode about each prompt."""

    def __init__(self, recipe: BuildRecipe, crew: Crew, prompts: Sieve) -> None:
        self._recipe, self._crew = recipe, crew
        self.steps: Mapping[str, Sequence[str]] = {mode: STEPS[mode] for mode in recipe.modes}
        self.jobs: Sequence[Job] = [
            Job(id=f"{mode}-{sha256(prompt.encode()).hexdigest()[:16]}", mode=mode, about=prompt)
            for prompt in prompts.kept
            for mode in recipe.modes
        ]

    def make(self, job: Job) -> Made:
        """By the paper's steps."""
        maker = chains.subgoal if job.mode == "subgoal" else chains.critique
        return maker(self._crew, str(job.about), self._recipe)


class IconTeacher:
    """The icon world, whose chains are true by construction. The checker is its judge."""

    def __init__(self, recipe: BuildRecipe, album: Album) -> None:
        self._icons, self._album = recipe.icons, album
        self.steps: Mapping[str, Sequence[str]] = dict.fromkeys(recipe.modes, ("judge",))
        self.jobs: Sequence[Job] = [
            Job(id=f"{mode}-{number:06d}", mode=mode, about=number)
            for number in range(recipe.count)
            for mode in recipe.modes
        ]

    def make(self, job: Job) -> Made:
        """A chain about a random scene: a function of seed, number and mode."""
        number = int(job.about)
        rng = np.random.default_rng([self._icons.seed, number, list(MODES).index(job.mode)])
        request = TASKS[self._icons.tasks[number % len(self._icons.tasks)]](rng)
        chain = chain_of(job.mode, request, make_scene(request, rng), rng)
        return Made(
            prompt=chain.prompt,
            input_images=tuple(self._album.add(render(scene)) for scene in chain.pictures),
            response=tuple(self._part(part) for part in chain.response),
            verdict=_checked(chain),
            notes=_truth(job.mode, request),
        )

    def _part(self, part: str | Drawn) -> Part:
        if isinstance(part, str):
            return TextPart(text=part)
        return ImagePart(image=self._album.add(render(part.scene)), loss=part.learn)


def _checked(chain: Chain) -> Verdict:
    """All or nothing: whether the checker reads every picture of the chain as what was drawn."""
    scenes: list[Scene] = [*chain.pictures, *(part.scene for part in chain.response if isinstance(part, Drawn))]
    wrong = sum(not is_read_right(scene) for scene in scenes)
    if wrong:
        return Verdict(score=0, reason=f"the checker misreads {wrong} of {len(scenes)} pictures")
    return Verdict(score=BEST, reason=f"the checker reads all of {len(scenes)} pictures")


def _truth(mode: str, request: Request) -> dict[str, Any]:
    """What the last picture must show, as GenEval's metadata; a general chain is about something else."""
    return {} if mode == "general" else {"request": request.metadata()}
