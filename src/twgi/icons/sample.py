"""A look at the icon world: random requests of every task, their pictures, and a thought of every mode about each.

The folder holds `scenes.jsonl` (a line of GenEval's metadata for each scene, with what is in it), `traces.jsonl` and
`images/` as a run has them, and the page `index.html`. What is here is true by construction; no model is asked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twgi.errors import ConfigError
from twgi.files import writing_lines
from twgi.icons import chains
from twgi.icons.chains import Chain
from twgi.icons.checker import find
from twgi.icons.tasks import TASKS, SceneRequest, make_scene
from twgi.icons.world import Scene, render
from twgi.runs.folder import RunFolder
from twgi.thinking.modes import MODES, mode_named, with_kinds
from twgi.trace import ImageSegment, ModelId, Segment, TextSegment, Trace

SCENES = "scenes.jsonl"
MODEL = ModelId(name="icon world", sha256="")  # nobody's weights


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A random request with a scene that fulfils it, and one chain that leads there (for general: starts there)."""

    request: SceneRequest
    scene: Scene
    chain: Chain


@dataclass(frozen=True, kw_only=True)
class SampleReport:
    """What `write_sample` did: the page, how many scenes, and how many of them the checker reads exactly."""

    page: Path
    scenes: int
    read_right: int


def write_sample(out: Path, *, scenes: int = 32, seed: int = 0) -> SampleReport:
    """Write random scenes over all tasks and modes in turn into a new or empty folder, else raise `RunError`."""
    if scenes < 1:
        raise ConfigError(f"scenes must be 1 or more, got {scenes}")
    read_right = 0
    with (
        RunFolder(out, run={"icons": {"scenes": scenes, "seed": seed}}) as folder,
        writing_lines(out / SCENES) as lines,
    ):
        for number in range(scenes):
            sampled = draw(number, seed)
            read_right += is_read_right(sampled.scene)
            folder.add(as_trace(sampled.chain, seed=seed).filed(f"{number:05d}-0"))
            lines.write(_line(sampled))
        page = folder.write_page(title=f"{scenes} scenes of the icon world")
    return SampleReport(page=page, scenes=scenes, read_right=read_right)


def draw(number: int, seed: int) -> Sampled:
    """Scene `number` of a seed; tasks take turns, and so do modes."""
    rng = np.random.default_rng([seed, number])
    request = list(TASKS.values())[number % len(TASKS)](rng)
    scene = make_scene(request, rng)
    mode = list(MODES)[(number + number // len(TASKS)) % len(MODES)]
    return Sampled(request=request, scene=scene, chain=chain_of(mode, request, scene, rng))


def chain_of(mode: str, request: SceneRequest, scene: Scene, rng: np.random.Generator) -> Chain:
    """A true thought of a mode about a scene that fulfils the request."""
    if mode == "critique":
        return chains.critique(request, scene, rng)
    plain = {"direct": chains.direct, "subgoal": chains.subgoal}.get(mode)
    return plain(request, scene) if plain else chains.general(scene, rng)


def as_trace(chain: Chain, *, seed: int = 0) -> Trace:
    """A chain as if a model had thought it: words and pictures, but no tokens."""
    given = tuple(ImageSegment(role="input", picture=render(scene)) for scene in chain.pictures)
    said = [
        TextSegment(text=part) if isinstance(part, str) else ImageSegment(picture=render(part.scene))
        for part in chain.response
    ]
    segments: tuple[Segment, ...] = (*given, *with_kinds(said, mode_named(chain.mode)))
    return Trace(prompt=chain.prompt, mode=chain.mode, seed=seed, model=MODEL, finish_reason="stop", segments=segments)


def _line(sampled: Sampled) -> dict[str, Any]:
    things = [{"name": t.name, "color": t.color, "box": list(t.box)} for t in sampled.scene.objects]
    return {**sampled.request.metadata(), "caption": chains.describe(sampled.scene), "objects": things}


def is_read_right(scene: Scene) -> bool:
    """Whether the checker finds what was drawn, in its colours and places, and nothing else."""
    truth = {(thing.name, thing.color, thing.box) for thing in scene.objects}
    return {(found.name, found.color, found.box) for found in find(render(scene))} == truth
