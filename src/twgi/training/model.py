"""A checkpoint made ready to be trained, and what is written of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from twgi.checkpoint.load import Loaded, load
from twgi.checkpoint.save import LARGEST_FILE, save, write_tensors
from twgi.checkpoint.tensors import SafetensorsFiles, check_tensors
from twgi.config import check_one_of
from twgi.errors import CheckpointError, ConfigError
from twgi.files import FolderLock, check_new
from twgi.model.vqvae import VQModel
from twgi.training.lora import attach, base_of, load_adapter, merged, save_adapter
from twgi.training.objective import Objective
from twgi.training.recipe import DTYPES, EXPORT_DTYPES, Recipe
from twgi.training.sharding import Place, barrier, rank, whole

PROJECTION = "projection.safetensors"


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """A loaded checkpoint, made ready to be trained."""

    loaded: Loaded
    objective: Objective
    device: torch.device
    handle: Any  # peft's, where adapters are trained
    place: Place | None  # how it is to be spread over processes, where it is


def load_trainable(recipe: Recipe, device: torch.device | str = "cpu", place: Place | None = None) -> Trainable:
    """The model of a recipe with what trains of it, the same for the same seed; on the CPU still.

    `device` is where it is to be trained. Where all weights train and `place` spreads them, each block is spread as
    soon as it is read, so that no process ever holds the whole model; adapters go into a whole one. Raises
    `CheckpointError` where model or adapter cannot be loaded, `ConfigError` for an `export_dtype` that is too small.
    """
    loaded = load(
        recipe.model, device="cpu", dtype=DTYPES[recipe.dtype], threads=recipe.threads, pack=False,
        each_block=place if recipe.method == "full" else None,
    )  # fmt: skip
    if loaded.tokenizer.image is None:
        raise ConfigError(f"{recipe.model} has no image tokenizer, so it cannot be trained to draw")
    vq, vocab = loaded.tokenizer.image.vq, loaded.tokenizer.vocab
    _check_export(recipe.export_dtype, vq)
    torch.manual_seed(recipe.seed)
    decoder = loaded.model.requires_grad_(recipe.method == "full")
    objective = Objective(decoder, vq.quantize.embedding.weight, vocab, recipe.loss)
    handle, folder = None, Path(recipe.adapter)
    if recipe.adapter:
        handle = load_adapter(loaded, folder)
        if (folder / PROJECTION).is_file():
            _load_projection(folder / PROJECTION, objective)
        if base_of(folder) is None and rank() == 0:
            print(f"{folder} does not say on which model it was trained; {recipe.model} is taken for it", flush=True)
    elif recipe.method == "lora":
        handle = attach(decoder, recipe.lora, vocab)
    for weight in decoder.parameters():  # small steps vanish in bfloat16
        if weight.requires_grad and weight.dtype != torch.float32:
            weight.data = weight.data.float()
    decoder.recompute = recipe.recompute
    return Trainable(
        loaded=loaded, objective=objective.train(), handle=handle, device=torch.device(device), place=place
    )


def _load_projection(file: Path, objective: Objective) -> None:
    stored, own = SafetensorsFiles([file]), objective.projection.state_dict()
    shapes = [{name: tuple(entry.shape) for name, entry in group.items()} for group in (own, stored.stored)]
    check_tensors(file, *shapes, told_by="the model")
    tensors = stored.read(own)
    if not all(value.isfinite().all() for value in tensors.values()):
        raise CheckpointError(f"{file}: holds values that are no numbers")
    objective.projection.load_state_dict(tensors)


def whole_copy(recipe: Recipe, trained: Trainable) -> Trainable | None:
    """The same; where it is spread over processes, a whole copy of it on the first process, None on the others."""
    if trained.place is None:
        return trained
    copy = load_trainable(recipe) if rank() == 0 else None
    parameters = dict(copy.objective.named_parameters()) if copy else {}
    for name, weight in trained.objective.named_parameters():
        if weight.requires_grad:
            value = whole(weight)
            if copy:
                parameters[name].data.copy_(value)
    if copy:
        copy.objective.to(trained.device)
    return copy


def _check_export(asked: str, vq: VQModel) -> None:
    """Raise `ConfigError` where writing in the asked dtype would change the image tokenizer."""
    for name, value in vq.state_dict().items():
        if not value.to(EXPORT_DTYPES[asked]).to(value.dtype).equal(value):
            raise ConfigError(f"export_dtype {asked} would change the image tokenizer ({name}); use float32")


def export(recipe: Recipe, trained: Trainable, *, largest_file: int = LARGEST_FILE) -> Path:
    """Write `model/` (adapters merged, the image tokenizer as it was read), `adapter/`, and the projection.

    All processes call it and the first one writes: beside its part of the model, and an adapter, it holds one file's
    tensors (`largest_file` bytes) and one whole parameter at a time.
    """
    out, writes = Path(recipe.out), rank() == 0
    named = trained.handle.named_parameters() if trained.handle else ()
    adapter = {name: whole(weight).to("cpu") for name, weight in named if weight.requires_grad}
    projection = {name: whole(weight).to("cpu") for name, weight in trained.objective.projection.named_parameters()}
    if writes:
        place = out / "adapter" if adapter else out
        if adapter:
            save_adapter(place, trained.handle, adapter, model=recipe.model, sha256=trained.loaded.sha256)
        write_tensors(place / PROJECTION, projection)
    _save_merged(out / "model", trained.loaded, recipe.export_dtype, writes=writes, largest_file=largest_file)
    barrier()
    return out / "model"


def _save_merged(folder: Path, loaded: Loaded, dtype: str, **how: Any) -> None:
    assert loaded.tokenizer.image is not None
    save(
        folder, model=loaded.model, vq=loaded.tokenizer.image.vq, tokenizer=loaded.tokenizer, **how,
        dtype=EXPORT_DTYPES[dtype], defaults=loaded.defaults, tensor=lambda name: merged(loaded.model, name, whole),
    )  # fmt: skip


def merge_folder(model: str, adapter: Path, out: Path, *, dtype: str = "float32") -> Path:
    """Write the model with an adapter merged into it to the new folder `out`.

    Raises `CheckpointError` where it does not fit or changes nothing, `RunError` where the folder holds something.
    """
    check_one_of("dtype", dtype, EXPORT_DTYPES)
    check_new(out, option="OUT")
    loaded = load(model, pack=False)
    if loaded.tokenizer.image is None:
        raise ConfigError(f"{model} has no image tokenizer, so it has no adapters")
    _check_export(dtype, loaded.tokenizer.image.vq)
    handle = load_adapter(loaded, adapter)
    if not any(value.any() for name, value in handle.named_parameters() if "lora_B" in name or "tokens_delta" in name):
        raise CheckpointError(f"{adapter}: this adapter changes nothing: all its lora_B are zero")
    with FolderLock(out, otherwise="wait for it, or give another folder"):
        check_new(out, option="OUT")
        _save_merged(out, loaded, dtype)
    return out
