"""Write checkpoints: what was trained here, and what was published in another layout."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from twgi.checkpoint import hf
from twgi.checkpoint.layout import OURS, REFERENCE
from twgi.checkpoint.tensors import INDEX, WEIGHTS
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
        folder.mkdir(parents=True, exist_ok=True)
        write_json_files(folder, files, tokenizer.text)
    stored = _Stored(model.config, vq, tensor or model.state_dict().__getitem__, dtype)
    write_groups(folder, stored.sizes(), stored.read, largest_file, writes=writes)


class _Stored:
    """The tensors of a checkpoint under the file's names, made when they are asked for."""

    def __init__(
        self, config: TransformerConfig, vq: VQModel, tensor: Callable[[str], Tensor], dtype: torch.dtype
    ) -> None:
        self.config, self.tensor, self.dtype = config, tensor, dtype
        self.image = {hf.VQ_PREFIX + name: value for name, value in vq.state_dict().items()}

    def sizes(self) -> dict[str, int]:
        """Bytes of each; the parts of one of our tensors come one after the other."""
        of_file = hf.shapes(self.config)
        shapes = {name: of_file[name] for parts in hf.names(self.config).values() for name in parts}
        shapes |= {name: tuple(value.shape) for name, value in self.image.items()}
        return {name: math.prod(shape) * self.dtype.itemsize for name, shape in shapes.items()}

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        wanted, out = set(names), {}
        for ours, parts in hf.names(self.config).items():
            if wanted.isdisjoint(parts):
                continue
            for name, part in hf.split(self.config, ours, self.tensor(ours)).items():
                if name in wanted:
                    out[name] = self._cast(part)
        return out | {name: self._cast(value) for name, value in self.image.items() if name in wanted}

    def _cast(self, tensor: Tensor) -> Tensor:
        """On the CPU, in memory of its own: what it is a part of may go."""
        return tensor.detach().to("cpu", self.dtype, copy=True).contiguous()


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
            "torch_dtype": str(dtype).removeprefix("torch."), "vocabulary_map": text.names,
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
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.bpe.to_str(), encoding="utf-8")


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, which is there as a whole or not at all."""
    unfinished = file.with_name(file.name + ".part")
    save_file(dict(tensors), unfinished, metadata={"format": "pt"})
    unfinished.chmod(0o644)  # safetensors writes files that only their owner can read
    unfinished.replace(file)


def write_groups(
    folder: Path,
    sizes: Mapping[str, int],
    read: Callable[[Sequence[str]], Mapping[str, Tensor]],
    largest: int,
    *,
    writes: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the tensors that `sizes` (bytes) names, one file's worth at a time; an index if there are several files."""
    groups = list(grouped(sizes, largest))
    done, total = 0, sum(sizes.values())
    for file, group in zip(file_names(len(groups)), groups, strict=True):
        tensors = read(group)
        if writes:
            write_tensors(folder / file, tensors)
        del tensors
        done += sum(sizes[name] for name in group)
        if progress is not None:
            progress(done, total)
    if writes and len(groups) > 1:
        names = zip(file_names(len(groups)), groups, strict=True)
        write_index(folder, {name: file for file, group in names for name in group}, total)


def grouped(sizes: Mapping[str, int], largest: int) -> Iterator[list[str]]:
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


def file_names(count: int) -> list[str]:
    """The names of the files of a checkpoint in so many pieces."""
    return [WEIGHTS] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def write_index(folder: Path, places: Mapping[str, str], total: int) -> None:
    """Say which tensor is in which file."""
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
