"""A small checkpoint of the published code's fork, and what the fork computed with it (see shared/golden/README.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from twgi.checkpoint.load import Loaded, load
from twgi.model.kv_cache import KVPool
from twgi.tokenizer.image import ImageTokenizer, open_picture

Shared = Callable[[str], Path]


@pytest.fixture
def loaded(shared: Shared) -> Loaded:
    return load(shared("golden/checkpoint_fork"))


@pytest.fixture
def cases(shared: Shared) -> dict[str, Tensor]:
    return load_file(shared("golden/cases.safetensors"))


def image_part(loaded: Loaded) -> ImageTokenizer:
    assert loaded.tokenizer.image is not None
    return loaded.tokenizer.image


def real_rows(cases: dict[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(ids, logits, last hidden states) of each row of case (a), without its padding on the left."""
    starts = (cases["a.attention_mask"] == 0).sum(1).tolist()
    rows = zip(starts, cases["a.input_ids"], cases["a.logits"], cases["a.last_hidden_state"], strict=True)
    return [(ids[start:], logits[start:], states[start:]) for start, ids, logits, states in rows]


def test_logits_and_hidden_states(loaded: Loaded, cases: dict[str, Tensor]) -> None:
    rows = real_rows(cases)
    pool = KVPool(loaded.model.config, rows=len(rows), max_len=128)
    step = pool.step([(pool.alloc(), len(ids)) for ids, _, _ in rows])
    cached = loaded.model.forward_cached(torch.cat([ids for ids, _, _ in rows]), step)
    for (ids, logits, states), hidden in zip(rows, cached.split([len(ids) for ids, _, _ in rows]), strict=True):
        for got in (hidden, loaded.model(ids[None])[0]):
            torch.testing.assert_close(got, states, atol=1e-4, rtol=0)
            torch.testing.assert_close(loaded.model.logits(got), logits, atol=5e-4, rtol=0)


def test_codes_of_pixels(loaded: Loaded, cases: dict[str, Tensor]) -> None:
    vq, vocab = image_part(loaded).vq, loaded.tokenizer.vocab
    latents = cases["b.latents"].flatten(2).transpose(1, 2)
    torch.testing.assert_close(vq.latents(cases["b.pixel_values"]), latents, atol=1e-4, rtol=0)
    codes = vq.encode(cases["b.pixel_values"])
    assert codes.equal(cases["b.codebook_indices"])
    assert [[vocab.token(code) for code in row] for row in codes.tolist()] == cases["b.image_tokens"].tolist()


def test_pixels_of_codes(loaded: Loaded, cases: dict[str, Tensor]) -> None:
    image, vocab = image_part(loaded), loaded.tokenizer.vocab
    codes = [[vocab.code(token) for token in row] for row in cases["c.image_tokens"].tolist()]
    torch.testing.assert_close(image.vq.decode(torch.tensor(codes)), cases["c.pixels"], atol=1e-4, rtol=0)
    for picture, expected in zip(image.decode(codes), cases["c.uint8"], strict=True):
        drawn = torch.tensor(list(picture.tobytes()), dtype=torch.int16).view(*picture.size[::-1], 3).permute(2, 0, 1)
        difference = (drawn - expected).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() <= 0.005


def test_codes_of_files(loaded: Loaded, cases: dict[str, Tensor], shared: Shared) -> None:
    image, vocab = image_part(loaded), loaded.tokenizer.vocab
    keys = [key for key in cases if key.startswith("b.file.") and key.endswith(".image_tokens")]
    assert keys
    for key in keys:
        picture = open_picture(shared(f"golden/images/{key.split('.')[2]}.png"))
        assert [vocab.token(code) for code in image.encode([picture])[0]] == cases[key].tolist(), key


def test_codes_go_by_the_names_of_ids(loaded: Loaded, shared: Shared) -> None:
    listed: dict[str, Any] = json.loads(shared("golden/cases.json").read_text())["codebook_index_of_vocabulary_id"]
    vocab = loaded.tokenizer.vocab
    assert [vocab.code(listed["first_id"] + place) for place in range(len(listed["indices"]))] == listed["indices"]
