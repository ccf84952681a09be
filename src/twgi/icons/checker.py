"""Find the icons in a picture: the exact detector of the icon world (numpy and Pillow only).

Every place of the 8 px grid is compared with every template (an icon in one of the ten colours). The measure is the
soft intersection over union of the two as signals over the ground (Tanimoto coefficient): with `p` the picture minus
the ground and `t` the template minus the ground,

    score = <p, t> / (<p, p> + <t, t> - <p, t>)

It is 1 for the icon itself, falls with missing parts, with foreground that the icon does not explain, and with a
wrong colour, and is the plain intersection over union when both are flat shapes of one colour.

Legend: B pictures, W windows, S = 24 * 24 pixels of a window, C = 3 channels, K templates (icon x blur), Q colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from twgi.icons import world

Floats = NDArray[np.float32]

THRESHOLD = 0.75  # a third of an icon missing scores at most 2/3
BLURS = (0.0, 0.6, 1.0)  # pixels; a decoded picture is a little softer than a rendered one
CELL, SIDE, PICTURE = 8, 24, 64
PLACES = (PICTURE - SIDE) // CELL + 1  # per axis
CHUNK = 32  # pictures scored together; bounds the memory


@dataclass(frozen=True, kw_only=True)
class Found:
    """One icon seen in a picture. `box` is (x0, y0, x1, y1) in pixels, the far edge exclusive; `score` is in 0..1."""

    name: str
    color: str
    box: tuple[int, int, int, int]
    score: float


@dataclass(frozen=True, kw_only=True)
class _Templates:
    names: tuple[str, ...]  # of each template
    colors: tuple[str, ...]
    masks_KS: Floats
    colors_QC: Floats  # minus the ground
    energy_KQ: Floats


def find(picture: Image.Image, *, threshold: float = THRESHOLD) -> list[Found]:
    """The icons of one picture of 64 x 64 px, best first; anything less than `threshold` alike is not reported."""
    return find_many([picture], threshold=threshold)[0]


def find_many(pictures: Sequence[Image.Image], *, threshold: float = THRESHOLD) -> list[list[Found]]:
    """`find` for many pictures; each answer depends on its own picture alone."""
    chunks = (pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK))
    return [found for chunk in chunks for found in _find_chunk(chunk, threshold)]


def _find_chunk(pictures: Sequence[Image.Image], threshold: float) -> list[list[Found]]:
    templates = _templates()
    windows = _windows(np.stack([_pixels(picture) for picture in pictures]))
    best, which = _best_templates(windows.reshape(-1, SIDE * SIDE, 3), templates)
    per_picture = (len(pictures), PLACES * PLACES)
    rows = zip(best.reshape(per_picture), which.reshape(per_picture), strict=True)
    return [_choose(scores, index, templates, threshold) for scores, index in rows]


def _pixels(picture: Image.Image) -> Floats:
    """Picture minus the ground, [64, 64, 3]; other sizes are resized first."""
    rgb = picture.convert("RGB")
    if rgb.size != (PICTURE, PICTURE):
        rgb = rgb.resize((PICTURE, PICTURE), Image.Resampling.BOX)
    return np.asarray(rgb, dtype=np.float32) - np.asarray(world.GROUND, dtype=np.float32)


def _windows(pixels: Floats) -> Floats:
    """[B, 64, 64, 3] -> [B, 36, 24 * 24, 3], places in raster order."""
    view = np.lib.stride_tricks.sliding_window_view(pixels, (SIDE, SIDE), axis=(1, 2))[:, ::CELL, ::CELL]
    return np.moveaxis(view, 3, -1).reshape(len(pixels), PLACES * PLACES, SIDE * SIDE, 3)


def _best_templates(windows_WSC: Floats, templates: _Templates) -> tuple[Floats, NDArray[np.intp]]:
    """For each window the best score and the flat index (template, colour) that reached it."""
    energy_W = np.square(windows_WSC).sum(axis=(1, 2))
    best = np.zeros(len(windows_WSC), dtype=np.float32)
    which = np.zeros(len(windows_WSC), dtype=np.intp)
    # A score s needs at least s times the template's energy: near-empty windows need no look.
    for window in np.flatnonzero(energy_W > 0.25 * templates.energy_KQ.min()):
        projected_KC = templates.masks_KS @ windows_WSC[window]
        dot_KQ = projected_KC @ templates.colors_QC.T
        score_KQ = dot_KQ / (energy_W[window] + templates.energy_KQ - dot_KQ)
        which[window] = score_KQ.argmax()
        best[window] = score_KQ.flat[which[window]]
    return best, which


def _choose(scores: Floats, which: NDArray[np.intp], templates: _Templates, threshold: float) -> list[Found]:
    """Greedy: the best window first, then the best that overlaps none before it."""
    chosen: list[Found] = []
    for place in np.argsort(-scores, kind="stable"):
        if scores[place] < threshold:
            break
        box = _box(int(place))
        if not any(_overlap(box, other.box) for other in chosen):
            template, color = divmod(int(which[place]), len(templates.colors))
            score = min(float(scores[place]), 1.0)
            found = Found(name=templates.names[template], color=templates.colors[color], box=box, score=score)
            chosen.append(found)
    return chosen


def _box(place: int) -> tuple[int, int, int, int]:
    row, col = divmod(place, PLACES)
    return (col * CELL, row * CELL, col * CELL + SIDE, row * CELL + SIDE)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@cache
def _templates() -> _Templates:
    masks = {name: np.asarray(world.icon_mask(name), dtype=np.float32) / 255 for name in world.NAMES}
    masks_KS = np.stack([_blur(mask, sigma).ravel() for sigma in BLURS for mask in masks.values()])
    ground = np.asarray(world.GROUND, dtype=np.float32)
    colors_QC = np.asarray(list(world.COLORS.values()), dtype=np.float32) - ground
    energy_KQ = np.outer(np.square(masks_KS).sum(axis=1), np.square(colors_QC).sum(axis=1))
    return _Templates(
        names=tuple(masks) * len(BLURS),
        colors=tuple(world.COLORS),
        masks_KS=masks_KS,
        colors_QC=colors_QC,
        energy_KQ=energy_KQ,
    )


def _blur(mask: Floats, sigma: float) -> Floats:
    """Gaussian blur; what leaves the window is lost."""
    if sigma == 0:
        return mask
    taps = np.arange(-3, 4)
    kernel = np.exp(-0.5 * np.square(taps / sigma))
    kernel /= kernel.sum()
    padded = np.pad(mask, 3)
    rows = sum(weight * np.roll(padded, tap, axis=0) for weight, tap in zip(kernel, taps, strict=True))
    both = sum(weight * np.roll(rows, tap, axis=1) for weight, tap in zip(kernel, taps, strict=True))
    return np.asarray(both, dtype=np.float32)[3:-3, 3:-3]
