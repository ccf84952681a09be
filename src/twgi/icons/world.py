"""The icon world: scenes of coloured icons on a plain ground, and their pictures. No torch here.

A picture is 64 x 64 px on a grid of 8 x 8 cells of 8 px. An object is one 24 x 24 px icon (3 x 3 cells) in one of
GenEval's ten colours. Each quadrant of the picture (4 x 4 cells) holds at most one object, at one of four places.
Object names, colours, tasks and wording are GenEval's own (Ghosh et al., 2023), so its real prompts run here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ICONS_PNG = Path(__file__).with_name("icons.png")
ATLAS_COLUMNS = 16
ICON_PX, CELL_PX, GRID, PICTURE_PX = 24, 8, 8, 64
SPAN = ICON_PX // CELL_PX  # cells that an object covers in each direction

# GenEval's 80 names in its own order (COCO order, three renamed).
NAMES: tuple[str, ...] = tuple(
    """person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,
bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,
snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,
knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,
dining table,toilet,tv,laptop,computer mouse,tv remote,computer keyboard,cell phone,microwave,oven,toaster,sink,
refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush""".replace("\n", "").split(",")
)

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 34, 40), "orange": (255, 140, 0), "yellow": (255, 226, 30), "green": (24, 150, 58),
    "blue": (30, 72, 220), "purple": (124, 30, 160), "pink": (255, 150, 200), "brown": (112, 62, 22),
    "black": (8, 8, 8), "white": (255, 255, 255),
}  # fmt: skip
GROUND: tuple[int, int, int] = (146, 168, 172)  # a mid grey-green that white, black and all hues stand off from


@functools.cache
def _atlas() -> np.ndarray:
    return np.asarray(Image.open(ICONS_PNG).convert("L"))


@functools.cache
def icon_mask(name: str) -> np.ndarray:
    """Ink of an icon, uint8 [24, 24], 255 = full; KeyError for a name the world does not have."""
    if name not in NAMES:
        raise KeyError(name)
    row, col = divmod(NAMES.index(name), ATLAS_COLUMNS)
    mask = _atlas()[row * ICON_PX : (row + 1) * ICON_PX, col * ICON_PX : (col + 1) * ICON_PX]
    mask.setflags(write=False)
    return mask


@dataclass(frozen=True, order=True)
class Placed:
    """One object: its name, colour, and the cell (0..5) of its upper left corner."""

    name: str
    color: str
    col: int
    row: int

    @property
    def quadrant(self) -> int:
        """0 upper left, 1 upper right, 2 lower left, 3 lower right."""
        return (self.row >= GRID // 2) * 2 + (self.col >= GRID // 2)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) in pixels, the far edge exclusive."""
        x, y = self.col * CELL_PX, self.row * CELL_PX
        return (x, y, x + ICON_PX, y + ICON_PX)


@dataclass(frozen=True)
class Scene:
    """What is in a picture; objects do not overlap."""

    objects: tuple[Placed, ...]


def render(scene: Scene) -> Image.Image:
    """The scene as a 64 x 64 RGB picture."""
    pixels = np.empty((PICTURE_PX, PICTURE_PX, 3), np.float32)
    pixels[:] = GROUND
    for thing in scene.objects:
        left, top, right, bottom = thing.box
        alpha = icon_mask(thing.name)[..., None] / np.float32(255)
        spot = pixels[top:bottom, left:right]
        spot += alpha * (np.asarray(COLORS[thing.color], np.float32) - spot)
    return Image.fromarray(np.round(pixels).astype(np.uint8))
