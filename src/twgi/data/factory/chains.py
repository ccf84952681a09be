"""Chains with a crew: what is drawn and said, in the order of the paper's steps, up to the judge's verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twgi.data.factory import words
from twgi.data.factory.crew import Crew
from twgi.data.factory.recipe import BuildRecipe
from twgi.data.factory.words import Verdict
from twgi.data.records import ImagePart, Part, TextPart


@dataclass(frozen=True, kw_only=True)
class Made:
    """A chain that came to its end.

    Args:
        prompt: what was asked for, without the mode's template; `<image>` is the place of an input picture.
        response: texts and pictures in order.
        verdict: on its last picture.
        notes: what else is worth keeping beside it.
    """

    prompt: str
    response: tuple[Part, ...]
    verdict: Verdict
    input_images: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


class Dropped(Exception):
    """A chain that is given up before there is anything to judge, and at which step."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(reason)
        self.step = step


def subgoal(crew: Crew, prompt: str, recipe: BuildRecipe) -> Made:
    """Part after part, then the whole from all parts; the words are written by who sees all the pictures.

    Raises:
        Dropped: the prompt has fewer than two parts.
        Unanswered: somebody did not do their part.
    """
    read = words.read_list("parts", least=1, most=recipe.max_parts)
    parts = crew.ask("decomposer", words.decompose(prompt, recipe.max_parts), read)
    if len(parts) < 2:
        raise Dropped("decomposer", "fewer than two parts")
    first = crew.paint("painter", words.first_part(parts[0]))
    others = [crew.paint("editor", words.next_part(part), [first]) for part in parts[1:]]
    whole = crew.paint("editor", words.whole(prompt), [first, *others])
    pictures = [first, *others, whole]
    steps = crew.ask("writer", words.narrate(prompt, parts), words.read_steps(len(parts)), pictures)
    pairs = zip(steps, pictures, strict=True)
    response = tuple(part for step, path in pairs for part in (TextPart(text=step), ImagePart(image=path)))
    return Made(prompt=prompt, response=response, verdict=_judged(crew, prompt, whole), notes={"parts": parts})


def critique(crew: Crew, prompt: str, recipe: BuildRecipe) -> Made:
    """A draft, what is to be said about it, and, unless all fits, the picture drawn again.

    Raises:
        Unanswered: somebody did not do their part.
    """
    draft = crew.paint("drafter", prompt)
    said = crew.ask("critic", words.criticise(prompt), words.read_critique, [draft])
    learnt = said.matches or recipe.learn_draft
    response: tuple[Part, ...] = (ImagePart(image=draft, loss=learnt), TextPart(text=said.text))
    last = draft
    if not said.matches:
        last = crew.paint("editor", words.redraw(prompt, said.text), [draft])
        response = (*response, ImagePart(image=last))
    return Made(
        prompt=prompt, response=response, verdict=_judged(crew, prompt, last), notes={"redrawn": not said.matches}
    )


def _judged(crew: Crew, prompt: str, picture: str) -> Verdict:
    return crew.ask("judge", words.judge(prompt), words.read_verdict, [picture])
