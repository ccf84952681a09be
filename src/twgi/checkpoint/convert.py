"""From one published layout to another, bit for bit. Weights go through memory piece by piece."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twgi.checkpoint import hf, meta
from twgi.checkpoint.layout import CONVERTED, Checkpoint
from twgi.checkpoint.save import LARGEST_FILE, json_files, write_groups, write_json_files
from twgi.checkpoint.tensors import MAX_JSON, Progress, read_json
from twgi.errors import CheckpointError, ConfigError
from twgi.files import check_new, read_bytes, write_json, write_whole, writing_whole
from twgi.tokenizer.text import TextTokenizer

SMALL_FILES = (
    "generation_config.json", "preprocessor_config.json", "processor_config.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
PLACEHOLDER, META_PLACEHOLDER = "<image>", "<reserved08707>"  # one token, under the name each layout has for it
LAYOUTS = ("hf", "meta")


def convert(
    source: Checkpoint,
    folder: Path,
    *,
    layout: str,
    dtype: torch.dtype | None = None,
    shards: int | None = None,
    largest_file: int = LARGEST_FILE,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write a checkpoint in another layout: `hf` (the fork's, with what image decoder there is) or `meta`.

    Returns what a user should know of the result. Raises `ConfigError` for shards that do not divide the model or a
    folder that is not empty, `CheckpointError` for Meta's layout without an image decoder.

    Args:
        dtype: of the language model; as stored when left out. The image part stays as it is.
        shards: of Meta's layout; when left out, the fewest in which all heads of a shard have one norm.
        largest_file: bytes of one file of the Hugging Face layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}; known are {', '.join(LAYOUTS)}")
    if shards is not None and layout != "meta":
        raise ConfigError("only Meta's layout has shards")
    check_new(folder, option="TARGET")
    if layout == "hf":
        _write_hf(source, folder, dtype, largest_file, progress)
        return ()
    return _write_meta(source, folder, dtype, shards)


def _write_hf(
    source: Checkpoint, folder: Path, dtype: torch.dtype | None, largest: int, progress: Progress | None
) -> None:
    """config.json comes last: a folder without it is no checkpoint, should this be broken off."""

    def read(names: Sequence[str]) -> dict[str, Tensor]:
        return {name: _cast(name, tensor, dtype) for name, tensor in source.tensors.read(names).items()}

    sizes = {name: entry.bytes for name, entry in source.tensors.stored.items()}
    write_groups(folder, sizes, read, largest, progress=progress)
    kept = dtype or source.tensors.stored["lm_head.weight"].dtype
    if source.layout == "hf":
        for name in SMALL_FILES:
            if (source.folder / name).is_file():
                write_whole(folder / name, read_bytes(source.folder / name, most=MAX_JSON))
        raw = read_json(source.folder / "config.json")
        raw.pop("dtype", None)
        config = raw | {"torch_dtype": str(kept).removeprefix("torch.")}
    else:
        text = _renamed(source.text, META_PLACEHOLDER, PLACEHOLDER)
        marks = {"eos_token_id": source.vocab.eos}
        files = json_files(
            source.config, source.vq_config, source.vocab, text, dtype=kept, marks=marks, published_pixels=True,
            generation={**marks, **CONVERTED},
        )  # fmt: skip
        config = files.pop("config.json") | {"bos_token_id": source.config_bos}
        write_json_files(folder, files, text)
    write_json(folder / "config.json", config)


def _write_meta(source: Checkpoint, folder: Path, dtype: torch.dtype | None, shards: int | None) -> tuple[str, ...]:
    if not source.draws:
        raise CheckpointError(
            f"{source.folder}: Meta's layout has an image decoder and this checkpoint none: give --vq"
        )
    models, tokenizer = folder / "models" / "7b", folder / "tokenizer"
    tensors = source.tensors.read(hf.shapes(source.config))
    count = meta.shards_needed(source.config, tensors) if shards is None else shards
    if count < 1 or not meta.divides(source.config, count):
        raise ConfigError(f"shards must divide the key/value heads and all sizes of the model, got {count}")
    parts = meta.split(source.config, {name: _cast(name, t, dtype) for name, t in tensors.items()}, count)
    names = ["consolidated.pth"] if count == 1 else [f"consolidated.{i:02d}.pth" for i in range(count)]
    for name, part in zip(names, parts, strict=True):
        _save_torch(part, models / name)
    params, outer = meta.write_params(source.config, count), {"model_parallel_size": count}
    for name, content in {"params.json": params, "consolidate_params.json": outer}.items():
        write_whole(models / name, json.dumps(content, indent=1).encode() + b"\n")
    _write_meta_tokenizer(source, tokenizer)
    _write_checklist(models)
    _write_checklist(tokenizer)
    if meta.one_norm_in_each(source.config, tensors, count):
        return ()
    return ("its heads have norms of their own: they are written one by one, which Meta's own programs do not read",)


def _write_meta_tokenizer(source: Checkpoint, folder: Path) -> None:
    names = [name for name in source.tensors.stored if name.startswith(hf.VQ_PREFIX)]
    image = source.tensors.read(names)
    _save_torch({"state_dict": {n.removeprefix(hf.VQ_PREFIX): t for n, t in image.items()}}, folder / "vqgan.ckpt")
    write_whole(folder / "vqgan.yaml", meta.write_vqgan(source.vq_config).encode())
    text = _renamed(source.text, PLACEHOLDER, META_PLACEHOLDER)
    write_whole(folder / "text_tokenizer.json", text.bpe.to_str().encode())


def _renamed(text: TextTokenizer, old: str, new: str) -> TextTokenizer:
    """The same tokenizer with one token under another name."""
    content = json.loads(text.bpe.to_str())
    vocabulary: dict[str, int] = content["model"]["vocab"]
    content["model"]["vocab"] = {new if name == old else name: token for name, token in vocabulary.items()}
    for token in content["added_tokens"]:
        token["content"] = new if token["content"] == old else token["content"]
    return TextTokenizer.from_json(json.dumps(content))


def _cast(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    keep = dtype is None or name.startswith(hf.VQ_PREFIX)
    return (tensor if keep else tensor.to(dtype)).contiguous()


def _save_torch(content: Any, file: Path) -> None:
    with writing_whole(file) as opened:
        try:
            torch.save(content, opened)
        except RuntimeError as error:  # torch's own words for a full disk
            raise OSError(errno.EIO, f"the file could not be written ({error})") from None


def _write_checklist(folder: Path) -> None:
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as data:
            lines.append(f"{hashlib.file_digest(data, 'md5').hexdigest()}  {path.name}\n")
    write_whole(folder / "checklist.chk", "".join(lines).encode())
