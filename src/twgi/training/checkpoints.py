"""Checkpoints of a run: `checkpoint-STEP/` with safetensors and JSON alone, whole or not there at all.

    shard-*.safetensors   weights that train and the optimizer's state, a file for each process
                          (written by torch.distributed.checkpoint, so any number of processes can read them)
    random-RANK.safetensors, and JSON files
    manifest.json         the size of every other file; written last

A folder is written under another name and renamed. One that was torn all the same is passed over, aloud, for the one
before it.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from twgi.errors import RunError

MANIFEST, TEMPORARY = "manifest.json", ".writing-"
MODEL, OPTIMIZER = "model:", "optimizer:"


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if processes() > 1 else 0


def barrier() -> None:
    if processes() > 1:
        dist.barrier()


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """What a checkpoint holds: every parameter that trains."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def save_checkpoint(folder: Path, write: Callable[[Path], None], files: Mapping[str, Any]) -> None:
    """Write `folder` (its name is `checkpoint-STEP`); all processes call it.

    `write` puts this process's part of weights and optimizer into the folder it is given (`save_tensors`); `files` are
    JSON values by file name.
    """
    unfinished = folder.with_name(TEMPORARY + folder.name)
    if rank() == 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    barrier()
    write(unfinished)
    save_file(_random_state(), unfinished / f"random-{rank()}.safetensors")
    barrier()
    if rank() == 0:
        for name, value in files.items():
            (unfinished / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        _finish(unfinished, folder)
    barrier()


def save_tensors(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write this process's part of the weights that train and of the optimizer's state."""
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _quiet():
        state_dict_saver.save(_tensors(model, optimizer), storage_writer=writer, no_dist=processes() == 1)


def _finish(unfinished: Path, folder: Path) -> None:
    """The manifest, then everything to disk, then the name."""
    files = [path for path in sorted(unfinished.rglob("*")) if path.is_file()]
    sizes = {str(file.relative_to(unfinished)): file.stat().st_size for file in files}
    (unfinished / MANIFEST).write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")
    for path in [*unfinished.rglob("*"), unfinished]:
        _sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_tensors(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill the weights that train, and the optimizer.

    Raises `RunError` where the checkpoint is of another model.
    """
    reader = HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    names = {f"{MODEL}{name}" for name in trained(model)}
    found = {key for key in stored if key.startswith(MODEL)}
    if names != found:
        wrong = min(names ^ found).removeprefix(MODEL)
        raise RunError(f"{folder}: {wrong} is not in both checkpoint and model; was the run of another recipe?")
    _make_room(model, optimizer, stored)
    with _quiet():
        state_dict_loader.load(_tensors(model, optimizer), storage_reader=reader, no_dist=processes() == 1)


def load_random_state(folder: Path) -> None:
    """Set the random generators of this process."""
    own = folder / f"random-{rank()}.safetensors"
    if own.is_file():
        _set_random_state(load_file(own))


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    named = trained(model)
    tensors = {MODEL + name: weight.detach() for name, weight in named.items()}
    for name, weight in named.items():
        for key, value in optimizer.state.get(weight, {}).items():
            tensors[f"{OPTIMIZER}{key}:{name}"] = value
    return tensors


def _make_room(model: nn.Module, optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> None:
    """The optimizer's state, as large as it was: like its weight, or one number."""
    named = trained(model)
    for key, about in stored.items():
        if key.startswith(OPTIMIZER):
            _, kind, name = key.split(":", 2)
            weight, dtype = named[name], about.properties.dtype
            alike = about.size == weight.shape
            made = torch.zeros_like(weight, dtype=dtype) if alike else torch.zeros(about.size, dtype=dtype)
            optimizer.state[weight][kind] = made.detach()


def _random_state() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_state(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remark that one process is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def checkpoints(out: Path) -> list[Path]:
    """All checkpoints of a run, newest first, torn ones too."""
    found = [path for path in out.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of, reverse=True)


def newest_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint; says so where a newer one cannot be used. All processes find the same."""
    for folder in checkpoints(out):
        fault = torn(folder)
        if fault is None:
            return folder
        if rank() == 0:
            print(f"{folder} cannot be used ({fault}); trying the checkpoint before it", flush=True)
    return None


def torn(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files; None for nothing."""
    try:
        sizes: dict[str, int] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{MANIFEST}: {type(error).__name__}"
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            return f"{name} is not {size} bytes long"
    return None


def keep_newest(out: Path, count: int) -> None:
    """Delete all checkpoints but the newest whole ones."""
    whole = [folder for folder in checkpoints(out) if torn(folder) is None]
    for folder in whole[count:]:
        shutil.rmtree(folder)
