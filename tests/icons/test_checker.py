"""The checker is exact on rendered pictures, tolerant of a decoder's softness, and blind to half-drawn things."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from twgi.icons import tasks, world
from twgi.icons.checker import Found, find, find_many

COLORS = tuple(world.COLORS)
CELL, SIDE = world.CELL_PX, world.ICON_PX


def random_places(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """`count` places (column, row) anywhere on the grid whose boxes do not overlap."""
    while True:
        places: list[tuple[int, int]] = []
        for _ in range(30):
            col, row = (int(cell) for cell in rng.integers(0, 6, size=2))
            if all(abs(col - c) >= 3 or abs(row - r) >= 3 for c, r in places):
                places.append((col, row))
            if len(places) == count:
                return places


def random_scene(rng: np.random.Generator, count: int) -> world.Scene:
    names, colors, places = rng.choice(world.NAMES, count), rng.choice(COLORS, count), random_places(rng, count)
    return world.Scene(
        tuple(world.Placed(str(n), str(c), col, row) for n, c, (col, row) in zip(names, colors, places, strict=True))
    )


def truth(scene: world.Scene) -> set[tuple[str, str, tuple[int, int, int, int]]]:
    boxes = {o: (o.col * CELL, o.row * CELL, o.col * CELL + SIDE, o.row * CELL + SIDE) for o in scene.objects}
    return {(o.name, o.color, boxes[o]) for o in scene.objects}


def seen(found: list[Found]) -> set[tuple[str, str, tuple[int, int, int, int]]]:
    return {(f.name, f.color, f.box) for f in found}


def wrong(scenes: list[world.Scene], change: Callable[[Image.Image], Image.Image] = lambda picture: picture) -> int:
    answers = find_many([change(world.render(scene)) for scene in scenes])
    return sum(truth(scene) != seen(found) for scene, found in zip(scenes, answers, strict=True))


def alone(mask: np.ndarray, color: str = "red") -> Image.Image:
    """A picture that holds this ink (24 x 24, 0..255) and nothing else."""
    pixels = np.full((64, 64, 3), world.GROUND, np.float32)
    ink = mask[..., None] / np.float32(255)
    pixels[16:40, 16:40] += ink * (np.asarray(world.COLORS[color], np.float32) - pixels[16:40, 16:40])
    return Image.fromarray(np.round(pixels).astype(np.uint8))


def test_every_icon_in_every_colour_is_found_where_it_stands() -> None:
    rng = np.random.default_rng(0)
    scenes = [
        world.Scene((world.Placed(name, color, *(int(cell) for cell in rng.integers(0, 6, size=2))),))
        for name in world.NAMES
        for color in COLORS
    ]
    assert wrong(scenes) == 0


@pytest.mark.parametrize("task", tasks.TASKS)
def test_rendered_scenes_of_every_task_are_read_without_error(task: str) -> None:
    rng = np.random.default_rng(list(tasks.TASKS).index(task))
    scenes = [tasks.make_scene(tasks.TASKS[task](rng), rng) for _ in range(260)]
    assert wrong(scenes) == 0


def test_things_need_not_stand_in_quadrants() -> None:
    rng = np.random.default_rng(1)
    assert wrong([random_scene(rng, 1 + index % 4) for index in range(200)]) == 0


def test_plain_ground_holds_nothing() -> None:
    assert find(Image.new("RGB", (64, 64), world.GROUND)) == []


def test_a_picture_is_judged_apart_from_the_others() -> None:
    rng = np.random.default_rng(2)
    pictures = [world.render(random_scene(rng, 2)) for _ in range(5)]
    assert find_many(pictures) == [find(picture) for picture in pictures]
    assert find_many([]) == []


def test_a_decoders_softness_is_tolerated() -> None:
    rng = np.random.default_rng(3)
    scenes = [random_scene(rng, 3) for _ in range(60)]
    assert wrong(scenes, lambda picture: picture.filter(ImageFilter.GaussianBlur(1.0))) == 0


def test_noise_and_a_tint_are_tolerated() -> None:
    rng = np.random.default_rng(4)

    def spoil(picture: Image.Image) -> Image.Image:
        soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
        tinted = soft * rng.uniform(0.92, 1.08, 3) + rng.normal(0, 12, soft.shape)
        return Image.fromarray(tinted.clip(0, 255).astype(np.uint8))

    assert wrong([random_scene(rng, 3) for _ in range(60)], spoil) == 0


def test_jpeg_blocks_are_tolerated() -> None:
    def squeeze(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=60)
        return Image.open(file)

    rng = np.random.default_rng(5)
    assert wrong([random_scene(rng, 2) for _ in range(60)], squeeze) <= 1


def test_an_icon_with_a_third_missing_is_not_reported() -> None:
    pictures = []
    for name in world.NAMES:
        for side in range(4):
            turned = np.rot90(world.icon_mask(name), side).astype(np.float32)
            kept = turned.copy()
            kept[:, :8] = 0
            if np.square(kept).sum() < 0.7 * np.square(turned).sum():
                pictures.append(alone(np.rot90(kept, -side)))
    reported = [found for found in find_many(pictures) if found]
    assert len(pictures) > 100
    assert len(reported) <= len(pictures) // 50


def test_two_icons_drawn_half_and_half_are_neither() -> None:
    rng = np.random.default_rng(6)
    pairs = [rng.choice(world.NAMES, 2, replace=False) for _ in range(150)]
    halves = [np.vstack([world.icon_mask(a)[:12], world.icon_mask(b)[12:]]) for a, b in pairs]
    assert sum(bool(found) for found in find_many([alone(mask) for mask in halves])) <= 7


def test_a_small_disc_or_a_full_square_is_no_icon() -> None:
    y, x = np.mgrid[:24, :24] - 11.5
    blobs = [np.where(x**2 + y**2 < radius**2, 255, 0) for radius in (5, 6, 7, 8)]
    blobs.append(np.full((24, 24), 255))
    assert [found for found in find_many([alone(mask) for mask in blobs]) if found] == []


def test_a_faint_icon_is_not_reported() -> None:
    assert find(alone(world.icon_mask("horse") * 0.4)) == []


def test_an_icon_of_two_colours_is_not_reported() -> None:
    upper, lower = world.icon_mask("horse").copy(), world.icon_mask("horse").copy()
    upper[12:], lower[:12] = 0, 0
    red = np.asarray(alone(upper, "yellow"), np.int16) - np.asarray(world.GROUND)
    blue = np.asarray(alone(lower, "blue"), np.int16) - np.asarray(world.GROUND)
    both = Image.fromarray((red + blue + np.asarray(world.GROUND)).astype(np.uint8))
    assert find(both) == []


def test_a_spoiled_neighbour_does_not_hide_an_icon() -> None:
    scene = world.Scene((world.Placed("horse", "blue", 0, 0), world.Placed("couch", "red", 3, 0)))
    pixels = np.asarray(world.render(scene)).copy()
    pixels[8:24, 24:48] = world.GROUND
    assert [(f.name, f.color) for f in find(Image.fromarray(pixels))] == [("horse", "blue")]
