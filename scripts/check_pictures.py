"""Does the installed Pillow read pictures as every other does? The pictures and their digests are in tests/fixtures.

    python scripts/check_pictures.py           compare; exit status 1 where a picture differs
    python scripts/check_pictures.py --make    make the pictures and their digests anew

A digest is of the pixels as the image tokenizer gets them, at three resolutions. Lossy formats are decoded by libraries
that come with Pillow, so they are the likeliest to differ one day. The last number tells how often Pillow's own
scaling, which is not used, would give the same.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from twgi.tokenizer.image import open_picture, to_square

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "pictures"
DIGESTS = FOLDER / "digests.json"
RESOLUTIONS = (16, 37, 96)  # smaller than the pictures, about as large, larger


def digest(path: Path) -> str:
    """Of the pixels of a picture at every resolution."""
    picture = open_picture(path)
    squares = (to_square(picture, resolution).tobytes() for resolution in RESOLUTIONS)
    return hashlib.sha256(b"".join(squares)).hexdigest()


def differing() -> list[str]:
    """The names of the pictures that are not read as they should be."""
    digests = json.loads(DIGESTS.read_text())
    return [name for name, expected in digests.items() if digest(FOLDER / name) != expected]


def agreement(count: int = 200) -> int:
    """For how many of so many shapes Pillow's own scaling gives the pixels that ours does."""
    sides = np.random.default_rng(0).integers(20, 400, (count, 2))
    pictures = [Image.fromarray(_waves(int(width), int(height), 3)) for width, height in sides]
    return sum(_by_pillow(picture, 64).tobytes() == to_square(picture, 64).tobytes() for picture in pictures)


def _by_pillow(picture: Image.Image, side: int) -> Image.Image:
    width, height = (side * length // min(picture.size) for length in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    scaled = picture.resize((width, height), Image.Resampling.LANCZOS)
    return scaled.crop((left, top, left + side, top + side))


def _waves(width: int, height: int, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Slopes, hard edges and speckles: uint8 [height, width, channels]."""
    y, x, c = np.ogrid[:height, :width, :channels]
    slope = (x * (5 + c) + y * (3 + 2 * c)) % 256
    speckle = (x * 7919 + y * 104729 + c * 1299709) % 251
    return np.where((x // 9 + y // 7) % 2 == 0, slope, speckle).astype(np.uint8)


def _pictures() -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    """Name, picture and how it is saved."""
    rgb, rgba = Image.fromarray(_waves(53, 38, 3)), Image.fromarray(_waves(41, 59, 4))
    grey = Image.fromarray(_waves(50, 45, 1)[:, :, 0])
    palette, turned = rgb.quantize(16, method=Image.Quantize.MEDIANCUT), Image.Exif()
    turned[0x0112] = 8
    yield "rgb.png", rgb, {}
    yield "rgb_tall.png", Image.fromarray(_waves(45, 97, 3)), {}
    yield "rgb_dot.png", rgb.crop((3, 3, 4, 4)), {}
    yield "rgb_strip.png", Image.fromarray(_waves(96, 6, 3)), {}
    yield "rgb_key.png", rgb, {"transparency": rgb.getpixel((4, 5))}
    yield "rgba.png", rgba, {}
    yield "grey.png", grey, {}
    yield "grey_alpha.png", rgba.convert("LA"), {}
    yield "grey_16.png", Image.fromarray(_waves(40, 41, 1)[:, :, 0].astype(np.uint16) * 257 + 77), {}
    yield "bits.png", grey.convert("1", dither=Image.Dither.NONE), {}
    yield "palette.png", palette, {}
    yield "palette_alpha.png", palette, {"transparency": bytes(range(0, 256, 16))}
    yield "exif.png", rgb, {"exif": turned}
    yield "rgb.jpg", rgb, {"quality": 90}
    yield "grey.jpg", grey, {"quality": 60}
    yield "cmyk.jpg", Image.frombytes("CMYK", (40, 31), _waves(40, 31, 4).tobytes()), {"quality": 90}
    yield "exif.jpg", rgb, {"exif": turned, "quality": 90}
    yield "rgba_lossless.webp", rgba, {"lossless": True}
    yield "rgb.webp", rgb, {"quality": 80}


def make() -> None:
    """Write the pictures and their digests, with the Pillow that is installed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    kinds = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}
    digests = {}
    for name, picture, options in _pictures():
        buffer = BytesIO()
        picture.save(buffer, kinds[Path(name).suffix], **options)
        (FOLDER / name).write_bytes(buffer.getvalue())
        digests[name] = digest(FOLDER / name)
    DIGESTS.write_text(json.dumps(digests, indent=2) + "\n")


def main() -> int:
    """The exit status."""
    if sys.argv[1:] == ["--make"]:
        make()
    different = differing()
    said = f"differ: {', '.join(different)}" if different else "all as they should be"
    count = len(json.loads(DIGESTS.read_text()))
    print(f"Pillow {PIL.__version__}: {count} pictures, {said}; its own scaling is ours in {agreement()} of 200 shapes")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
