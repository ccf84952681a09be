"""What the icon world can be asked for: requests of GenEval's six tasks, and harder ones, with scenes that fulfil them.

The wording, the tags and the conditions are those of GenEval's `create_prompts.py`, so a request reads like a line of
its metadata file. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from twgi.icons.world import COLORS, GRID, NAMES, Placed, Scene

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}
PLACES = ("at the upper left", "at the upper right", "at the lower left", "at the lower right")
# relation -> (quadrant of A, quadrant of B) for "A relation B"
PAIRS = {
    "left of": ((0, 1), (2, 3)),
    "right of": ((1, 0), (3, 2)),
    "above": ((0, 2), (1, 3)),
    "below": ((2, 0), (3, 1)),
}
RELATIONS, COLOR_NAMES = tuple(PAIRS), tuple(COLORS)


@dataclass(frozen=True, kw_only=True)
class SceneClause:
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
class SceneRequest:
    """A prompt and what its picture must show."""

    tag: str
    prompt: str
    include: tuple[SceneClause, ...]

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


def phrase(clause: SceneClause) -> str:
    """The clause in words: "a bench", "a red bench", "three benchs"."""
    words = f"{clause.color} {clause.name}" if clause.color else clause.name
    if clause.count == 1:
        return with_article(words)
    return f"{COUNTS[clause.count]} {plural(words)}"


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c" """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def photo(tag: str, clauses: Sequence[SceneClause], relation: str | None = None) -> SceneRequest:
    """A request for these things, the first in a relation to the second. GenEval lists what is referred to first."""
    words = [phrase(clause) for clause in clauses]
    if relation is None:
        return SceneRequest(tag=tag, prompt=f"a photo of {listed(words)}", include=tuple(clauses))
    a, b, *rest = clauses
    more = f", and {' and '.join(words[2:])}" if rest else ""
    include = (b, replace(a, position=(relation, 0)), *rest)
    return SceneRequest(tag=tag, prompt=f"a photo of {words[0]} {relation} {words[1]}{more}", include=include)


def pick(rng: np.random.Generator, values: Sequence[str], count: int) -> list[str]:
    """Different ones."""
    return [values[i] for i in rng.choice(len(values), count, replace=False)]


def _named(rng: np.random.Generator, count: int) -> list[SceneClause]:
    return [SceneClause(name=name) for name in pick(rng, NAMES, count)]


def _colored(rng: np.random.Generator, count: int) -> list[SceneClause]:
    return [replace(c, color=k) for c, k in zip(_named(rng, count), pick(rng, COLOR_NAMES, count), strict=True)]


def _related(rng: np.random.Generator) -> SceneRequest:
    clauses, relation = _colored(rng, 3), RELATIONS[rng.integers(4)]
    return photo("related", clauses[:2] if rng.random() < 0.5 else clauses, relation)


TASKS: Mapping[str, Callable[[np.random.Generator], SceneRequest]] = {
    "single_object": lambda rng: photo("single_object", _named(rng, 1)),
    "two_object": lambda rng: photo("two_object", _named(rng, 2)),
    "counting": lambda rng: photo("counting", [replace(_named(rng, 1)[0], count=int(rng.integers(2, 5)))]),
    "colors": lambda rng: photo("colors", _colored(rng, 1)),
    "position": lambda rng: photo("position", _named(rng, 2), RELATIONS[rng.integers(4)]),
    "color_attr": lambda rng: photo("color_attr", _colored(rng, 2)),
    # harder than GenEval: three or four coloured things; two in a relation, and perhaps a third
    "many": lambda rng: photo("many", _colored(rng, int(rng.integers(3, 5)))),
    "related": _related,
}
GENEVAL_TASKS = tuple(TASKS)[:6]


def place(name: str, color: str, quadrant: int, rng: np.random.Generator) -> Placed:
    """A thing at one of the four places of a quadrant."""
    half = GRID // 2
    col, row = quadrant % 2 * half + int(rng.integers(2)), quadrant // 2 * half + int(rng.integers(2))
    return Placed(name, color, col, row)


def _quadrants(request: SceneRequest, rng: np.random.Generator) -> list[int]:
    """A quadrant for each single thing of the request, in the order of its clauses; relations hold."""
    wanted = [clause for clause in request.include for _ in range(clause.count)]
    relation = next((c.position[0] for c in request.include if c.position), None)
    if relation is None:
        return [int(q) for q in rng.permutation(4)[: len(wanted)]]
    a, b = PAIRS[relation][rng.integers(2)]
    rest = [q for q in rng.permutation(4) if q not in (a, b)]
    return [b, a, *(int(q) for q in rest[: len(wanted) - 2])]


def make_scene(request: SceneRequest, rng: np.random.Generator) -> Scene:
    """A random scene that fulfils the request; colours it leaves open are drawn too (one for things of one clause)."""
    quadrants = iter(_quadrants(request, rng))
    things = []
    for clause in request.include:
        color = clause.color or COLOR_NAMES[rng.integers(len(COLOR_NAMES))]
        things += [place(clause.name, color, next(quadrants), rng) for _ in range(clause.count)]
    return Scene(tuple(things))
