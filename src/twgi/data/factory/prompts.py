"""Prompts for chains: written by endpoints or read from a file, kept by rules, each only once."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from twgi.data.factory import words
from twgi.data.factory.crew import Crew, Unanswered
from twgi.data.factory.recipe import BuildRecipe
from twgi.thinking.prompts import BadLine, read_prompts
from twgi.tokenizer.multimodal import PLACEHOLDER

WAVES = 4  # how often more prompts are asked for where some were dropped
Together = Callable[[Callable[[int], list[str]], Sequence[int]], Iterable[list[str]]]
"""`map`, or one that works on several things at a time."""


@dataclass
class Sieve:
    """Prompts that passed, in order, and what became of each that was seen."""

    max_words: int
    kept: list[str] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    def add(self, prompt: str) -> None:
        """One more, kept or not."""
        prompt = " ".join(prompt.split())
        reason = self._fault(prompt)
        if reason is None:
            self._known.add(_bare(prompt))
            self.kept.append(prompt)
        self.refuse(prompt, reason)

    def refuse(self, prompt: str, reason: str | None) -> None:
        """Note what became of a prompt; None: it was kept."""
        verdict = {"status": "kept"} if reason is None else {"status": "dropped", "reason": reason}
        self.seen.append({"prompt": prompt, **verdict})

    def _fault(self, prompt: str) -> str | None:
        if not _bare(prompt):
            return "no words"
        if PLACEHOLDER in prompt:
            return f"{PLACEHOLDER} in it"
        if len(prompt.split()) > self.max_words:
            return f"more than {self.max_words} words"
        return "there already" if _bare(prompt) in self._known else None


def find_prompts(recipe: BuildRecipe, crew: Crew, together: Together) -> Sieve:
    """`recipe.count` prompts, or as many as there are."""
    sieve = Sieve(max_words=recipe.prompts.max_words)
    source = (
        _filed(Path(recipe.prompts.file), sieve) if recipe.prompts.file else _written(recipe, crew, together, sieve)
    )
    for prompt in source:
        if len(sieve.kept) == recipe.count:
            break
        sieve.add(prompt)
    return sieve


def _filed(path: Path, sieve: Sieve) -> Iterator[str]:
    for entry in read_prompts(path):
        if isinstance(entry, BadLine):
            sieve.refuse(entry.where, entry.problem)
        elif entry.images:
            sieve.refuse(entry.prompt, "has pictures")
        else:
            yield entry.prompt


def _written(recipe: BuildRecipe, crew: Crew, together: Together, sieve: Sieve) -> Iterator[str]:
    """Wave after wave, each of as many requests as there are prompts missing; a request that fails costs its share."""
    size, themes = recipe.prompts.batch, recipe.prompts.themes

    def ask(number: int) -> list[str]:
        told = words.prompts(size, themes[number % len(themes)], number)
        try:
            return crew.ask("prompts", told, words.read_list("prompts", least=1))
        except Unanswered:  # noted in the account
            return []

    numbers = count()
    for _ in range(WAVES):
        missing = recipe.count - len(sieve.kept)
        wave = [next(numbers) for _ in range(-(-missing // size))]
        for prompts in together(ask, wave):
            yield from prompts


def _bare(prompt: str) -> str:
    """What makes two prompts the same: their letters and digits."""
    return re.sub(r"\W+", " ", unicodedata.normalize("NFKC", prompt).casefold()).strip()
