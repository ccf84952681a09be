"""Load a checkpoint, or say what it is: strict about every tensor, and nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twgi.checkpoint import hf
from twgi.checkpoint.layout import Checkpoint, naming, open_checkpoint
from twgi.checkpoint.memory import check_memory, known_device, sizes
from twgi.checkpoint.quantize import quantize_block, require_torchao
from twgi.checkpoint.tensors import Progress, WithoutInit
from twgi.decoding.params import SamplingParams
from twgi.errors import CheckpointError, ConfigError
from twgi.files import open_regular, short
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.vocab import Vocab

PACK_LIMIT = 10**9  # parameters; a packed copy of a larger model would not fit beside it
SILENT = 0.05  # a head whose image rows are this much shorter than its text rows never draws
SAMPLED = 256  # rows of each that are looked at for it
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What a checkpoint says of itself.

    `sha256` is that of the weights file; of several, of their hashes and names. `defaults` are its own settings for
    thinking, `generation` is its `generation_config.json`, `config_bos` the id its config takes for bos.
    """

    name: str
    sha256: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)
    config_bos: int = 1
    remarks: tuple[str, ...] = ()  # what a user should know before relying on it


@dataclass(frozen=True, kw_only=True)
class Loaded(ModelDescription):
    """A checkpoint, ready to draw."""

    model: Transformer
    tokenizer: MultimodalTokenizer
    folder: Path


def load(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    threads: int = 1,
    *,
    vq: str | Path | None = None,
    context: int | None = None,
    int8: bool = False,
    pack: bool = True,
    each_block: Callable[[nn.Module], object] | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Read a preset or folder: the decoder as `dtype` (float32 on a CPU, bfloat16 elsewhere), the image part float32.

    Weights go from the file to their place piece by piece, so that memory never holds them twice. On a CPU, torch is
    set to `threads` threads: small models are not faster with more, and the last bits of a result, hence now and then
    a token, depend on the number of threads.

    Args:
        vq: a file or folder to take the image tokenizer from, for a checkpoint without an image decoder.
        context: positions, where the checkpoint's own number is not wanted.
        int8: keep the matrices of the blocks as 8-bit integers (extra `quant`); embedding, head and image part stay.
        pack: lay the matrices of a small model out for decoding on a CPU, beside the plain ones; not for training.
        each_block: is given each block once it is filled, before the next one is read, and may change where it lies.

    Raises `CheckpointError` with the name of the file for whatever is missing, unexpected or not supported, and
    `ConfigError` for a device that is not there, or has too little memory.
    """
    device = known_device(device)
    if device.type == "cpu":
        torch.set_num_threads(threads)
    checkpoint = _longer(open_checkpoint(name_or_path, vq=vq), context)
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    check_memory(checkpoint, device, dtype, int8=int8)
    if int8:
        require_torchao()
        each_block = quantize_block
    with naming(checkpoint.folder):
        model = _read_decoder(checkpoint, device, dtype, each_block, progress)
        tokenizer = _read_tokenizer(checkpoint, device)
        said = _said(checkpoint) | {"remarks": tuple(_remarks(checkpoint, model))}
    small = sum(weight.numel() for weight in model.parameters()) < PACK_LIMIT
    if pack and each_block is None and small and device.type == "cpu" and dtype == torch.float32:
        model.pack()
    return Loaded(model=model, tokenizer=tokenizer, folder=checkpoint.folder, **said)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What reads and writes a checkpoint's ids, without its language model; `context` is that model's positions."""

    tokenizer: MultimodalTokenizer
    name: str
    context: int


def load_reader(
    name_or_path: str | Path, device: str | torch.device = "cpu", *, vq: str | Path | None = None
) -> Reader:
    """The text and image tokenizers alone. Raises as `load` does."""
    checkpoint = open_checkpoint(name_or_path, vq=vq)
    with naming(checkpoint.folder):
        tokenizer = _read_tokenizer(checkpoint, known_device(device))
    return Reader(tokenizer=tokenizer, name=checkpoint.name, context=checkpoint.config.max_positions)


def identify(name_or_path: str | Path, *, vq: str | Path | None = None) -> ModelDescription:
    """What a checkpoint says of itself; no weights are loaded. Raises as `load` does."""
    checkpoint = open_checkpoint(name_or_path, vq=vq)
    with naming(checkpoint.folder):
        return ModelDescription(**_said(checkpoint))


def _said(checkpoint: Checkpoint) -> dict[str, Any]:
    generation, defaults = checkpoint.generation, checkpoint.generation.get("twgi", {})
    if not isinstance(defaults, dict) or not isinstance(defaults.get("guidance", ""), str):
        raise CheckpointError(f"generation_config.json: twgi must be a group of settings, got {short(defaults)}")
    try:
        SamplingParams.of({key: value for key, value in defaults.items() if key != "guidance"})
        SamplingParams(text_top_k=generation.get("top_k"), image_top_p=generation.get("top_p"))
    except ConfigError as error:
        raise CheckpointError(f"generation_config.json: {error}") from error
    return {
        "name": checkpoint.name, "sha256": sha256_of(checkpoint.tensors.files), "defaults": defaults,
        "generation": generation, "config_bos": checkpoint.config_bos,
    }  # fmt: skip


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that can be said of a checkpoint, ready for JSON."""
    counts, vocab = sizes(checkpoint), checkpoint.vocab
    dtypes = Counter(str(entry.dtype).removeprefix("torch.") for entry in checkpoint.tensors.stored.values())
    preset = checkpoint.preset
    return {
        "name": checkpoint.name,
        "folder": str(checkpoint.folder),
        "layout": _layout_in_words(checkpoint),
        "files": [file.name for file in checkpoint.tensors.files],
        "sha256": sha256_of(checkpoint.tensors.files),
        "parameters": {**asdict(counts), "total": counts.language + counts.image},
        "dtypes": dict(dtypes),
        "model": asdict(checkpoint.config),
        "image_tokenizer": asdict(checkpoint.vq_config),
        "tokens": {
            "vocabulary": vocab.size, "text": len(vocab.text_ids), "reserved": len(vocab.reserved), **vocab.special,
            "image_tokens": [min(vocab.image_tokens), max(vocab.image_tokens)], "codes": len(vocab.image_tokens),
            "tokens_per_image": vocab.tokens_per_image, "config_bos": checkpoint.config_bos,
        },
        "draws": checkpoint.draws,
        "modes": ["direct", "subgoal", "critique", "general"] if checkpoint.draws else ["general"],
        "trained_for": list(preset.modes) if preset else None,
    }  # fmt: skip


def _layout_in_words(checkpoint: Checkpoint) -> str:
    if checkpoint.layout == "meta":
        shards = sum(file.name.startswith("consolidated") for file in checkpoint.tensors.files)
        return f"Meta, {shards} shard{'s' * (shards > 1)}"
    return "Hugging Face, the fork's" if checkpoint.draws else "Hugging Face, upstream's: no image decoder"


def sha256_of(files: Sequence[Path]) -> str:
    """One hash of all the weights. Raises `CheckpointError` where the hub's cache names a file by another hash."""
    hashes = [_sha256(file) for file in files]
    if len(files) == 1:
        return hashes[0]
    lines = sorted(f"{digest}  {file.name}\n" for digest, file in zip(hashes, files, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: Path) -> str:
    blob = file.resolve()
    stat = blob.stat()
    found = _content_hash(blob, stat.st_size, stat.st_mtime_ns)
    if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) and blob.name != found:
        hashes = f"its hash is {found[:12]}... and not {blob.name[:12]}..."
        raise CheckpointError(f"{file}: damaged or written over, {hashes}: download it again")
    return found


@lru_cache(maxsize=64)
def _content_hash(file: Path, size: int, time: int) -> str:
    """Of the content, once in a process as long as size and time of the file stay."""
    with open_regular(file) as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _longer(checkpoint: Checkpoint, context: int | None) -> Checkpoint:
    if context is None:
        return checkpoint
    if not 0 < context <= hf.MAX_SIZES["max_positions"]:
        raise ConfigError(f"context must be in 1..{hf.MAX_SIZES['max_positions']}, got {context}")
    return replace(checkpoint, config=replace(checkpoint.config, max_positions=context))


def _read_decoder(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    each_block: Callable[[nn.Module], object] | None,
    progress: Progress | None,
) -> Transformer:
    config, tensors = checkpoint.config, checkpoint.tensors
    with torch.device("meta"), WithoutInit():
        model = Transformer(config)
    table, shapes = hf.names(config), {name: tuple(t.shape) for name, t in model.state_dict().items()}
    total = sum(tensors.stored[part].bytes for parts in table.values() for part in parts)
    done = 0
    for names in _pieces(list(table), config.num_layers):
        parts = [part for name in names for part in table[name]]
        read = tensors.read(parts)
        for name in names:
            whole = _joined(shapes[name], [read[part] for part in table[name]], device, dtype)
            owner, _, field_name = name.rpartition(".")
            setattr(model.get_submodule(owner), field_name, nn.Parameter(whole, requires_grad=False))
        del read
        if each_block is not None and names[0].startswith("blocks."):
            each_block(model.get_submodule(".".join(names[0].split(".")[:2])))
        done += sum(tensors.stored[part].bytes for part in parts)
        if progress is not None:
            progress(done, total)
    return model.to(device).requires_grad_(False).eval()  # to: the rotary tables


def _pieces(names: Sequence[str], layers: int) -> Iterator[list[str]]:
    """Names that are read together: each block, and each of the large matrices outside them."""
    for layer in range(layers):
        yield [name for name in names if name.startswith(f"blocks.{layer}.")]
    for name in names:
        if not name.startswith("blocks."):
            yield [name]


def _joined(shape: Sequence[int], parts: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The parts along the first dimension, each straight to its place."""
    out = torch.empty(tuple(shape), device=device, dtype=dtype)
    for place, part in zip(out.split([len(part) for part in parts]), parts, strict=True):
        place.copy_(part)
    return out


def _read_tokenizer(checkpoint: Checkpoint, device: torch.device) -> MultimodalTokenizer:
    with torch.device("meta"), WithoutInit():
        vq = VQModel(checkpoint.vq_config, draws=checkpoint.draws)
    read = checkpoint.tensors.read([hf.VQ_PREFIX + name for name in vq.state_dict()])
    wrong = next((name for name, tensor in read.items() if not tensor.isfinite().all()), None)
    if wrong is not None:
        raise CheckpointError(f"{checkpoint.name}: {wrong} holds values that are no numbers")
    own = {name.removeprefix(hf.VQ_PREFIX): _joined(t.shape, [t], device, torch.float32) for name, t in read.items()}
    vq.load_state_dict(own, assign=True)
    vq.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # by far the fastest convolutions on a CPU
    vq.requires_grad_(False).eval()
    image = ImageTokenizer(vq, resolution=checkpoint.vq_config.resolution, reference=checkpoint.published_pixels)
    return MultimodalTokenizer(checkpoint.vocab, checkpoint.text, image)


def _remarks(checkpoint: Checkpoint, model: Transformer) -> Iterator[str]:
    if not checkpoint.draws:
        yield (
            f"{checkpoint.name} has no image decoder (model.vqmodel.decoder.*): it reads pictures and writes text; "
            "to draw, give the original vqgan.ckpt with --vq"
        )
    if _silent(model, checkpoint.vocab):
        yield (
            f"{checkpoint.name} looks like a raw Chameleon, whose image head was not released: "
            "it does not draw anything sensible; Anole and TwGI checkpoints do"
        )


def _silent(model: Transformer, vocab: Vocab) -> bool:
    """Whether the rows of the head that draw say nothing: all alike, or next to zero beside those of text."""
    ids = (vocab.image_tokens[:SAMPLED], vocab.text_ids[:SAMPLED])
    image, text = (model.head.weight[list(rows)].float() for rows in ids)
    alike = (image - image.mean(dim=0)).norm(dim=1)
    return bool(alike.median() < SILENT * text.norm(dim=1).median())
