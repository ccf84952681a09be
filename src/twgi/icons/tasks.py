"""What the icon world can be asked for: requests of GenEval's six tasks, and harder ones, with scenes that fulfil them.

The wording, the tags and the conditions are those of GenEval's `create_prompts.py`, so a request reads like a line of
its metadata file. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from twgi.icons.world import COLORS, GRID, NAMES, Placed, Scene

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")
PLACES = ("at the upper left", "at the upper right", "at the lower left", "at the lower right")
# relation -> (quadrant of A, quadrant of B) for "A relation B"
PAIRS = {
    "left of": ((0, 1), (2, 3)),
    "right of": ((1, 0), (3, 2)),
    "above": ((0, 2), (1, 3)),
    "below": ((2, 0), (3, 1)),
}
COLOR_NAMES = tuple(COLORS)


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One condition: `count` things of a class, perhaps of a colour, perhaps placed: (relation, index of the other)."""

    name: str
    count: int = 1
    color: str | None = None
    position: tuple[str, int] | None = None

    def metadata(self) -> dict[str, Any]:
        """The clause as GenEval's metadata writes it."""
        entry: dict[str, Any] = {"class": self.name, "count": self.count}
        if self.color is not None:
            entry["color"] = self.color
        if self.position is not None:
            entry["position"] = list(self.position)
        return entry


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and what its picture must show."""

    tag: str
    prompt: str
    include: tuple[Clause, ...]

    def metadata(self) -> dict[str, Any]:
        """As a line of GenEval's metadata file; counting excludes one more than asked for."""
        row: dict[str, Any] = {"tag": self.tag, "include": [clause.metadata() for clause in self.include]}
        if self.tag == "counting":
            row["exclude"] = [{"class": c.name, "count": c.count + 1} for c in self.include]
        return {**row, "prompt": self.prompt}


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(name: str) -> str:
    """GenEval's plural: s, or es after s ("benchs", "buses")."""
    return name + ("es" if name.endswith("s") else "s")


def phrase(clause: Clause) -> str:
    """The clause in words: "a bench", "a red bench", "three benchs"."""
    words = f"{clause.color} {clause.name}" if clause.color else clause.name
    if clause.count == 1:
        return with_article(words)
    return f"{COUNTS[clause.count]} {plural(words)}"


def _names(rng: np.random.Generator, count: int) -> list[str]:
    return [NAMES[i] for i in rng.choice(len(NAMES), count, replace=False)]


def _colors(rng: np.random.Generator, count: int) -> list[str]:
    return [COLOR_NAMES[i] for i in rng.choice(len(COLOR_NAMES), count, replace=False)]


def _list_of(clauses: list[Clause]) -> str:
    words = [phrase(clause) for clause in clauses]
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


def single_object(rng: np.random.Generator) -> Request:
    clause = Clause(name=_names(rng, 1)[0])
    return Request(tag="single_object", prompt=f"a photo of {phrase(clause)}", include=(clause,))


def two_object(rng: np.random.Generator) -> Request:
    clauses = [Clause(name=name) for name in _names(rng, 2)]
    return Request(tag="two_object", prompt=f"a photo of {_list_of(clauses)}", include=tuple(clauses))


def counting(rng: np.random.Generator) -> Request:
    clause = Clause(name=_names(rng, 1)[0], count=int(rng.integers(2, 5)))
    return Request(tag="counting", prompt=f"a photo of {phrase(clause)}", include=(clause,))


def colors(rng: np.random.Generator) -> Request:
    clause = Clause(name=_names(rng, 1)[0], color=_colors(rng, 1)[0])
    return Request(tag="colors", prompt=f"a photo of {phrase(clause)}", include=(clause,))


def _related(a: Clause, b: Clause, relation: str, tag: str, rest: str = "", more: tuple[Clause, ...] = ()) -> Request:
    """GenEval lists the clause that is referred to first."""
    placed = Clause(name=a.name, color=a.color, position=(relation, 0))
    prompt = f"a photo of {phrase(a)} {relation} {phrase(b)}{rest}"
    return Request(tag=tag, prompt=prompt, include=(b, placed, *more))


def position(rng: np.random.Generator) -> Request:
    a, b = (Clause(name=name) for name in _names(rng, 2))
    return _related(a, b, RELATIONS[rng.integers(4)], "position")


def color_attr(rng: np.random.Generator) -> Request:
    clauses = [Clause(name=n, color=c) for n, c in zip(_names(rng, 2), _colors(rng, 2), strict=True)]
    return Request(tag="color_attr", prompt=f"a photo of {_list_of(clauses)}", include=tuple(clauses))


def many(rng: np.random.Generator) -> Request:
    """Three or four coloured things (harder than GenEval)."""
    count = int(rng.integers(3, 5))
    clauses = [Clause(name=n, color=c) for n, c in zip(_names(rng, count), _colors(rng, count), strict=True)]
    return Request(tag="many", prompt=f"a photo of {_list_of(clauses)}", include=tuple(clauses))


def related(rng: np.random.Generator) -> Request:
    """Two coloured things in a relation, and perhaps a third coloured thing (harder than GenEval)."""
    a, b, c = (Clause(name=n, color=k) for n, k in zip(_names(rng, 3), _colors(rng, 3), strict=True))
    relation = RELATIONS[rng.integers(4)]
    if rng.random() < 0.5:
        return _related(a, b, relation, "related")
    return _related(a, b, relation, "related", rest=f", and {phrase(c)}", more=(c,))


TASKS: Mapping[str, Callable[[np.random.Generator], Request]] = {
    task.__name__: task for task in (single_object, two_object, counting, colors, position, color_attr, many, related)
}
GENEVAL_TASKS = tuple(TASKS)[:6]


def place(name: str, color: str, quadrant: int, rng: np.random.Generator) -> Placed:
    """A thing at one of the four places of a quadrant."""
    half = GRID // 2
    col, row = quadrant % 2 * half + int(rng.integers(2)), quadrant // 2 * half + int(rng.integers(2))
    return Placed(name, color, col, row)


def _quadrants(request: Request, rng: np.random.Generator) -> list[int]:
    """A quadrant for each single thing of the request, in the order of its clauses; relations hold."""
    wanted = [clause for clause in request.include for _ in range(clause.count)]
    relation = next((c.position[0] for c in request.include if c.position), None)
    if relation is None:
        return [int(q) for q in rng.permutation(4)[: len(wanted)]]
    a, b = PAIRS[relation][rng.integers(2)]
    rest = [q for q in rng.permutation(4) if q not in (a, b)]
    return [b, a, *(int(q) for q in rest[: len(wanted) - 2])]


def make_scene(request: Request, rng: np.random.Generator) -> Scene:
    """A random scene that fulfils the request; colours it leaves open are drawn too (one for things of one clause)."""
    quadrants = iter(_quadrants(request, rng))
    things = []
    for clause in request.include:
        color = clause.color or COLOR_NAMES[rng.integers(len(COLOR_NAMES))]
        things += [place(clause.name, color, next(quadrants), rng) for _ in range(clause.count)]
    return Scene(tuple(things))
