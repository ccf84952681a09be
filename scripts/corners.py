"""A new task for the bundled model, true by construction: things in corners, and diagonally across from each other.

    python scripts/corners.py make --out data/corners --rows 600     chains.jsonl and its pictures
    python scripts/corners.py score --model icons --prompts 200      how often a model gets it right

The bundled model knows neither wording. A third of the rows are of tasks it knows, so that it keeps them. Prompts that
are scored are drawn with another seed than rows; what is scored is the last picture, by the icon world's checker.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from twgi.icons import checker, tasks
from twgi.icons.tasks import COLOR_NAMES, place, with_article
from twgi.icons.world import NAMES, Placed, Scene, render
from twgi.thinking.events import Task
from twgi.thinking.thinker import Thinker
from twgi.trace import Trace

CORNERS = ("upper left", "upper right", "lower left", "lower right")  # by quadrant
DIAGONALS = ((0, 3), (3, 0), (1, 2), (2, 1))
KNOWN = ("two_object", "colors", "position", "color_attr")
ROWS, PROMPTS = 0, 1  # the first number of a seed


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A prompt, a scene that fulfils it, and the kind of wish it is."""

    kind: str
    prompt: str
    scene: Scene


def corner(rng: np.random.Generator) -> Wish:
    """One thing in a corner that is named."""
    quadrant = int(rng.integers(4))
    thing = place(NAMES[rng.integers(len(NAMES))], COLOR_NAMES[rng.integers(len(COLOR_NAMES))], quadrant, rng)
    prompt = f"a photo of {with_article(thing.name)} in the {CORNERS[quadrant]} corner"
    return Wish(kind="corner", prompt=prompt, scene=Scene((thing,)))


def diagonal(rng: np.random.Generator) -> Wish:
    """Two things in opposite corners."""
    a, b = (NAMES[i] for i in rng.choice(len(NAMES), 2, replace=False))
    quadrants = DIAGONALS[rng.integers(len(DIAGONALS))]
    colors = (COLOR_NAMES[i] for i in rng.integers(len(COLOR_NAMES), size=2))
    things = tuple(place(n, c, q, rng) for n, c, q in zip((a, b), colors, quadrants, strict=True))
    prompt = f"a photo of {with_article(a)} diagonally across from {with_article(b)}"
    return Wish(kind="diagonal", prompt=prompt, scene=Scene(things))


NEW = {"corner": corner, "diagonal": diagonal}


def known(rng: np.random.Generator) -> Wish:
    """What the model can draw already."""
    request = tasks.TASKS[KNOWN[rng.integers(len(KNOWN))]](rng)
    return Wish(kind="known", prompt=request.prompt, scene=tasks.make_scene(request, rng))


def is_right(wish: Wish, picture: Image.Image) -> bool:
    """Just the things that were asked for, where they were asked for (colours are free)."""
    found = checker.find(picture)
    cell = checker.CELL
    seen = {icon.name: Placed(icon.name, icon.color, icon.box[0] // cell, icon.box[1] // cell) for icon in found}
    if sorted(icon.name for icon in found) != sorted(thing.name for thing in wish.scene.objects):
        return False
    quadrants = tuple(seen[thing.name].quadrant for thing in wish.scene.objects)
    return quadrants in DIAGONALS if wish.kind == "diagonal" else quadrants == (wish.scene.objects[0].quadrant,)


def wishes(count: int, seed: int) -> Iterator[Wish]:
    """New wishes of both kinds in turn; the same for the same seed."""
    rng = np.random.default_rng([PROMPTS, seed])
    kinds = list(NEW.values())
    return (kinds[i % len(kinds)](rng) for i in range(count))


def make(out: Path, rows: int, seed: int = 0) -> Path:
    """Write `chains.jsonl` (prompt, response, images) and the pictures it names; returns the file."""
    rng = np.random.default_rng([ROWS, seed])
    (out / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(rows):
        wish = known(rng) if number % 3 == 0 else list(NEW.values())[number % 3 - 1](rng)
        image = f"images/{number:05d}.png"
        render(wish.scene).save(out / image)
        lines.append(json.dumps({"prompt": wish.prompt, "response": "<image>", "images": [image]}))
    (out / "chains.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out / "chains.jsonl"


def score(thinker: Thinker, count: int, seed: int = 0, batch: int = 32) -> Mapping[str, float]:
    """Share of right pictures for each kind of wish."""
    asked = list(wishes(count, seed))
    right: dict[str, list[bool]] = {kind: [] for kind in NEW}
    for index, trace in thinker.think_many((Task(prompt=wish.prompt) for wish in asked), batch=batch):
        picture = trace.images[-1].picture if isinstance(trace, Trace) and trace.images else None
        right[asked[index].kind].append(picture is not None and is_right(asked[index], picture))
    return {kind: float(np.mean(values)) for kind, values in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    making, scoring = commands.add_parser("make"), commands.add_parser("score")
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--rows", type=int, default=600)
    scoring.add_argument("--model", default="icons")
    scoring.add_argument("--prompts", type=int, default=200)
    args = parser.parse_args()
    if args.command == "make":
        print(make(args.out, args.rows))
        return
    from twgi.checkpoint.load import load

    loaded = load(args.model)
    print(json.dumps(score(Thinker(loaded.model, loaded.tokenizer, loaded), args.prompts)))


if __name__ == "__main__":
    main()
