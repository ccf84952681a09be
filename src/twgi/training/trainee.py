"""A checkpoint made ready to be trained, and what is written of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from twgi.checkpoint.load import Loaded, load
from twgi.checkpoint.save import save
from twgi.errors import ConfigError
from twgi.model.vqvae import VQModel
from twgi.training.checkpoints import barrier, rank
from twgi.training.lora import attach, load_adapter, merge
from twgi.training.objective import Objective
from twgi.training.recipe import DTYPES, EXPORT_DTYPES, Recipe
from twgi.training.sharding import whole_tensors
from twgi.training.trainer import is_sharded

PROJECTION = "projection.safetensors"


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A loaded checkpoint, made ready to be trained."""

    loaded: Loaded
    objective: Objective
    device: torch.device
    handle: Any = None  # peft's, where adapters are trained

    @property
    def vq(self) -> VQModel:
        assert self.loaded.tokenizer.image is not None
        return self.loaded.tokenizer.image.vq


def trainee(recipe: Recipe, device: torch.device | str = "cpu") -> Trainee:
    """The model of a recipe with what trains of it, the same for the same seed.

    Raises:
        CheckpointError: the model or the adapter cannot be loaded.
    """
    loaded = load(recipe.model, device="cpu", dtype=DTYPES[recipe.dtype], threads=recipe.threads)
    if loaded.tokenizer.image is None:
        raise ConfigError(f"{recipe.model} has no image tokenizer, so it cannot be trained to draw")
    torch.manual_seed(recipe.seed)
    decoder = loaded.model.unpack().requires_grad_(recipe.method == "full")
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
    device = torch.device(device)
    return Trainee(loaded=loaded, objective=objective.to(device).train(), handle=handle, device=device)


def whole(recipe: Recipe, trained: Trainee) -> Trainee | None:
    """The trainee; where it is spread over processes, a copy of it on the first process, and None on the others.

    Tensors come one at a time, so no process but the first ever holds more than its part and one tensor.
    """
    if not is_sharded(trained.objective):
        return trained
    copy = trainee(recipe) if rank() == 0 else None
    parameters = dict(copy.objective.named_parameters()) if copy else {}
    for name, value in whole_tensors(trained.objective):
        if copy is not None:
            parameters[name].data.copy_(value)
    return copy


def check_export(recipe: Recipe, vq: VQModel) -> None:
    """Raise `ConfigError` where writing in the asked dtype would change the image tokenizer."""
    dtype = EXPORT_DTYPES[recipe.export_dtype]
    changed = [name for name, value in vq.state_dict().items() if not value.to(dtype).to(value.dtype).equal(value)]
    if changed:
        raise ConfigError(
            f"export_dtype {recipe.export_dtype} would change the image tokenizer ({changed[0]}); use float32"
        )


def export(recipe: Recipe, trained: Trainee) -> Path:
    """Write `model/` (adapters merged, the image tokenizer as it was read), `adapter/`, and the projection.

    The merge changes the trainee: it cannot be trained any further.
    """
    out, ready = Path(recipe.out), whole(recipe, trained)
    if ready is not None and rank() == 0:
        if ready.handle is not None:
            ready.handle.save_pretrained(str(out / "adapter"))
        projection = {name: value.detach().to("cpu") for name, value in ready.objective.projection.state_dict().items()}
        save_file(projection, (out / "adapter" if ready.handle is not None else out) / PROJECTION)
        model = ready.objective.decoder if ready.handle is None else merge(ready.handle)
        tokenizer, defaults = ready.loaded.tokenizer, ready.loaded.defaults
        dtype = EXPORT_DTYPES[recipe.export_dtype]
        save(out / "model", model=model, vq=ready.vq, tokenizer=tokenizer, dtype=dtype, defaults=defaults)
    barrier()
    return out / "model"


def merge_folder(model: str, adapter: Path, out: Path, *, dtype: str = "float32") -> Path:
    """Write the model with an adapter merged into it to the folder `out`.

    Raises `CheckpointError` where the adapter does not fit, `ConfigError` for an unknown dtype.
    """
    if dtype not in EXPORT_DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(EXPORT_DTYPES)}, got {dtype!r}")
    loaded = load(model)
    assert loaded.tokenizer.image is not None
    merged, vq = merge(load_adapter(loaded.model.unpack(), adapter)), loaded.tokenizer.image.vq
    save(out, model=merged, vq=vq, tokenizer=loaded.tokenizer, dtype=EXPORT_DTYPES[dtype], defaults=loaded.defaults)
    return out
