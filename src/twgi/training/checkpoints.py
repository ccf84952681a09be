"""Checkpoints of a run: `checkpoint-STEP/` with safetensors and JSON alone, whole or not there at all.

shard-*.safetensors   weights that train, the optimizer's state and whatever else changes, a file for each process
                      (written by torch.distributed.checkpoint, so any number of processes can read them)
random-RANK.safetensors
manifest.json         the size of every other file; written last, before the folder gets its name
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.optim import Optimizer

from twgi.errors import DataError, RunError
from twgi.files import read_json, sync, write_json
from twgi.training.objective import LossModule
from twgi.training.sharding import barrier, processes, rank

MANIFEST, TEMPORARY = "manifest.json", ".writing-"
MODEL, OPTIMIZER, MOVING = "model:", "optimizer:", "moving:"


def save_checkpoint(out: Path, step: int, model: LossModule, optimizer: Optimizer, *, keep: int) -> None:
    """Write `checkpoint-STEP`, then delete all whole ones but the newest `keep`; all processes call it."""
    unfinished = out / f"{TEMPORARY}checkpoint-{step}"
    if rank() == 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    barrier()
    tensors = {name: value.contiguous() for name, value in _tensors(model, optimizer).items()}
    writer = HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that torch.distributed is disabled
        state_dict_saver.save(tensors, storage_writer=writer, no_dist=processes() == 1)
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    save_file(states, unfinished / f"random-{rank()}.safetensors")
    barrier()
    if rank() == 0:
        _finish(unfinished, out / f"checkpoint-{step}")
        for old in [found for found in checkpoints(out) if torn(found) is None][keep:]:
            shutil.rmtree(old)
    barrier()


def _finish(unfinished: Path, folder: Path) -> None:
    """The manifest, then everything to disk, then the name."""
    sizes = {file.name: file.stat().st_size for file in sorted(unfinished.iterdir())}
    for file in sizes:
        sync(unfinished / file)
    write_json(unfinished / MANIFEST, sizes)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    sync(folder.parent)


def load_checkpoint(folder: Path, model: LossModule, optimizer: Optimizer) -> int:
    """Fill the weights that train, the optimizer and what else changes; set this process's random generators.

    Returns how many steps were done. Raises `RunError` where the checkpoint is of another model.
    """
    reader = HuggingFaceStorageReader(str(folder))
    stored: dict[str, Any] = reader.read_metadata().state_dict_metadata
    trained = _trained(model)
    found = {key.removeprefix(MODEL) for key in stored if key.startswith(MODEL)}
    if wrong := trained.keys() ^ found:
        raise RunError(f"{folder}: {min(wrong)} is not in both checkpoint and model; was the run of another recipe?")
    for key, about in stored.items():  # room for the optimizer's state: like its weight, or one number
        if key.startswith(OPTIMIZER):
            _, kind, name = key.split(":", 2)
            weight, dtype = trained[name], about.properties.dtype
            alike = about.size == weight.shape
            made = torch.zeros_like(weight, dtype=dtype) if alike else torch.zeros(about.size, dtype=dtype)
            optimizer.state[weight][kind] = made.detach()
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        state_dict_loader.load(_tensors(model, optimizer), storage_reader=reader, no_dist=processes() == 1)
    own = folder / f"random-{rank()}.safetensors"
    if own.is_file():  # not where more processes go on than there were
        states = load_file(own)
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])
    if rank() == 0:
        print(f"going on after {folder}", flush=True)
    return step_of(folder)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _tensors(model: LossModule, optimizer: Optimizer) -> dict[str, Tensor]:
    named = _trained(model)
    tensors = {MODEL + name: weight.detach() for name, weight in named.items()}
    tensors |= {MOVING + name: value for name, value in model.moving().items()}
    for name, weight in named.items():
        for key, value in optimizer.state.get(weight, {}).items():
            tensors[f"{OPTIMIZER}{key}:{name}"] = value
    return tensors


def step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def checkpoints(out: Path) -> list[Path]:
    """All checkpoints of a run, newest first, torn ones too."""
    found = [path for path in out.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of, reverse=True)


def newest_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint; says so where a newer one cannot be used. All processes find the same."""
    for folder in checkpoints(out):
        if (fault := torn(folder)) is None:
            return folder
        if rank() == 0:
            print(f"{folder} cannot be used ({fault}); trying the checkpoint before it", flush=True)
    return None


def torn(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files; None for nothing."""
    try:
        sizes: dict[str, int] = read_json(folder / MANIFEST)
    except DataError as error:
        return str(error)
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            return f"{name} is not {size} bytes long"
    return None
