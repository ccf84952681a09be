"""Find the icons in a picture: the exact detector of the icon world (numpy and Pillow only).

Every place of the 8 px grid is compared with every template (an icon in one of the ten colours). Two signals `a` and
`b` are compared by their soft intersection over union (Tanimoto coefficient), which is 1 for equal signals and the
plain intersection over union for two flat shapes:

    likeness(a, b) = <a, b> / (<a, a> + <b, b> - <a, b>)

1. Name and colour: the template of the greatest likeness, both signals taken as the difference from the ground.
2. Score: the likeness of shape alone. The window is read along the found colour (0 = ground, 1 = full ink), and both
   signals are centred. So a blob is not a disc although it covers one, and noise in other colours hardly counts.

Legend: W windows (36 a picture), S = 24 * 24 pixels of a window, C = 3 channels, K templates (icon x blur), Q colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from twgi.icons import world

Floats = NDArray[np.float32]

THRESHOLD = 0.7  # of the shape; an icon with a third missing scores about 0.55, a decoded one above 0.75
FLOOR = 0.5  # of the likeness in shape and colour together: refuses a thing of several colours
BLURS = (0.0, 0.6, 1.0)  # pixels; a decoded picture is a little softer than a rendered one
CELL, SIDE, PICTURE = world.CELL_PX, world.ICON_PX, world.PICTURE_PX
PLACES = (PICTURE - SIDE) // CELL + 1  # per axis
CHUNK = 32  # pictures scored together; bounds the memory
NEAR, LEAST_GROUND = 32, 0.2  # of 255, in each channel; a scene's share of such pixels is above 0.55


@dataclass(frozen=True, kw_only=True)
class Found:
    """One icon seen in a picture. `box` is (x0, y0, x1, y1) in pixels, the far edge exclusive; `score` is in 0..1."""

    name: str
    color: str
    box: tuple[int, int, int, int]
    score: float


def stranger(picture: Image.Image) -> str | None:
    """Why a picture is not of the icon world: it has another size, or next to nothing of the ground."""
    if picture.size != (PICTURE, PICTURE):
        size = f"{picture.width} x {picture.height} pixels, not {PICTURE} x {PICTURE}"
        return f"not a picture of the icon world ({size}), which is all that its checker knows"
    share = float((np.abs(_pixels(picture)).max(axis=2) <= NEAR).mean())
    return None if share >= LEAST_GROUND else "not a picture of the icon world: nothing of its ground is to be seen"


def find(picture: Image.Image, *, threshold: float = THRESHOLD) -> list[Found]:
    """The icons of one picture of 64 x 64 px, best first; anything less than `threshold` alike is not reported."""
    return find_many([picture], threshold=threshold)[0]


def find_many(pictures: Sequence[Image.Image], *, threshold: float = THRESHOLD) -> list[list[Found]]:
    """`find` for many pictures; each answer depends on its own picture alone."""
    chunks = (pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK))
    return [found for chunk in chunks for found in _find_chunk(chunk, threshold)]


def _find_chunk(pictures: Sequence[Image.Image], threshold: float) -> list[list[Found]]:
    windows_WSC = _windows(np.stack([_pixels(picture) for picture in pictures]))
    per_picture = PLACES * PLACES
    found_W = [_look(window_SC, place % per_picture, threshold) for place, window_SC in enumerate(windows_WSC)]
    return [_choose(found_W[start : start + per_picture]) for start in range(0, len(found_W), per_picture)]


def _pixels(picture: Image.Image) -> Floats:
    """Picture minus the ground, [64, 64, 3]; other sizes are resized first."""
    rgb = picture.convert("RGB")
    if rgb.size != (PICTURE, PICTURE):
        rgb = rgb.resize((PICTURE, PICTURE), Image.Resampling.BOX)
    return np.asarray(rgb, dtype=np.float32) - np.asarray(world.GROUND, dtype=np.float32)


def _windows(pixels: Floats) -> Floats:
    """[pictures, 64, 64, 3] -> [pictures * 36, 24 * 24, 3], places in raster order."""
    view = np.lib.stride_tricks.sliding_window_view(pixels, (SIDE, SIDE), axis=(1, 2))[:, ::CELL, ::CELL]
    return np.moveaxis(view, 3, -1).reshape(-1, SIDE * SIDE, 3)


def _look(window_SC: Floats, place: int, threshold: float) -> Found | None:
    """The icon that fills this window, the `place`-th of its picture."""
    masks_KS, colors_QC, energy_KQ = _templates()
    energy = float(np.square(window_SC).sum())
    if energy < FLOOR * energy_KQ.min():
        return None  # next to nothing but ground
    dot_KQ = (masks_KS @ window_SC) @ colors_QC.T
    likeness_KQ = dot_KQ / (energy + energy_KQ - dot_KQ)
    k, q = divmod(int(likeness_KQ.argmax()), len(colors_QC))
    if likeness_KQ[k, q] < FLOOR:
        return None
    score = _shape_likeness(window_SC @ (colors_QC[q] / np.square(colors_QC[q]).sum()), masks_KS[k])
    if score < threshold:
        return None
    row, col = divmod(place, PLACES)
    thing = world.Placed(world.NAMES[k % len(world.NAMES)], tuple(world.COLORS)[q], col, row)
    return Found(name=thing.name, color=thing.color, box=thing.box, score=score)


def _shape_likeness(ink_S: Floats, mask_S: Floats) -> float:
    a, b = ink_S - ink_S.mean(), mask_S - mask_S.mean()
    dot = float(a @ b)
    return min(dot / (float(a @ a) + float(b @ b) - dot), 1.0)


def _choose(windows: Sequence[Found | None]) -> list[Found]:
    """Of the 36 windows of a picture: the best first, then the best that overlaps none before it."""
    chosen: list[Found] = []
    for found in sorted(filter(None, windows), key=lambda found: -found.score):
        if not any(_overlap(found.box, other.box) for other in chosen):
            chosen.append(found)
    return chosen


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@cache
def _templates() -> tuple[Floats, Floats, Floats]:
    """Masks KS (all names for each blur), colours QC minus the ground, energy KQ."""
    masks = [world.icon_mask(name).astype(np.float32) / np.float32(255) for name in world.NAMES]
    masks_KS = np.stack([_blur(mask, sigma).ravel() for sigma in BLURS for mask in masks])
    colors_QC = np.asarray([*world.COLORS.values()], dtype=np.float32) - np.asarray(world.GROUND, dtype=np.float32)
    return masks_KS, colors_QC, np.outer(np.square(masks_KS).sum(axis=1), np.square(colors_QC).sum(axis=1))


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
