"""Golden cases (b) and (h): pictures to pixels to tokens, text, records, segmentation, decoding."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from twgi.checkpoint.load import Loaded
from twgi.data.encode import PUBLISHED_KEYS, Encoded, RowEncoder
from twgi.tokenizer.image import ImageTokenizer, open_picture
from twgi.tokenizer.published import PublishedTokenizer

Cases = dict[str, Any]
Arrays = dict[str, Tensor]

EXACT = 1e-6
CLOSE = 1e-4
LOGITS = 5e-4
GAP = 1e-3


@pytest.fixture(scope="module")
def image(loaded: Loaded) -> ImageTokenizer:
    assert loaded.tokenizer.image is not None
    return loaded.tokenizer.image


@pytest.fixture(scope="module")
def published(loaded: Loaded) -> PublishedTokenizer:
    return PublishedTokenizer(loaded.tokenizer)


def differs(picture: Image.Image, other: Image.Image) -> tuple[int, float]:
    """The largest step between two pictures, and the share of values that differ."""
    assert picture.size == other.size
    one, two = (torch.tensor(list(image.convert("RGB").tobytes()), dtype=torch.int16) for image in (picture, other))
    steps = (one - two).abs()
    return int(steps.max()), float((steps > 0).float().mean())


def gap(image: ImageTokenizer, pixels: Tensor) -> float:
    """How much farther the second-nearest code is than the nearest, squared, where that is least."""
    latents, codebook = image.vq.latents(pixels).double(), image.vq.quantize.embedding.weight.double()
    two = torch.cdist(latents.flatten(0, 1), codebook).square().topk(2, largest=False).values
    return float((two[:, 1] - two[:, 0]).min())


def test_pictures_are_read_as_latents_codes_and_tokens(
    loaded: Loaded, image: ImageTokenizer, cases: Cases, arrays: Arrays
) -> None:
    latents = image.vq.latents(arrays["b.pixel_values"])
    expected = arrays["b.latents"].flatten(2).transpose(1, 2)
    torch.testing.assert_close(latents, expected, atol=CLOSE, rtol=0)
    codes = image.vq.encode(arrays["b.pixel_values"])
    assert codes.equal(arrays["b.codebook_indices"])
    tokens = [[loaded.tokenizer.vocab.token(code) for code in row] for row in codes.tolist()]
    assert tokens == arrays["b.image_tokens"].tolist()
    least = cases["b"]["min_gap_between_nearest_two_squared_distances"]
    assert gap(image, arrays["b.pixel_values"]) == pytest.approx(least, abs=GAP, rel=GAP)
    assert arrays["b.image_tokens"].unique().numel() == cases["b"]["distinct_tokens"]


def test_files_become_the_same_pixels_and_tokens(
    loaded: Loaded, image: ImageTokenizer, golden: Path, cases: Cases, arrays: Arrays
) -> None:
    for name, case in cases["b"]["files"].items():
        with Image.open(golden / name) as stored:
            assert (stored.mode, stored.height, stored.width) == (case["mode"], case["height"], case["width"])
        picture = open_picture(golden / name)
        pixels = torch.from_numpy(image.pixels(picture))
        assert str(pixels.dtype) == case["pixel_dtype"]
        torch.testing.assert_close(pixels, arrays[f"{case['key']}.pixel_values"], atol=EXACT, rtol=0, msg=name)
        assert gap(image, pixels[None]) == pytest.approx(case["min_gap"], abs=GAP, rel=GAP), name
        tokens = loaded.tokenizer.encode([picture])[1:-1]
        assert tokens == arrays[f"{case['key']}.image_tokens"].tolist(), name


def test_every_array_of_files_belongs_to_a_file(cases: Cases, arrays: Arrays) -> None:
    of_files = {
        f"{case['key']}.{what}" for case in cases["b"]["files"].values() for what in ("pixel_values", "image_tokens")
    }
    assert {key for key in arrays if key.startswith("b.file.")} == of_files


def test_text_with_pictures_is_the_published_prompt(
    loaded: Loaded, published: PublishedTokenizer, golden: Path, cases: Cases, arrays: Arrays
) -> None:
    case = cases["b"]["processor_text"]
    pictures = [open_picture(golden / name) for name in case["images"]]
    filled = case["input_ids_after_image_tokens"]
    assert published.prompt(case["text"], chat=False) == case["input_ids_completion"]
    assert published.prompt(case["text"]) == case["input_ids_chat"]
    assert published.prompt(case["text"], pictures, chat=False) == filled
    assert loaded.tokenizer.encode_prompt(case["text"], pictures) == [*filled, loaded.tokenizer.vocab.separator]
    logits = loaded.model.logits(loaded.model(torch.tensor([filled]))[0, -1:])[0]
    torch.testing.assert_close(logits, arrays["b.processor_text.last_logits"], atol=LOGITS, rtol=0)


def test_records_become_the_published_rows(published: PublishedTokenizer, golden: Path, cases: Cases) -> None:
    for record in cases["h"]["records"]:
        pictures = [open_picture(golden / name) for name in record.get("images", [])]
        assert published.record(record["prompt"], record["response"], pictures) == record["tokens"], record["prompt"]


def test_a_file_of_records_becomes_the_published_rows(
    loaded: Loaded, golden: Path, cases: Cases, tmp_path: Path
) -> None:
    lines = [{key: record[key] for key in PUBLISHED_KEYS if key in record} for record in cases["h"]["records"]]
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcomes = list(RowEncoder(loaded.tokenizer, images=golden, published=True).files([file]))
    assert [o.published for o in outcomes if isinstance(o, Encoded)] == cases["h"]["records"]


def test_text_becomes_the_published_ids_and_is_read_back(
    loaded: Loaded, published: PublishedTokenizer, cases: Cases
) -> None:
    for case in cases["h"]["encode"]:
        ids = published.encode(case["text"])
        assert ids == case["ids_plain"], case["text"]
        assert [loaded.tokenizer.vocab.bos, *ids] == case["ids_with_specials"]
        assert published.text_of(ids, skip_special=False) == case["decoded"]
        assert published.text_of(ids) == case["decoded_skip_special"]


def test_ours_encodes_text_alike_where_it_names_no_special_token(loaded: Loaded, cases: Cases) -> None:
    vocab = loaded.tokenizer.vocab
    plain = [case for case in cases["h"]["encode"] if all(vocab.is_text(token) for token in case["ids_plain"])]
    assert plain
    for case in plain:
        assert loaded.tokenizer.encode([case["text"]]) == case["ids_plain"]


def test_token_lists_are_cut_as_published(published: PublishedTokenizer, cases: Cases) -> None:
    for case in cases["h"]["segments"]:
        assert [list(segment) for segment in published.segments(case["tokens"])] == case["segments"], case["name"]


def test_token_lists_are_decoded_as_published(published: PublishedTokenizer, golden: Path, cases: Cases) -> None:
    tokens = {case["name"]: case["tokens"] for case in cases["h"]["segments"]}
    assert [case["name"] for case in cases["h"]["decode"]] == list(tokens)
    compared = set()
    for case in cases["h"]["decode"]:
        pieces = published.decode(tokens[case["name"]])
        text, pictures = "".join(piece.text for piece in pieces), [piece.picture for piece in pieces if piece.is_image]
        paths = [None if picture is None else f"{case['name']}/image_{k}.png" for k, picture in enumerate(pictures)]
        assert (text, paths) == (case["text"], case["image_paths"]), case["name"]
        for path, picture in zip(paths, pictures, strict=True):
            file = golden / "images" / f"detok_{path}".replace("/", "_")
            if picture is not None and file.exists():
                compared.add(file)
                largest, share = differs(picture, Image.open(file))
                assert largest <= 1, file.name
                assert share <= 0.005, file.name
    assert compared == set((golden / "images").glob("detok_*"))
    assert compared
