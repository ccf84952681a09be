"""Scaling is ours to the bit, and the pixels of a file are the same under every Pillow."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from twgi.tokenizer.image import open_picture, to_square
from twgi.tokenizer.resample import Pixels, lanczos

FIXTURES = Path(__file__).parents[1] / "fixtures" / "pictures"
DIGESTS: dict[str, str] = json.loads((FIXTURES / "digests.json").read_text())
RESOLUTIONS = (16, 37, 96)
SIDE = st.integers(min_value=1, max_value=90)


@st.composite
def pictures(draw: st.DrawFn) -> Pixels:
    """Speckles of any shape, some of them black and white, which overshoots most."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = generator.integers(0, 256, (draw(SIDE), draw(SIDE), 3), dtype=np.uint8)
    return np.where(pixels > 127, 255, 0).astype(np.uint8) if draw(st.booleans()) else pixels


def by_pillow(pixels: Pixels, width: int, height: int) -> Pixels:
    """Rows first, then columns: in one call, versions of Pillow differ in the order."""
    picture = Image.fromarray(pixels)
    for size in ((width, picture.height), (width, height)):
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture)


@settings(max_examples=300)
@given(pixels=pictures(), width=SIDE, height=SIDE)
def test_scaling_is_pillows_to_the_bit(pixels: Pixels, width: int, height: int) -> None:
    np.testing.assert_array_equal(lanczos(pixels, width, height), by_pillow(pixels, width, height))


@pytest.mark.parametrize("size", [(700, 500), (333, 1000), (1500, 1100), (37, 640)])
def test_scaling_of_large_pictures_is_pillows_too(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    np.testing.assert_array_equal(lanczos(pixels, 300, 257), by_pillow(pixels, 300, 257))


@given(pixels=pictures(), width=SIDE, height=SIDE, data=st.data())
def test_a_part_is_what_the_whole_has_there(pixels: Pixels, width: int, height: int, data: st.DataObject) -> None:
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    whole = lanczos(pixels, width, height)
    np.testing.assert_array_equal(
        lanczos(pixels, width, height, (left, top, right, bottom)), whole[top:bottom, left:right]
    )


@given(pixels=pictures())
def test_a_picture_of_the_right_size_stays_as_it_is(pixels: Pixels) -> None:
    height, width, _ = pixels.shape
    np.testing.assert_array_equal(lanczos(pixels, width, height), pixels)


@pytest.mark.parametrize("name", DIGESTS)
def test_a_file_has_the_same_pixels_under_every_pillow(name: str) -> None:
    picture = open_picture(FIXTURES / name)
    squares = b"".join(to_square(picture, resolution).tobytes() for resolution in RESOLUTIONS)
    assert hashlib.sha256(squares).hexdigest() == DIGESTS[name]


def test_every_picture_has_a_digest() -> None:
    assert {path.name for path in FIXTURES.iterdir()} == {*DIGESTS, "digests.json"}
    assert DIGESTS["rgba_lossless.webp"] == DIGESTS["rgba.png"] != DIGESTS["rgb.png"]
