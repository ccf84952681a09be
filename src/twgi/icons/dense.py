"""Dense prompts of the icon world, and questions about their pictures, in the schema of DPG-Bench. No torch here.

A prompt asks for two to four things: groups of one kind and colour, each with its number, and often a relation
between the first two where these are single things. `tasks.make_scene` makes a picture of it. The questions are true
of every picture that fulfils the prompt; an entity is asked for first, its number, colour and place wait for it.
`Claim` is what a question says, as a value: it writes the question and is read back from it, so whoever can look at a
picture (`evaluation/judges/icons.py`) can answer exactly.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from twgi.errors import ConfigError
from twgi.icons import tasks
from twgi.icons.tasks import COLOR_NAMES, COUNTS, RELATIONS, SceneClause, SceneRequest, plural, with_article
from twgi.icons.world import NAMES

COLUMNS = (
    "item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
    "question_natural_language",
)  # fmt: skip
GROUPS = ((1, 1), (1, 1, 1), (1, 1, 1, 1), (2, 1), (1, 2), (2, 1, 1), (1, 1, 2), (2, 2), (3, 1), (1, 3))
RELATED = 0.75  # share of relations among the prompts that can have one
_BY_PLURAL = {plural(name): name for name in NAMES}
_KINDS = "|".join(sorted(map(re.escape, (*NAMES, *_BY_PLURAL)), key=len, reverse=True))
_READ = (
    re.compile(rf"(?:Is|Are) there (?:an? )?(?P<name>{_KINDS})\?"),
    re.compile(rf"(?:Is|Are) there exactly (?P<count>{'|'.join(COUNTS.values())}) (?P<name>{_KINDS})\?"),
    re.compile(rf"(?:Is|Are) the (?P<name>{_KINDS}) (?P<color>{'|'.join(COLOR_NAMES)})\?"),
    re.compile(rf"(?:Is|Are) the (?P<name>{_KINDS}) (?P<relation>{'|'.join(RELATIONS)}) the (?P<other>{_KINDS})\?"),
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a question asks: there are things called `name`; exactly `count`; all `color`; all `relation` of all
    `other`."""

    name: str
    count: int | None = None
    color: str | None = None
    relation: str | None = None
    other: str | None = None

    @classmethod
    def read(cls, question: str) -> Claim | None:
        """The claim of a question in our words; None for any other question."""
        for pattern in _READ:
            if match := pattern.fullmatch(question.strip()):
                found = match.groupdict()
                count = next((n for n, word in COUNTS.items() if word == found.get("count")), None)
                name, other = (_BY_PLURAL.get(found.get(key, ""), found.get(key)) for key in ("name", "other"))
                return cls(
                    name=name or "", count=count, color=found.get("color"), relation=found.get("relation"), other=other
                )
        return None

    def question(self, numbers: Mapping[str, int]) -> str:
        """In words; `numbers` says how many things of each name the prompt asks for."""
        many = numbers[self.name] > 1
        be, name = ("Are", plural(self.name)) if many else ("Is", self.name)
        if self.count is not None:
            return f"{be} there exactly {COUNTS[self.count]} {name}?"
        if self.color is not None:
            return f"{be} the {name} {self.color}?"
        if self.relation is not None and self.other is not None:
            other = plural(self.other) if numbers[self.other] > 1 else self.other
            return f"{be} the {name} {self.relation} the {other}?"
        return f"{be} there {name if many else with_article(name)}?"

    @property
    def tuple(self) -> str:
        """In DPG-Bench's notation."""
        if self.count is not None:
            return f"other - count ({self.name}, =={self.count})"
        if self.color is not None:
            return f"attribute - color ({self.name}, {self.color})"
        if self.relation is not None:
            return f"relation - spatial ({self.name}, {self.other}, {self.relation})"
        return f"entity - whole ({self.name})"


@dataclass(frozen=True, kw_only=True)
class DensePrompt:
    """A prompt, what it asks for, and the questions: (claim, numbers of the questions it waits for), counted from 1."""

    id: str
    request: SceneRequest
    claims: tuple[tuple[Claim, tuple[int, ...]], ...]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each question, in DPG-Bench's columns."""
        numbers = {clause.name: clause.count for clause in self.request.include}
        for number, (claim, parents) in enumerate(self.claims, start=1):
            kind = claim.tuple.split(" (")[0]
            broad, detailed = kind.split(" - ")
            values = (
                self.id, self.request.prompt, "", number, ",".join(map(str, parents)) or "0", broad, detailed,
                claim.tuple, claim.question(numbers),
            )  # fmt: skip
            yield dict(zip(COLUMNS, values, strict=True))


def dense_prompts(count: int, *, seed: int = 0) -> list[DensePrompt]:
    """So many prompts (1 or more); the same seed gives the same ones, and the first of more are those of fewer."""
    if count < 1:
        raise ConfigError(f"count must be 1 or more, got {count}")
    return [_prompt(f"icons{number:05d}", np.random.default_rng([seed, number])) for number in range(count)]


def _prompt(name: str, rng: np.random.Generator) -> DensePrompt:
    sizes = GROUPS[rng.integers(len(GROUPS))]
    names, colors = tasks.pick(rng, NAMES, len(sizes)), tasks.pick(rng, COLOR_NAMES, len(sizes))
    clauses = [SceneClause(name=n, count=c, color=k) for n, c, k in zip(names, sizes, colors, strict=True)]
    relation = RELATIONS[rng.integers(4)] if sizes[:2] == (1, 1) and rng.random() < RELATED else None
    return DensePrompt(
        id=name, request=tasks.photo("dense", clauses, relation), claims=tuple(_claims(clauses, relation))
    )


def _claims(clauses: list[SceneClause], relation: str | None) -> Iterator[tuple[Claim, tuple[int, ...]]]:
    """Entities first, then what waits for one of them, last what waits for two."""
    yield from ((Claim(name=clause.name), ()) for clause in clauses)
    for number, clause in enumerate(clauses, start=1):
        yield Claim(name=clause.name, count=clause.count), (number,)
        yield Claim(name=clause.name, color=clause.color), (number,)
    if relation is not None:
        yield Claim(name=clauses[0].name, relation=relation, other=clauses[1].name), (1, 2)


def write_dense(prompts: list[DensePrompt], *, lines: bool) -> str:
    """The question file: CSV in DPG-Bench's columns, or the same as JSON lines."""
    rows = [row for prompt in prompts for row in prompt.rows()]
    if lines:
        return "".join(json.dumps(row) + "\n" for row in rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
