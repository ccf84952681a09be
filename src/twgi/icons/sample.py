"""A look at the icon world: random requests of every task, their pictures, and a thought of every mode about each.

The folder holds `scenes.jsonl` (a line of GenEval's metadata for each scene, with what is in it), `traces.jsonl` and
`images/` as a run has them, and the page `index.html`. What is here is true by construction; no model is asked.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twgi.errors import ConfigError, RunError
from twgi.icons import chains
from twgi.icons.chains import Chain, Drawn
from twgi.icons.checker import find
from twgi.icons.tasks import TASKS, Request, make_scene
from twgi.icons.world import CELL_PX, ICON_PX, Scene, render
from twgi.render import render_page
from twgi.thinking.modes import MODES, mode_named, roles
from twgi.files import write_whole as write_file
from twgi.trace import PAGE, TRACES, ImageSegment, ModelId, Role, Segment, TextSegment, Trace, to_line

SCENES = "scenes.jsonl"
MODEL = ModelId(name="icon world", sha256="")  # nobody's weights


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A random request with a scene that fulfils it, and one chain that leads there (for general: starts there)."""

    request: Request
    scene: Scene
    chain: Chain


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What `write_sample` did: the page, how many scenes, and how many of them the checker reads exactly."""

    page: Path
    scenes: int
    read_right: int


def write_sample(out: Path, *, scenes: int = 32, seed: int = 0) -> Sample:
    """Write random scenes over all tasks and modes in turn into a new or empty folder.

    Raises:
        ConfigError: no scene is asked for.
        RunError: the folder holds something, or cannot be written.
    """
    if scenes < 1:
        raise ConfigError(f"scenes must be 1 or more, got {scenes}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is there already and not empty: give a new folder as --out")
    drawn = [draw(number, seed) for number in range(scenes)]
    traces = [as_trace(sampled.chain, seed=seed).filed(f"{n:05d}-0") for n, sampled in enumerate(drawn)]
    for trace in traces:
        for name, content in trace.files().items():
            write_file(out / name, content)
    write_file(out / TRACES, b"".join(to_line(trace) for trace in traces))
    write_file(out / SCENES, "".join(json.dumps(_line(sampled)) + "\n" for sampled in drawn).encode())
    write_file(out / PAGE, render_page(traces, folder=out, title=f"{scenes} scenes of the icon world").encode())
    return Sample(page=out / PAGE, scenes=scenes, read_right=sum(is_read_right(sampled.scene) for sampled in drawn))


def draw(number: int, seed: int) -> Sampled:
    """Scene `number` of a seed; tasks take turns, and so do modes."""
    rng = np.random.default_rng([seed, number])
    request = list(TASKS.values())[number % len(TASKS)](rng)
    scene = make_scene(request, rng)
    mode = list(MODES)[(number + number // len(TASKS)) % len(MODES)]
    return Sampled(request=request, scene=scene, chain=chain_of(mode, request, scene, rng))


def chain_of(mode: str, request: Request, scene: Scene, rng: np.random.Generator) -> Chain:
    """A true thought of a mode about a scene that fulfils the request."""
    match mode:
        case "direct":
            return chains.direct(request, scene)
        case "subgoal":
            return chains.subgoal(request, scene)
        case "critique":
            return chains.critique(request, scene, rng)
    return chains.general(scene, rng)


def as_trace(chain: Chain, *, seed: int = 0) -> Trace:
    """A chain as if a model had thought it: words and pictures, but no tokens."""
    kinds = kinds_of(chain)
    named = iter(zip(kinds, roles(kinds), strict=True))
    given = tuple(ImageSegment(role="input", picture=render(scene)) for scene in chain.pictures)
    said = tuple(
        TextSegment(text=part) if isinstance(part, str) else _image(part, *next(named)) for part in chain.response
    )
    segments: tuple[Segment, ...] = (*given, *said)
    return Trace(prompt=chain.prompt, mode=chain.mode, seed=seed, model=MODEL, finish_reason="stop", segments=segments)


def kinds_of(chain: Chain) -> list[str]:
    """What each picture of a chain is drawn as, by the words before it."""
    kinds: list[str] = []
    words = ""
    for part in chain.response:
        if isinstance(part, str):
            words += part
        else:
            kinds.append(mode_named(chain.mode).kind_of(len(kinds), words))
            words = ""
    return kinds


def _image(part: Drawn, kind: str, role: Role) -> ImageSegment:
    return ImageSegment(role=role, kind=kind, picture=render(part.scene))


def _line(sampled: Sampled) -> dict[str, Any]:
    things = [
        {"name": thing.name, "color": thing.color, "box": _box(thing.col, thing.row)} for thing in sampled.scene.objects
    ]
    return {**sampled.request.metadata(), "caption": chains.describe(sampled.scene), "objects": things}


def _box(col: int, row: int) -> list[int]:
    x, y = col * CELL_PX, row * CELL_PX
    return [x, y, x + ICON_PX, y + ICON_PX]


def is_read_right(scene: Scene) -> bool:
    """Whether the checker finds what was drawn, in its colours and places, and nothing else."""
    truth = {(thing.name, thing.color, tuple(_box(thing.col, thing.row))) for thing in scene.objects}
    return {(found.name, found.color, found.box) for found in find(render(scene))} == truth
