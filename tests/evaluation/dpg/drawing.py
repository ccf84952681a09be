"""Right and wrong pictures of four dense prompts, and the scores of a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from twgi.evaluation.dpg.benchmark import grid
from twgi.icons.chains import flaw
from twgi.icons.dense import DensePrompt, dense_prompts, write_dense
from twgi.icons.tasks import make_scene
from twgi.icons.world import render

PROMPTS = dense_prompts(4, seed=1)


def drawn(prompt: DensePrompt, sample: int, *, wrong: bool = False) -> Image.Image:
    rng = np.random.default_rng([sample, PROMPTS.index(prompt)])
    scene = make_scene(prompt.request, rng)
    return render(flaw(prompt.request, scene, rng)[0] if wrong else scene)


def benchmark(folder: Path, *, grids: bool = True, wrong: frozenset[tuple[int, int]] = frozenset()) -> list[str]:
    """Four pictures of each prompt; returns the command that scores them."""
    (folder / "dense.csv").write_text(write_dense(PROMPTS, lines=False))
    (folder / "pictures").mkdir()
    for number, prompt in enumerate(PROMPTS):
        pictures = [drawn(prompt, sample, wrong=(number, sample) in wrong) for sample in range(4)]
        if grids:
            grid(pictures).save(folder / "pictures" / f"{prompt.id}.png")
        else:
            for sample, picture in enumerate(pictures):
                picture.save(folder / "pictures" / f"{prompt.id}_{sample}.png")
    layout = ["--crops", "4"] if grids else []
    return ["score", "dpg", f"{folder}/pictures", "--questions", f"{folder}/dense.csv", "--judge", "icons", *layout]


def scores(folder: Path, name: str = "pictures") -> Any:
    return json.loads((folder / name / "scores.json").read_text())
