"""Logits, hidden states, codes and pixels of the reference (cases a, b and c), from every checkpoint of the set."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from twgi.checkpoint.load import Loaded, load
from twgi.decoding.cache import KVCache
from twgi.decoding.pages import Pages, Row
from twgi.model.transformer import Transformer

LOGITS, HIDDEN, PIXELS = 5e-4, 1e-4, 1e-4  # the set's own tolerances, float32


def close(got: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


def real_rows(arrays: dict[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(ids, logits, last hidden states) of each row of case (a), without its padding on the left."""
    mask = arrays["a.attention_mask"]
    assert mask.equal(mask.cummax(dim=1).values), "padding is on the left"
    starts = (mask == 0).sum(1).tolist()
    rows = zip(starts, arrays["a.input_ids"], arrays["a.logits"], arrays["a.last_hidden_state"], strict=True)
    return [(ids[start:], logits[start:], states[start:]) for start, ids, logits, states in rows]


def cached(model: Transformer, rows: list[Tensor]) -> list[Tensor]:
    pages, opened = Pages(16 * sum(len(ids) // 16 + 1 for ids in rows)), [Row(ids.tolist(), len(ids)) for ids in rows]
    for row in opened:
        pages.open(row)
    step = KVCache(model.config, pages).step([(row, len(row.ids)) for row in opened])
    return list(model.forward_cached(torch.cat(rows), step).split([len(ids) for ids in rows]))


def test_logits_and_hidden_states(twins: list[Path], arrays: dict[str, Tensor], cases: dict[str, Any]) -> None:
    rows = real_rows(arrays)
    assert [len(ids) for ids, _, _ in rows] == cases["a"]["row_lengths"]
    for folder in twins:
        model = load(folder).model
        packed = cached(model, [ids for ids, _, _ in rows])
        for (ids, logits, states), hidden in zip(rows, packed, strict=True):
            for got in (hidden, model(ids[None])[0]):
                close(got, states, HIDDEN)
                close(model.logits(got), logits, LOGITS)


def test_the_input_of_every_layer(loaded: Loaded, arrays: dict[str, Tensor]) -> None:
    seen: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, args: seen.append(args[0][0])) for block in loaded.model.blocks]
    last = loaded.model(arrays["a.input_ids"][:1])[0]
    for hook in hooks:
        hook.remove()
    assert arrays["a.attention_mask"][0].all()
    close(torch.stack([*seen, last]), arrays["a.row0_hidden_states"], HIDDEN)


def test_codes_of_pixels(twins: list[Path], arrays: dict[str, Tensor]) -> None:
    latents = arrays["b.latents"].flatten(2).transpose(1, 2)
    for folder in twins:
        tokenizer = load(folder).tokenizer
        assert tokenizer.image is not None
        close(tokenizer.image.vq.latents(arrays["b.pixel_values"]), latents, PIXELS)
        codes = tokenizer.image.vq.encode(arrays["b.pixel_values"])
        assert codes.equal(arrays["b.codebook_indices"])
        assert [[tokenizer.vocab.token(c) for c in row] for row in codes.tolist()] == arrays["b.image_tokens"].tolist()


def test_pixels_of_codes(twins: list[Path], arrays: dict[str, Tensor]) -> None:
    for folder in twins:
        tokenizer = load(folder).tokenizer
        image = tokenizer.image
        assert image is not None
        if not image.vq.draws:
            continue
        codes = [[tokenizer.vocab.code(token) for token in row] for row in arrays["c.image_tokens"].tolist()]
        close(image.vq.decode(torch.tensor(codes)), arrays["c.pixels"], PIXELS)
        for picture, expected in zip(image.decode(codes), arrays["c.uint8"].numpy(), strict=True):
            difference = np.abs(np.asarray(picture).transpose(2, 0, 1).astype(int) - expected.astype(int))
            assert difference.max() <= 1
            assert (difference > 0).mean() <= 0.005


def test_the_way_from_pixels_to_pictures(golden: Path, loaded: Loaded, arrays: dict[str, Tensor]) -> None:
    image = loaded.tokenizer.image
    assert image is not None
    for number, (pixels, expected) in enumerate(
        zip(arrays["c.pixels"].numpy(), arrays["c.uint8"].numpy(), strict=True)
    ):
        assert np.array_equal(np.asarray(image.picture(pixels)).transpose(2, 0, 1), expected)
        with Image.open(golden / "images" / f"decoded_{number}.png") as picture:
            assert np.array_equal(np.asarray(picture).transpose(2, 0, 1), expected)
