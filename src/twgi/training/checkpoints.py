"""Checkpoints of a run: `checkpoint-STEP/` with safetensors and JSON alone, whole or not there at all.

shard-*.safetensors   weights that train, the optimizer's state and whatever else changes, a file for each process
                      (written by torch.distributed.checkpoint, so any number of processes can read them)
own-RANK.safetensors  a process's random generators, and what it has of the next line of metrics
manifest.json         size and hash of every other file; written last, before the folder gets its name
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.optim import Optimizer

from twgi.checkpoint.save import writing_tensors
from twgi.errors import DataError, RunError
from twgi.files import read_json, sync, write_json
from twgi.training.objective import LossModule
from twgi.training.sharding import barrier, gathered, processes, rank

MANIFEST, TEMPORARY = "manifest.json", ".writing-"
MODEL, OPTIMIZER, MOVING, RANDOM = "model:", "optimizer:", "moving:", "random:"


@contextmanager
def _told(what: str) -> Iterator[None]:
    """torch's `CheckpointException`, which is no `Exception`, becomes `RunError`; so does what a full disk raises."""
    try:
        with writing_tensors(Path(what)), warnings.catch_warnings(action="ignore", category=UserWarning):
            yield
    except CheckpointException as error:
        if any(isinstance(failed, KeyboardInterrupt) for failed, _ in error.failures.values()):
            raise KeyboardInterrupt from error
        reasons = dict.fromkeys(f"{type(failed).__name__}: {failed}" for failed, _ in error.failures.values())
        raise RunError(f"{what}: {'; '.join(reasons)}; the same command goes on from the checkpoint before") from error


def save_checkpoint(
    out: Path, step: int, model: LossModule, optimizer: Optimizer, own: Mapping[str, Tensor], *, keep: int
) -> None:
    """Write `checkpoint-STEP`, then delete all whole ones but the newest `keep`; all processes call it.

    `own` is what this process wants to have back. Raises `RunError` where it cannot be written.
    """
    unfinished, folder = out / f"{TEMPORARY}checkpoint-{step}", out / f"checkpoint-{step}"
    try:
        with _told(str(folder)):
            if rank() == 0:
                clear_unfinished(out)
                unfinished.mkdir(parents=True)
            barrier()
            tensors = {name: value.contiguous() for name, value in _tensors(model, optimizer).items()}
            writer = HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
            state_dict_saver.save(tensors, storage_writer=writer, no_dist=processes() == 1)
            states = {RANDOM + "cpu": torch.get_rng_state(), **own}
            if torch.cuda.is_available():
                states[RANDOM + "cuda"] = torch.cuda.get_rng_state()
            save_file(states, unfinished / f"own-{rank()}.safetensors")
            barrier()
            manifest = _described(unfinished)
            if rank() == 0:
                for name in manifest:
                    sync(unfinished / name)
                write_json(unfinished / MANIFEST, manifest)
                shutil.rmtree(folder, ignore_errors=True)
                unfinished.rename(folder)
                sync(out)
                for old in [found for found in checkpoints(out) if _misfit(found) is None][keep:]:
                    shutil.rmtree(old)
    except RunError:
        shutil.rmtree(unfinished, ignore_errors=True)  # it would keep a full disk full
        raise
    barrier()


def clear_unfinished(out: Path) -> None:
    """Remove what a killed process left."""
    for leftover in out.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _described(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of every file but the manifest; all processes share the work."""
    names = sorted(file.name for file in folder.iterdir() if file.name != MANIFEST)
    found = {}
    for name in names[rank() :: processes()]:
        with (folder / name).open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
            found[name] = {"bytes": data.tell(), "sha256": digest}
    parts = {name: about for part in gathered(found) for name, about in part.items()}
    return {name: parts[name] for name in names}


def load_checkpoint(folder: Path, model: LossModule, optimizer: Optimizer) -> tuple[int, dict[str, Tensor]]:
    """Fill the weights that train, the optimizer and what else changes; set this process's random generators.

    Returns how many steps were done, and what this process wanted to have back: the first one gets the sum over all,
    where there were more or fewer. Raises `RunError` where the checkpoint is of another model.
    """
    with _told(str(folder)):
        reader = HuggingFaceStorageReader(str(folder))
        stored: dict[str, Any] = reader.read_metadata().state_dict_metadata
        trained = _trained(model)
        found = {key.removeprefix(MODEL) for key in stored if key.startswith(MODEL)}
        if wrong := trained.keys() ^ found:
            raise RunError(f"{folder}: {min(wrong)} is not in both checkpoint and model; was it another recipe's?")
        for key, about in stored.items():  # room for the optimizer's state: like its weight, or one number
            if key.startswith(OPTIMIZER):
                _, kind, name = key.split(":", 2)
                weight, dtype = trained[name], about.properties.dtype
                alike = about.size == weight.shape
                made = torch.zeros_like(weight, dtype=dtype) if alike else torch.zeros(about.size, dtype=dtype)
                optimizer.state[weight][kind] = made.detach()
        state_dict_loader.load(_tensors(model, optimizer), storage_reader=reader, no_dist=processes() == 1)
    states = _states(folder)
    if RANDOM + "cpu" in states:  # not where more processes go on than there were
        torch.set_rng_state(states.pop(RANDOM + "cpu"))
    if (cuda := states.pop(RANDOM + "cuda", None)) is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    if rank() == 0:
        print(f"going on after {folder}", flush=True)
    return step_of(folder), states


def _states(folder: Path) -> dict[str, Tensor]:
    """What this process wrote for itself; where there were other processes, the first one gets the sum of the rest."""
    files = sorted(folder.glob("own-*.safetensors"))
    own = folder / f"own-{rank()}.safetensors"
    states = load_file(own) if own in files else {}
    if len(files) == processes():
        return states
    kept = {name: value for name, value in states.items() if name.startswith(RANDOM)}
    parts = [load_file(file) for file in files if rank() == 0]
    names = {name for part in parts for name in part if not name.startswith(RANDOM)}
    return kept | {name: torch.stack([part[name] for part in parts if name in part]).sum(0) for name in names}


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
    found = [path for path in out.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
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
    """What is wrong with a checkpoint's files; None for nothing. All processes call it."""
    if fault := _misfit(folder):
        return fault
    stored, found = read_json(folder / MANIFEST), _described(folder)
    return next((f"{name} holds other bytes than were written" for name in found if found[name] != stored[name]), None)


def _misfit(folder: Path) -> str | None:
    """The same, by the names and sizes of the files alone."""
    try:
        stored = read_json(folder / MANIFEST)
        sizes = {name: int(about["bytes"]) for name, about in stored.items()}
        found = {file.name: file.stat().st_size for file in folder.iterdir() if file.name != MANIFEST}
    except DataError as error:
        return str(error)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        return f"{MANIFEST} is damaged: {type(error).__name__}"
    if strange := found.keys() - sizes.keys():
        return f"{min(strange)} does not belong to it"
    return next((f"{name} is not {size} bytes long" for name, size in sizes.items() if found.get(name) != size), None)
