"""Picture <-> pixels <-> codes. Every step is ours and pinned, so that a picture gives the same codes everywhere.

Files from users are opened with care: only PNG, JPEG and WebP, and nothing is decoded before its size is known.
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, JpegImagePlugin

from twgi.errors import CheckpointError, ImageError, RefusedImageError, is_out_of_memory
from twgi.files import open_regular
from twgi.tokenizer.resample import Pixels, lanczos

if TYPE_CHECKING:
    from twgi.model.vqvae import VQModel

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 32 * 2**20
MAX_SIDE = 4096
MAX_PIXELS = 16_000_000
MAX_ASPECT = 16  # a longer strip would be scaled up to a huge picture before its middle is cut out
_ORIENTATION = 0x0112  # in EXIF
_GREY_STEPS = {"L;2": 85, "L;4": 17}  # of 2 and 4 bits in those of 8
_BAND = 256  # rows converted at a time, so that a large picture is never held in wider numbers


def open_picture(path: str | Path) -> Image.Image:
    """The picture of a file as upright RGB, transparency on white. Raises `ImageError` that names the file."""
    try:
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such image file") from error
    except (OSError, ValueError) as error:
        raise RefusedImageError(f"{path}: cannot be read ({_reason(error)})") from error
    return read_picture(data, name=str(path))


def read_picture(data: bytes, *, name: str, across: int = 1) -> Image.Image:
    """As `open_picture`, of a file's bytes; `name` is what an error calls it. So many pictures `across` and as many
    down may be in it, each of the size that is allowed to one."""
    if len(data) > MAX_BYTES * across**2:
        raise RefusedImageError(f"{name}: more than {MAX_BYTES * across**2 // 2**20} MiB; give a smaller picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged metadata, which does not matter here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = _opened(data, name)
        _check_size(picture, name, across)
        try:
            _scale_transparency(picture)
            picture.load()
            return flatten(_upright(picture))
        except Exception as error:
            if is_out_of_memory(error):
                size = f"{picture.width} x {picture.height} pixels"
                raise RefusedImageError(f"{name}: too little memory for {size}") from None
            raise ImageError(f"{name}: a damaged picture ({_reason(error)})") from error


def _opened(data: bytes, name: str) -> Image.Image:
    """The picture with its size known and nothing decoded; of a camera's JPEG with several, the first."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return JpegImagePlugin.JpegImageFile(BytesIO(data))  # Image.open makes an animation of several
        return Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedImageError(
            f"{name}: more than {MAX_PIXELS // 10**6} megapixels; give a smaller picture"
        ) from error
    except Exception as error:  # a hostile file may raise anything
        raise ImageError(f"{name}: not a picture; give a PNG, JPEG or WebP file") from error


def _check_size(picture: Image.Image, name: str, across: int) -> None:
    (width, height), side, pixels = picture.size, MAX_SIDE * across, MAX_PIXELS * across**2
    if getattr(picture, "is_animated", False):
        raise ImageError(f"{name}: an animation; give a still picture")
    if max(width, height) > side or width * height > pixels:
        limit = f"{side} pixels a side and {pixels // 10**6} megapixels"
        raise RefusedImageError(f"{name}: {width} x {height} pixels; at most {limit} are read, make it smaller")
    if max(width, height) > MAX_ASPECT * min(width, height):
        strip = "too long a strip; cut out the part that matters"
        raise RefusedImageError(f"{name}: {width} x {height} pixels is {strip}")


def _scale_transparency(picture: Image.Image) -> None:
    """The transparent value of a PNG, which is told in as many bits as the file has, in those of the pixels."""
    tiles = getattr(picture, "tile", None)
    value, raw = picture.info.get("transparency"), str(tiles[0][3]) if tiles else ""
    if raw == "RGB;16B" and isinstance(value, tuple):
        picture.info["transparency"] = tuple(part >> 8 for part in value)
    elif raw in _GREY_STEPS and isinstance(value, int):
        picture.info["transparency"] = value * _GREY_STEPS[raw]


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return picture if picture.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(picture)
    except Exception:  # EXIF that cannot be read says nothing about which way is up
        return picture


def flatten(picture: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency blended on white and cut to integers, 16 bits cut to 8."""
    to_rgb: Callable[[Image.Image], Pixels]
    if picture.mode.startswith("I"):
        to_rgb = _from_16_bits
    elif picture.mode == "CMYK":
        to_rgb = _from_cmyk
    elif picture.has_transparency_data:
        to_rgb = _on_white
    else:
        return picture if type(picture) is Image.Image and picture.mode == "RGB" else picture.convert("RGB")
    flat = Image.new("RGB", picture.size)
    for top in range(0, picture.height, _BAND):
        band = picture.crop((0, top, picture.width, min(top + _BAND, picture.height)))
        flat.paste(Image.fromarray(to_rgb(band)), (0, top))
    return flat


def _from_16_bits(picture: Image.Image) -> Pixels:
    """Grey of 16 bits, whatever a version of Pillow calls them."""
    values_HW = np.asarray(picture).astype(np.uint32)
    bytes_HW = (values_HW >> 8).clip(0, 255).astype(np.uint8)
    if "transparency" in picture.info:
        bytes_HW[values_HW == picture.info["transparency"]] = 255
    return np.repeat(bytes_HW[:, :, None], 3, axis=2)


def _from_cmyk(picture: Image.Image) -> Pixels:
    """White less black, less that much of each ink; products of two bytes are divided by 255 and rounded."""
    inks = np.asarray(picture).astype(np.uint32)
    white = 255 - inks[:, :, 3:]
    product = inks[:, :, :3] * white + 128
    return (white - ((product + (product >> 8)) >> 8)).astype(np.uint8)


def _on_white(picture: Image.Image) -> Pixels:
    rgba = np.asarray(picture.convert("RGBA"))
    alpha = rgba[:, :, 3:] / 255.0
    return ((1 - alpha) * 255 + alpha * rgba[:, :, :3]).astype(np.uint8)


def to_square(picture: Image.Image, resolution: int) -> Image.Image:
    """RGB of resolution x resolution pixels: the short side scaled to it (Lanczos), the middle of the long side kept.

    A picture of just that size is returned unchanged.
    """
    rgb = flatten(picture)
    short = min(rgb.size)
    width, height = (resolution * side // short for side in rgb.size)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    box = (left, top, left + resolution, top + resolution)
    return Image.fromarray(lanczos(np.asarray(rgb), width, height, box))


@dataclass(frozen=True)
class ImageTokenizer:
    """Pictures <-> codebook indices in raster order, through the image part of a checkpoint.

    Pixels enter the model as x / 127.5 - 1 and leave it rounded. With `reference`, as in the published code: times
    0.0078 (which is not 2 / 255) minus 1, and cut to integers on the way out.
    """

    vq: "VQModel"
    resolution: int
    reference: bool = False

    @property
    def draws(self) -> bool:
        """Whether there is an image decoder."""
        return self.vq.draws

    @cached_property
    def sha256(self) -> str:
        """Of all that a picture's codes depend on, and what they mean: encoder, codebook, scale of the pixels.

        Weights count as bfloat16, so that the files of a model in several widths are one image tokenizer.
        """
        import torch

        found = hashlib.sha256(f"{self.resolution} {self.reference}".encode())
        for name, value in self.vq.state_dict().items():
            if not name.startswith(("decoder.", "post_quant_conv.")):
                found.update(name.encode())
                found.update(value.to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
        return found.hexdigest()

    def encode(self, pictures: Sequence[Image.Image]) -> list[list[int]]:
        """Codes of each picture. One at a time, so that no picture's codes depend on its neighbours."""
        import torch

        weight = next(self.vq.parameters())
        with torch.inference_mode():
            each_1CHW = (torch.from_numpy(self.pixels(picture))[None] for picture in pictures)
            return [self.vq.encode(one_1CHW.to(weight.device, weight.dtype))[0].tolist() for one_1CHW in each_1CHW]

    def decode(self, codes: Sequence[Sequence[int]]) -> list[Image.Image]:
        """The RGB picture, resolution x resolution, of each row of codes. One at a time, for the same reason."""
        import torch

        device = next(self.vq.parameters()).device
        with torch.inference_mode():
            each_1N = (torch.tensor([list(row)], dtype=torch.long, device=device) for row in codes)
            return [self.picture(self.vq.decode(one_1N)[0].float().cpu().numpy()) for one_1N in each_1N]

    def pixels(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        """[3, resolution, resolution] in about -1..1, as the image encoder reads it."""
        values_HWC = np.asarray(to_square(picture, self.resolution), dtype=np.float32)
        scaled = values_HWC * np.float32(0.0078) if self.reference else values_HWC / np.float32(127.5)
        return np.ascontiguousarray((scaled - np.float32(1)).transpose(2, 0, 1))

    def picture(self, pixels: npt.NDArray[np.float32]) -> Image.Image:
        """The picture of [3, height, width] values in about -1..1; what is beyond is clipped."""
        if not np.isfinite(pixels).all():
            raise CheckpointError("the image decoder gives values that are no numbers: its weights are damaged")
        shifted = pixels.astype(np.float32) + np.float32(1)
        values = shifted / np.float32(0.0078) if self.reference else np.rint(shifted * np.float32(127.5))
        return Image.fromarray(values.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
