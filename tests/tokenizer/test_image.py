"""A picture gives the same pixels everywhere, and no file can do harm."""

import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from twgi.errors import CheckpointError, ImageError
from twgi.model.config import VQConfig
from twgi.model.vqvae import VQModel
from twgi.tokenizer.image import MAX_BYTES, ImageTokenizer, flatten, open_picture, read_picture, to_square

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


class Identity(torch.nn.Module):
    """An image model of 1 x 1 pixels whose code is the red value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels_BCHW))
        return torch.round((pixels_BCHW[:, 0].flatten(1) + 1) * 127.5).long()

    def decode(self, codes_BN: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(codes_BN))
        return (codes_BN[:, None, :, None] / 127.5 - 1).expand(-1, 3, -1, -1)


def tokenizer(resolution: int = 1, *, reference: bool = False) -> ImageTokenizer:
    return ImageTokenizer(cast(Any, Identity()), resolution, reference)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_picture_of_the_right_size_is_not_changed() -> None:
    picture = Image.fromarray(RAMP)
    assert to_square(picture, 4).tobytes() == picture.tobytes()


def test_pixels_come_back_exactly() -> None:
    every = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    ours = tokenizer(16)
    assert ours.picture(ours.pixels(every)).tobytes() == every.tobytes()
    assert (ours.pixels(every).min(), ours.pixels(every).max()) == (-1, 1)


def test_what_is_out_of_range_is_clipped() -> None:
    pixels = np.array([-7, 0, 7], dtype=np.float32).reshape(3, 1, 1)
    assert tokenizer().picture(pixels).getpixel((0, 0)) == (0, 128, 255)


def test_pictures_go_through_the_model_one_at_a_time() -> None:
    pictures = [Image.new("RGB", (3, 2), (red, 0, 0)) for red in (0, 7, 255)]
    ours = tokenizer()
    codes = ours.encode(pictures)
    assert codes == [[0], [7], [255]]
    assert [picture.getpixel((0, 0)) for picture in ours.decode(codes)] == [(0,) * 3, (7,) * 3, (255,) * 3]
    assert cast(Any, ours.vq).batches == [1] * 6


@pytest.mark.parametrize("size", [(1, 1), (3, 48), (48, 3), (64, 63)])
def test_any_shape_becomes_the_middle_square(size: tuple[int, int]) -> None:
    assert to_square(Image.new("RGB", size, (9, 8, 7)), 8).getcolors() == [(64, (9, 8, 7))]


def test_the_middle_of_the_long_side_is_kept() -> None:
    strip = Image.new("RGB", (24, 8), "red")
    strip.paste((0, 0, 255), (8, 0, 16, 8))
    assert to_square(strip, 8).getcolors() == [(64, (0, 0, 255))]


@pytest.mark.parametrize(
    ("picture", "rgb"),
    [
        (Image.new("RGBA", (2, 2), (10, 20, 30, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 51)), (204, 204, 204)),
        (Image.new("LA", (2, 2), (10, 0)), (255, 255, 255)),
        (Image.new("L", (2, 2), 10), (10, 10, 10)),
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("CMYK", (2, 2), (0, 0, 0, 255)), (0, 0, 0)),
        (Image.new("I;16", (2, 2), 0x1234), (0x12,) * 3),
        (Image.new("P", (2, 2), 0).convert("RGB").quantize(4), (0, 0, 0)),
    ],
)
def test_any_mode_becomes_rgb_on_white(picture: Image.Image, rgb: tuple[int, int, int]) -> None:
    assert flatten(picture).getpixel((1, 1)) == rgb


def test_files_of_every_kind_are_read() -> None:
    picture = Image.new("RGB", (9, 5), (200, 100, 50))
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 100}), ("WEBP", {"lossless": True})):
        read = read_picture(encoded(picture, kind, **options), name="it")
        assert (read.mode, read.size) == ("RGB", (9, 5))
        assert np.abs(np.asarray(read).astype(int) - np.asarray(picture)).max() <= 2
    assert read_picture(encoded(picture.convert("CMYK"), "JPEG"), name="it").mode == "RGB"
    palette = picture.quantize(2)
    clear = encoded(palette, transparency=palette.getpixel((0, 0)))
    assert read_picture(clear, name="it").getpixel((0, 0)) == (255, 255, 255)
    sixteen = encoded(Image.new("I;16", (3, 3), 0xABCD))
    assert read_picture(sixteen, name="it").getpixel((0, 0)) == (0xAB,) * 3


def test_the_camera_says_which_way_is_up() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (9, 5)), "JPEG", exif=exif)
    assert read_picture(data, name="it").size == (5, 9)


def test_broken_exif_says_nothing() -> None:
    data = encoded(Image.new("RGB", (9, 5)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert read_picture(data, name="it").size == (9, 5)


def png_of(bits: int, color: int, row: bytes, width: int, transparent: bytes) -> bytes:
    """One row of pixels with one transparent value, as few programs but all specifications have it."""
    header = width.to_bytes(4) + (1).to_bytes(4) + bytes([bits, color, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    body = b"".join(len(d).to_bytes(4) + n + d + zlib.crc32(n + d).to_bytes(4) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("bits", "color", "row", "transparent", "second"),
    [
        (16, 0, "1234 abcd", "1234", (0xAB,) * 3),
        (16, 2, "123456789abc 000100020003", "123456789abc", (0, 0, 0)),
        (8, 2, "010203 040506", "000100020003", (4, 5, 6)),
        (8, 0, "01 02", "0001", (2, 2, 2)),
        (4, 0, "1e", "0001", (0xEE,) * 3),
        (2, 0, "60", "0001", (0xAA,) * 3),
    ],
)
def test_the_transparent_value_of_a_file_of_any_depth_is_white(
    bits: int, color: int, row: str, transparent: str, second: tuple[int, ...]
) -> None:
    data = png_of(bits, color, bytes.fromhex(row), 2, bytes.fromhex(transparent))
    read = read_picture(data, name="it")
    assert [read.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), second]


def test_of_a_cameras_file_with_several_pictures_the_first_is_read() -> None:
    first, preview = Image.new("RGB", (32, 16), (200, 30, 30)), Image.new("RGB", (8, 4), (0, 0, 255))
    data = encoded(first, "MPO", save_all=True, append_images=[preview])
    read = read_picture(data, name="DSC0001.JPG")
    assert read.size == (32, 16)
    assert np.abs(np.asarray(read).astype(int) - (200, 30, 30)).max() <= 3


def test_bands_of_a_large_picture_are_the_picture() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (600, 3, 4), dtype=np.uint8)
    alpha = rgba[:, :, 3:] / 255.0
    expected = ((1 - alpha) * 255 + alpha * rgba[:, :, :3]).astype(np.uint8)
    assert np.array_equal(np.asarray(flatten(Image.fromarray(rgba))), expected)


def test_a_picture_that_memory_cannot_hold_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(picture: Image.Image) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr("twgi.tokenizer.image.flatten", full)
    with pytest.raises(ImageError, match="it: too little memory for 9 x 5 pixels"):
        read_picture(encoded(Image.new("RGB", (9, 5))), name="it")


def test_values_that_are_no_numbers_are_no_picture() -> None:
    with pytest.raises(CheckpointError, match="no numbers"):
        tokenizer().picture(np.full((3, 2, 2), np.nan, dtype=np.float32))


def test_a_pipe_is_no_picture_and_nothing_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(ImageError, match=r"cannot be read .*not a regular file"):
            open_picture(path)


@given(st.sampled_from([("PNG", {}), ("JPEG", {}), ("MPO", {}), ("WEBP", {})]), st.data())
def test_whatever_is_damaged_only_user_errors_come_out(kind: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    whole = bytearray(encoded(Image.fromarray(RAMP), kind[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        read_picture(bytes(whole[: data.draw(st.integers(0, len(whole)))]), name="it")


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be a huge picture, and unpacks to as much of it as is quick to pack here."""
    rows = zlib.compress(b"\0" * min((width // 8 + 2) * height, 2**24), 9)
    chunks = [(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + bytes([1, 0, 0, 0, 0])), (b"IDAT", rows)]
    body = b"".join(len(d).to_bytes(4) + n + d + zlib.crc32(n + d).to_bytes(4) for n, d in [*chunks, (b"IEND", b"")])
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    "size", [(9000, 9000), (40_000, 40_000), (12_000, 9000), (1, 65_000), (4096, 4096), (10, 4000)]
)
def test_a_picture_too_large_is_refused_before_it_is_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def decoded(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", decoded)
    with pytest.raises(ImageError, match=r"big.png: .*(smaller|strip)"):
        read_picture(bomb(*size), name="big.png")
    assert not recwarn.list


def _animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a picture"),
        (b"just some words\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (encoded(Image.new("RGB", (4, 4)), "TIFF"), "not a picture"),
        (encoded(Image.new("RGB", (4, 4)), "GIF"), "not a picture"),
        (encoded(Image.effect_noise((64, 64), 80), "JPEG")[:700], "damaged"),
        (encoded(Image.effect_noise((64, 64), 80))[:700], "damaged"),
        (_animated("PNG"), "animation"),
        (_animated("WEBP"), "animation"),
        (b"\0" * (MAX_BYTES + 1), "more than 32 MiB"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad file.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        open_picture(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["absent.png", ".", "nul\0.png"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"no such image file|cannot be read"):
        open_picture(tmp_path / name)


def test_pixels_of_files_are_those_of_the_reference(shared: Callable[[str], Path]) -> None:
    arrays = load_file(shared("golden/cases.safetensors"))
    files = json.loads(shared("golden/cases.json").read_text())["b"]["files"]
    for name, case in files.items():
        pixels = tokenizer(32, reference=True).pixels(open_picture(shared(f"golden/{name}")))
        np.testing.assert_allclose(pixels, arrays[f"{case['key']}.pixel_values"], atol=1e-6, err_msg=name)


def test_pictures_of_pixels_are_those_of_the_reference(shared: Callable[[str], Path]) -> None:
    arrays = load_file(shared("golden/cases.safetensors"))
    for pixels, expected in zip(arrays["c.pixels"], arrays["c.uint8"], strict=True):
        picture = tokenizer(32, reference=True).picture(pixels)
        np.testing.assert_array_equal(np.asarray(picture).transpose(2, 0, 1), expected)


def test_a_real_image_model_reads_and_draws_whole_pictures() -> None:
    torch.manual_seed(0)
    config = VQConfig(resolution=16, base_channels=32, channel_multiplier=(1, 1), num_res_blocks=1, num_embeddings=7)
    ours = ImageTokenizer(VQModel(config).eval(), 16)
    (codes,) = ours.encode([Image.fromarray(RAMP)])
    assert len(codes) == 64
    assert set(codes) <= set(range(7))
    (picture,) = ours.decode([codes])
    assert (picture.mode, picture.size) == ("RGB", (16, 16))
    assert ours.encode([Image.new("RGB", (9, 9)), Image.fromarray(RAMP)])[1] == codes
