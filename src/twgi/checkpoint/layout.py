"""Which layout a folder has, found by its content, and the folder as one description that loads nothing yet.

| layout | by |
|---|---|
| `hf` | `config.json`: Hugging Face, as the published code's fork saves it or as upstream does (no image decoder) |
| `meta` | `params.json` beside `consolidated*.pth`, and `tokenizer/` two folders up |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from twgi.checkpoint import hf, meta
from twgi.checkpoint.presets import Preset, resolve
from twgi.checkpoint.tensors import (
    Joined,
    Selected,
    Tensors,
    TorchFile,
    WithoutInit,
    check_tensors,
    open_tensors,
    read_json,
)
from twgi.errors import CheckpointError, TwgiError
from twgi.files import short
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.vqvae import VQModel
from twgi.tokenizer.text import TextTokenizer
from twgi.vocab import SPECIAL_NAMES, Vocab

OURS = 2 / 255  # pixels are x * 2 / 255 - 1
REFERENCE = 0.0078  # what the published preprocessor takes for it
PUBLISHED_BOS = 1  # what a config of the published code's fork says where it does not say bos_token_id
CONVERTED = {"do_sample": True, "temperature": 0.7, "top_p": 0.7}  # generation settings the published converter writes
DECODER = (hf.VQ_PREFIX + "decoder.", hf.VQ_PREFIX + "post_quant_conv.")  # what only drawing needs


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that is understood and not loaded."""

    layout: Literal["hf", "meta"]
    folder: Path
    config: TransformerConfig
    vq_config: VQConfig
    tensors: Tensors  # under Hugging Face's names, all of them expected and of the right shape
    text: TextTokenizer
    vocab: Vocab
    config_bos: int  # the id that its config takes for bos, which need not be the tokenizer's
    published_pixels: bool  # scaled as in the published code, not by 2 / 255
    generation: Mapping[str, Any]  # generation_config.json
    name: str = ""
    draws: bool = False  # it has an image decoder
    preset: Preset | None = None


def open_checkpoint(name_or_path: str | Path, *, vq: str | Path | None = None) -> Checkpoint:
    """Read all but the weights of a preset or folder; `vq` is a file or folder that an image tokenizer is taken from.

    Raises `CheckpointError` where there is none, or something in it is missing, unexpected, or not supported.
    """
    name, folder, preset = resolve(name_or_path)
    with naming(folder):
        shards = find_meta(folder)
        opened = _open_hf(folder) if shards is None else _open_meta(folder, shards)
        tensors: Tensors = opened.tensors
        if vq is not None:
            supplied = _read_vq_file(Path(vq))
            _check_codebook(Path(vq), tensors, supplied)
            tensors = Joined(tensors, supplied)
        draws = _check(folder, opened.config, opened.vq_config, tensors)
        return replace(opened, name=name, preset=preset, tensors=tensors, draws=draws)


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Every mistake found inside is one of the checkpoint, and says in which folder."""
    try:
        yield
    except TwgiError as error:
        where = "" if str(folder) in str(error) else f"{folder}: "
        raise CheckpointError(f"{where}{error}") from error


def _read_vq_file(path: Path) -> Tensors:
    """An image tokenizer of its own (`vqgan.ckpt` or safetensors), or of a folder in either layout that has one."""
    original = next((p for p in (path / "vqgan.ckpt", path / "tokenizer/vqgan.ckpt") if p.is_file()), path)
    tensors = open_tensors(original, inside="state_dict")
    prefix = "" if any(name.startswith(hf.VQ_PREFIX) for name in tensors.stored) else hf.VQ_PREFIX
    names = {prefix + name: name for name in tensors.stored if (prefix + name).startswith(hf.VQ_PREFIX)}
    if not any(name.startswith(DECODER[0]) for name in names):
        raise CheckpointError(f"{path}: no image decoder in it; the original vqgan.ckpt has one")
    return Selected(tensors, {new: old for new, old in names.items() if not hf.is_harmless(new)})


def _check_codebook(vq: Path, tensors: Tensors, supplied: Tensors) -> None:
    """An image tokenizer from elsewhere must have the codes that the model was trained with."""
    name = hf.VQ_PREFIX + "quantize.embedding.weight"
    if name not in tensors.stored or name not in supplied.stored:
        return
    ours, theirs = tensors.read([name])[name], supplied.read([name])[name]
    coarser = min(ours.dtype, theirs.dtype, key=lambda dtype: dtype.itemsize)
    if ours.shape != theirs.shape or not torch.equal(ours.to(coarser), theirs.to(coarser)):
        raise CheckpointError(f"{vq}: this image tokenizer has another codebook than the checkpoint")


def find_meta(folder: Path) -> Path | None:
    """The folder of Meta's shards: this one, or the only one in its `models`; None for a Hugging Face folder."""
    if (folder / "config.json").is_file():
        return None
    found = [folder] if (folder / "params.json").is_file() else sorted(folder.glob("models/*/params.json"))
    places = [path if path.is_dir() else path.parent for path in found]
    if len(places) > 1:
        raise CheckpointError(f"{folder}: several models ({', '.join(p.name for p in places)}); name the folder of one")
    if not places:
        raise CheckpointError(f"{folder}: no config.json and no params.json here, so it is not a checkpoint")
    return places[0]


def _open_hf(folder: Path) -> Checkpoint:
    raw = read_json(folder / "config.json")
    config, vq_config = hf.read_config(raw)
    text = TextTokenizer.from_file(folder / "tokenizer.json")
    bos = raw.get("bos_token_id", PUBLISHED_BOS)
    if type(bos) is not int or not 0 <= bos < config.vocab_size:
        raise CheckpointError(f"config.json: bos_token_id must be an id of the vocabulary, got {short(bos)}")
    return Checkpoint(
        layout="hf", folder=folder, config=config, vq_config=vq_config, config_bos=bos, text=text,
        tensors=hf.HfTensors(config, open_tensors(folder)),
        vocab=_vocab(raw.get("vocabulary_map") or text.names, text, config, vq_config),
        published_pixels=_published_pixels(folder, vq_config.resolution),
        generation=read_json(folder / "generation_config.json", optional=True),
    )  # fmt: skip


def _open_meta(folder: Path, models: Path) -> Checkpoint:
    files = sorted(models.glob("consolidated*.pth"))
    if not files:
        raise CheckpointError(f"{models}: params.json without consolidated.pth or consolidated.00.pth")
    expected = [f"consolidated.{number:02d}.pth" for number in range(len(files))]
    if [file.name for file in files] not in (expected, ["consolidated.pth"]):
        found = ", ".join(file.name for file in files)
        raise CheckpointError(f"{models}: shards must be consolidated.pth or {expected[0]} on, found {found}")
    shards = [TorchFile(file) for file in files]
    config = meta.read_params(models, shards)
    tokenizer = models.parent.parent / "tokenizer"
    vq_config = meta.read_vqgan(tokenizer / "vqgan.yaml")
    vq = _read_vq_file(tokenizer / "vqgan.ckpt")
    text = TextTokenizer.from_file(tokenizer / "text_tokenizer.json")
    return Checkpoint(
        layout="meta", folder=folder, config=config, vq_config=vq_config, config_bos=PUBLISHED_BOS, text=text,
        tensors=Joined(meta.MetaTensors(config, shards), vq), vocab=_vocab(text.names, text, config, vq_config),
        published_pixels=True, generation=CONVERTED,
    )  # fmt: skip


def _check(folder: Path, config: TransformerConfig, vq_config: VQConfig, tensors: Tensors) -> bool:
    """Whether it draws. Every tensor is there and expected; only the image decoder may be missing as a whole."""
    with torch.device("meta"), WithoutInit():
        image = {hf.VQ_PREFIX + n: tuple(t.shape) for n, t in VQModel(vq_config).state_dict().items()}
    draws = any(name.startswith(DECODER[0]) for name in tensors.stored)
    found = {name: entry.shape for name, entry in tensors.stored.items() if not hf.is_harmless(name)}
    if not draws:
        image = {name: shape for name, shape in image.items() if not name.startswith(DECODER)}
        found = {name: shape for name, shape in found.items() if not name.startswith(DECODER)}
    where = tensors.files[0] if len(tensors.files) == 1 else folder
    check_tensors(where, hf.shapes(config) | image, found, told_by="the config")
    return draws


def _vocab(names: Any, text: TextTokenizer, config: TransformerConfig, vq_config: VQConfig) -> Vocab:
    if not isinstance(names, dict) or not all(type(token) is int for token in names.values()):
        raise CheckpointError("config.json: vocabulary_map must map names to ids")
    vocab = Vocab.from_names(
        names, tokens_per_image=vq_config.tokens_per_image, size=config.vocab_size, special=text.special_ids
    )
    _check_names(names, text.names)
    if len(vocab.image_tokens) != vq_config.num_embeddings:
        counts = f"{len(vocab.image_tokens)} image tokens, the codebook {vq_config.num_embeddings} codes"
        raise CheckpointError(f"the vocabulary has {counts}")
    return vocab


def _check_names(names: Mapping[str, int], tokenizer_names: Mapping[str, int]) -> None:
    """config.json's map and tokenizer.json must agree: one says what ids mean, the other writes them."""
    named = set(names.values())
    aliases = {name for group in SPECIAL_NAMES.values() for name in group}
    for name, token in tokenizer_names.items():
        if names.get(name, token) != token:
            ids = f"{names[name]} in config.json and {token} in tokenizer.json"
            raise CheckpointError(f"token {short(name)} is id {ids}")
        if token not in named or (name not in names and name not in aliases):
            raise CheckpointError(
                f"config.json: vocabulary_map has no {short(name)} (id {token}), which tokenizer.json has"
            )


def _published_pixels(folder: Path, resolution: int) -> bool:
    """Whether pixels are scaled as the published code does; other preprocessing than the two known ones is refused.

    transformers 5 says it inside of processor_config.json.
    """
    inside = read_json(folder / "processor_config.json", optional=True).get("image_processor")
    said = {"preprocessor_config.json": read_json(folder / "preprocessor_config.json", optional=True)}
    if inside is not None:
        said["processor_config.json"] = inside
    scales = {name: _pixel_scale(folder / name, raw, resolution) for name, raw in said.items() if raw}
    if len(set(scales.values())) > 1:
        raise CheckpointError(f"{folder}: {' and '.join(scales)} scale pixels differently; remove one of them")
    return REFERENCE in scales.values()


def _pixel_scale(file: Path, raw: Any, resolution: int) -> float:
    if not isinstance(raw, dict):
        raise CheckpointError(f"{file}: image_processor must be a group of settings, got {short(raw)}")
    known = {
        "do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True, "resample": 1,
        "image_mean": [1.0] * 3, "image_std": [1.0] * 3,
        "size": {"shortest_edge": resolution}, "crop_size": {"height": resolution, "width": resolution},
    }  # fmt: skip
    wrong = next((key for key, value in known.items() if raw.get(key, value) != value), None)
    if wrong is not None:
        raise CheckpointError(f"{file}: {wrong} = {short(raw[wrong])} is not {known[wrong]!r}")
    factor = raw.get("rescale_factor", OURS)
    for scale in (OURS, REFERENCE):
        if isinstance(factor, float) and abs(factor - scale) < 1e-7:
            return scale
    raise CheckpointError(f"{file}: rescale_factor {short(factor)} is neither 2/255 nor {REFERENCE}")
