"""Write checkpoints: what was trained here, and what was published in another layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from twgi.checkpoint import hf
from twgi.checkpoint.layout import OURS, REFERENCE
from twgi.checkpoint.tensors import INDEX, WEIGHTS, Progress
from twgi.errors import RunError
from twgi.files import replacing, write_json, write_whole, writing
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.vocab import Vocab

LARGEST_FILE = 5 * 10**9  # bytes, as is usual on the hub


def save(
    folder: str | Path,
    *,
    model: Transformer,
    vq: VQModel,
    tokenizer: MultimodalTokenizer,
    dtype: torch.dtype = torch.float32,
    defaults: Mapping[str, Any] | None = None,
    tensor: Callable[[str], Tensor] | None = None,
    writes: bool = True,
    largest_file: int = LARGEST_FILE,
) -> None:
    """Write a folder that `load`, and the published code's fork of transformers, can read; weights stored as `dtype`.

    Beside the model, memory holds one file's tensors at most.

    Args:
        defaults: this checkpoint's settings for thinking (guidance, temperature, ...).
        tensor: gives one of the decoder's tensors by its name; where the model's own are not what is to be written.
        writes: False reads every tensor and writes nothing: for processes that only help another to gather them.
        largest_file: bytes; more are written to several files with an index.
    """
    folder, vocab = Path(folder), tokenizer.vocab
    marks = {"bos_token_id": vocab.bos, "eos_token_id": vocab.eos, "pad_token_id": vocab.pad}
    files = json_files(
        model.config, vq.config, vocab, tokenizer.text, dtype=dtype, marks=marks,
        published_pixels=tokenizer.image is not None and tokenizer.image.reference,
        generation={**marks, "do_sample": True, "twgi": dict(defaults or {})},
    )  # fmt: skip
    if writes:
        write_json_files(folder, files, tokenizer.text)
    sizes, read = _stored(model.config, vq, tensor or model.state_dict().__getitem__, dtype)
    write_groups(folder, sizes, read, largest_file, writes=writes)


def _stored(
    config: TransformerConfig, vq: VQModel, tensor: Callable[[str], Tensor], dtype: torch.dtype
) -> tuple[dict[str, int], Callable[[Sequence[str]], dict[str, Tensor]]]:
    """Bytes of each tensor under its name in the file, and what makes those asked for. Parts of one stay together."""
    table, shapes = hf.names(config), hf.shapes(config)
    image = {hf.VQ_PREFIX + name: value for name, value in vq.state_dict().items()}

    def cast(value: Tensor) -> Tensor:
        """On the CPU, in memory of its own: what it is a part of may go."""
        return value.detach().to("cpu", dtype, copy=True).contiguous()

    def read(names: Sequence[str]) -> dict[str, Tensor]:
        wanted, out = set(names), dict[str, Tensor]()
        for ours in (ours for ours, parts in table.items() if not wanted.isdisjoint(parts)):
            parts = hf.split(config, ours, tensor(ours))
            out |= {name: cast(part) for name, part in parts.items() if name in wanted}
        return out | {name: cast(value) for name, value in image.items() if name in wanted}

    order = {name: shapes[name] for parts in table.values() for name in parts}
    order |= {name: tuple(value.shape) for name, value in image.items()}
    return {name: math.prod(shape) * dtype.itemsize for name, shape in order.items()}, read


def json_files(
    config: TransformerConfig,
    vq_config: VQConfig,
    vocab: Vocab,
    text: TextTokenizer,
    *,
    dtype: torch.dtype,
    marks: Mapping[str, int],
    published_pixels: bool,
    generation: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """The small files of a Hugging Face folder: name -> content."""
    side, by_id = vq_config.resolution, {token: name for name, token in text.names.items()}
    return {
        "config.json": {
            **hf.write_config(config, vq_config), **marks,
            "boi_token_id": vocab.boi, "eoi_token_id": vocab.eoi, "image_token_id": vocab.placeholder,
            "torch_dtype": str(dtype).removeprefix("torch."), "vocabulary_map": dict(sorted(text.names.items())),
        },
        "generation_config.json": dict(generation),
        "preprocessor_config.json": {
            "image_processor_type": "ChameleonImageProcessor", "processor_class": "ChameleonProcessor",
            "do_convert_rgb": True, "do_resize": True, "size": {"shortest_edge": side}, "resample": 1,
            "do_center_crop": True, "crop_size": {"height": side, "width": side}, "do_rescale": True,
            "rescale_factor": REFERENCE if published_pixels else OURS, "do_normalize": True,
            "image_mean": [1.0] * 3, "image_std": [1.0] * 3,
        },
        "processor_config.json": {
            "processor_class": "ChameleonProcessor", "image_seq_length": vocab.tokens_per_image,
            "image_token": by_id[vocab.placeholder],
        },
        "special_tokens_map.json": {
            "bos_token": by_id[vocab.bos], "eos_token": by_id[vocab.eos], "pad_token": by_id[vocab.pad],
            "unk_token": by_id[vocab.unk], "sep_token": by_id[vocab.separator],
        },
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False},
    }  # fmt: skip


def write_json_files(folder: Path, files: Mapping[str, Mapping[str, Any]], text: TextTokenizer) -> None:
    """Write them, and the text tokenizer."""
    for name, content in files.items():
        write_json(folder / name, content)
    write_whole(folder / "tokenizer.json", text.bpe.to_str().encode())


@contextmanager
def writing_tensors(path: Path) -> Iterator[None]:
    """What safetensors raises where it cannot write becomes `RunError`, as `OSError` does."""
    try:
        with writing(path):
            yield
    except SafetensorError as error:
        raise RunError(f"cannot write to {path}: {error}") from error


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, which is there as a whole or not at all; what a killed process left beside it goes."""
    with writing_tensors(file), replacing(file) as unfinished:
        for leftover in file.parent.glob(".tmp*"):  # safetensors has temporary names of its own: .tmpAbCdEf
            leftover.unlink()
        save_file(dict(tensors), unfinished, metadata={"format": "pt"})
        unfinished.chmod(0o644)  # safetensors writes files that only their owner can read


def write_groups(
    folder: Path,
    sizes: Mapping[str, int],
    read: Callable[[Sequence[str]], Mapping[str, Tensor]],
    largest: int,
    *,
    writes: bool = True,
    progress: Progress | None = None,
) -> None:
    """Write the tensors that `sizes` (bytes) names, one file's worth at a time; an index if there are several files.

    Weights that were there before, in files of other names, are deleted first.
    """
    groups = list(_grouped(sizes, largest))
    done, total, count = 0, sum(sizes.values()), len(groups)
    files = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)] if count > 1 else [WEIGHTS]
    if writes:
        with writing(folder):
            for old in [folder / INDEX, folder / WEIGHTS, *folder.glob("model-*-of-*.safetensors")]:
                old.unlink(missing_ok=True)
    for file, group in zip(files, groups, strict=True):
        tensors = read(group)
        if writes:
            write_tensors(folder / file, tensors)
        del tensors
        done += sum(sizes[name] for name in group)
        if progress is not None:
            progress(done, total)
    if writes and count > 1:
        places = {name: file for file, group in zip(files, groups, strict=True) for name in group}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})


def _grouped(sizes: Mapping[str, int], largest: int) -> Iterator[list[str]]:
    """Names in their order, cut into groups of at most so many bytes (a larger tensor is alone)."""
    group: list[str] = []
    total = 0
    for name, size in sizes.items():
        if group and total + size > largest:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    yield group
