"""A checkpoint made ready to be trained, and what is written of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from twgi.checkpoint.load import Loaded, load
from twgi.checkpoint.save import LARGEST_FILE, save
from twgi.errors import ConfigError
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.training.lora import attach, load_adapter, merged
from twgi.training.objective import Objective
from twgi.training.recipe import DTYPES, EXPORT_DTYPES, Recipe, check_one_of
from twgi.training.sharding import Place, barrier, is_sharded, rank, whole

PROJECTION = "projection.safetensors"


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """A loaded checkpoint, made ready to be trained."""

    loaded: Loaded
    objective: Objective
    device: torch.device
    handle: Any = None  # peft's, where adapters are trained
    place: Place | None = None  # how it is to be spread over processes, where it is

    @property
    def vq(self) -> VQModel:
        assert self.loaded.tokenizer.image is not None
        return self.loaded.tokenizer.image.vq


def load_trainable(recipe: Recipe, device: torch.device | str = "cpu", place: Place | None = None) -> Trainable:
    """The model of a recipe with what trains of it, the same for the same seed; on the CPU still.

    `device` is where it is to be trained. Where all weights train and `place` spreads them, each block is spread as
    soon as it is read, so that no process ever holds the whole model; adapters go into a whole one.

    Raises:
        CheckpointError: the model or the adapter cannot be loaded.
    """
    loaded = load(
        recipe.model, device="cpu", dtype=DTYPES[recipe.dtype], threads=recipe.threads, pack=False,
        each_block=place if recipe.method == "full" else None,
    )  # fmt: skip
    if loaded.tokenizer.image is None:
        raise ConfigError(f"{recipe.model} has no image tokenizer, so it cannot be trained to draw")
    torch.manual_seed(recipe.seed)
    decoder = loaded.model.requires_grad_(recipe.method == "full")
    codebook = loaded.tokenizer.image.vq.quantize.embedding.weight
    objective = Objective(decoder, codebook, loaded.tokenizer.vocab, recipe.loss)
    handle = None
    if recipe.method == "lora":
        folder = Path(recipe.adapter)
        handle = (
            load_adapter(decoder, folder, trainable=True)
            if recipe.adapter
            else attach(decoder, recipe.lora, loaded.tokenizer.vocab)
        )
        if recipe.adapter and (folder / PROJECTION).is_file():
            objective.projection.load_state_dict(load_file(folder / PROJECTION))
        for weight in decoder.parameters():  # small steps vanish in bfloat16
            if weight.requires_grad:
                weight.data = weight.data.float()
    decoder.recompute = recipe.recompute
    return Trainable(
        loaded=loaded, objective=objective.train(), handle=handle, device=torch.device(device), place=place
    )


def whole_copy(recipe: Recipe, trained: Trainable) -> Trainable | None:
    """The same; where it is spread over processes, a whole copy of it on the first process, None on the others."""
    if not is_sharded(trained.objective):
        return trained
    copy = load_trainable(recipe) if rank() == 0 else None
    parameters = dict(copy.objective.named_parameters()) if copy else {}
    for name, weight in trained.objective.named_parameters():
        if weight.requires_grad:
            value = whole(weight)
            if copy is not None:
                parameters[name].data.copy_(value)
    if copy is not None:
        copy.objective.to(trained.device)
    return copy


def check_export(recipe: Recipe, vq: VQModel) -> None:
    """Raise `ConfigError` where writing in the asked dtype would change the image tokenizer."""
    dtype = EXPORT_DTYPES[recipe.export_dtype]
    changed = [name for name, value in vq.state_dict().items() if not value.to(dtype).to(value.dtype).equal(value)]
    if changed:
        raise ConfigError(
            f"export_dtype {recipe.export_dtype} would change the image tokenizer ({changed[0]}); use float32"
        )


def export(recipe: Recipe, trained: Trainable, *, largest_file: int = LARGEST_FILE) -> Path:
    """Write `model/` (adapters merged, the image tokenizer as it was read), `adapter/`, and the projection.

    All processes call it and the first one writes: beside its part of the model, and an adapter, it holds one file's
    tensors (`largest_file` bytes) and one whole parameter at a time.
    """
    out, writes = Path(recipe.out), rank() == 0
    projection = {name: whole(weight).to("cpu") for name, weight in trained.objective.projection.named_parameters()}
    adapter = {name: whole(weight).to("cpu") for name, weight in _adapter(trained)}
    if writes:
        out.mkdir(parents=True, exist_ok=True)
    if writes and adapter:
        trained.handle.save_pretrained(str(out / "adapter"), state_dict=adapter)
    if writes:
        save_file(projection, (out / "adapter" if adapter else out) / PROJECTION)
    dtype = EXPORT_DTYPES[recipe.export_dtype]
    _save_merged(
        out / "model", trained.objective.decoder, trained.loaded, dtype, writes=writes, largest_file=largest_file
    )
    barrier()
    return out / "model"


def _adapter(trained: Trainable) -> Iterator[tuple[str, nn.Parameter]]:
    if trained.handle is not None:
        yield from ((name, weight) for name, weight in trained.handle.named_parameters() if weight.requires_grad)


def _save_merged(folder: Path, decoder: Transformer, loaded: Loaded, dtype: torch.dtype, **how: Any) -> None:
    assert loaded.tokenizer.image is not None
    save(
        folder, model=decoder, vq=loaded.tokenizer.image.vq, tokenizer=loaded.tokenizer, dtype=dtype,
        defaults=loaded.defaults, tensor=lambda name: merged(decoder, name, whole), **how,
    )  # fmt: skip


def merge_folder(model: str, adapter: Path, out: Path, *, dtype: str = "float32") -> Path:
    """Write the model with an adapter merged into it to the folder `out`.

    Raises `CheckpointError` where the adapter does not fit, `ConfigError` for an unknown dtype.
    """
    check_one_of("dtype", dtype, EXPORT_DTYPES)
    loaded = load(model, pack=False)
    load_adapter(loaded.model, adapter)
    _save_merged(out, loaded.model, loaded, EXPORT_DTYPES[dtype])
    return out
