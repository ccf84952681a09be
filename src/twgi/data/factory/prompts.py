"""Prompts for chains: written by teachers or read from a file, kept by rules, each only once."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from twgi.data.factory import words
from twgi.data.factory.recipe import BuildRecipe
from twgi.data.factory.teachers import NotMade, Teachers
from twgi.files import Object
from twgi.runs.prompts import BadLine, read_prompts
from twgi.tokenizer.multimodal import PLACEHOLDER

WAVES = 4  # how often more prompts are asked for where some were dropped
Together = Callable[[Callable[[int], list[str]], Sequence[int]], Iterable[list[str]]]
"""`map`, or one that works on several things at a time."""


@dataclass
class PromptFilter:
    """Prompts that passed, in order, and what became of each that was seen."""

    max_words: int
    kept: list[str] = field(default_factory=list)
    seen: list[Object] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    def add(self, prompt: str) -> None:
        """One more, kept or not."""
        prompt, bare = " ".join(prompt.split()), _bare(prompt)
        for wrong, reason in (
            (not bare, "no words"),
            (PLACEHOLDER in prompt, f"{PLACEHOLDER} in it"),
            (len(prompt.split()) > self.max_words, f"more than {self.max_words} words"),
            (bare in self._known, "there already"),
        ):
            if wrong:
                return self.refuse(prompt, reason)
        self._known.add(bare)
        self.kept.append(prompt)
        self.seen.append({"prompt": prompt, "status": "kept"})

    def refuse(self, prompt: str, reason: str) -> None:
        """Note why one is not kept."""
        self.seen.append({"prompt": prompt, "status": "dropped", "reason": reason})


def find_prompts(recipe: BuildRecipe, teachers: Teachers, together: Together) -> PromptFilter:
    """`recipe.count` prompts, or as many as there are."""
    found, file = PromptFilter(max_words=recipe.prompts.max_words), recipe.prompts.file
    for prompt in _filed(Path(file), found) if file else _written(recipe, teachers, together, found):
        if len(found.kept) == recipe.count:
            break
        found.add(prompt)
    return found


def _filed(path: Path, found: PromptFilter) -> Iterator[str]:
    for entry in read_prompts(path):
        if isinstance(entry, BadLine):
            found.refuse(entry.where, entry.problem)
        elif entry.images:
            found.refuse(entry.prompt, "has pictures")
        else:
            yield entry.prompt


def _written(recipe: BuildRecipe, teachers: Teachers, together: Together, found: PromptFilter) -> Iterator[str]:
    """Wave after wave, each of as many requests as there are prompts missing; a request that fails costs its share."""
    size, themes = recipe.prompts.batch, recipe.prompts.themes

    def ask(number: int) -> list[str]:
        theme, read = themes[number % len(themes)], words.read_list("prompts", least=1)
        try:
            return teachers.ask("prompts", "prompts", read, count=size, theme=theme, number=number)
        except NotMade:  # noted in the book
            return []

    numbers = count()
    for _ in range(WAVES):
        missing = recipe.count - len(found.kept)
        for prompts in together(ask, [next(numbers) for _ in range(-(-missing // size))]):
            yield from prompts


def _bare(prompt: str) -> str:
    """What makes two prompts the same: their letters and digits."""
    return re.sub(r"\W+", " ", unicodedata.normalize("NFKC", prompt).casefold()).strip()
