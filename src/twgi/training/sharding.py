"""Several processes that torchrun started: each holds a part of every parameter (FSDP2, `fully_shard`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from twgi.checkpoint.memory import known_device
from twgi.errors import ConfigError
from twgi.training.objective import PIECE_LOGITS, Objective

T = TypeVar("T")
Place = Callable[[nn.Module], object]
"""Spreads a module's parameters over the processes, but those of modules inside it that are spread already."""


def processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the processes this is."""
    return dist.get_rank() if processes() > 1 else 0


def barrier() -> None:
    if processes() > 1:
        dist.barrier()


def summed(value: Tensor) -> Tensor:
    """The sum over all processes of a tensor on each one's own device."""
    if processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def gathered(value: T) -> list[T]:
    """What each of the processes has."""
    values = [value] * processes()
    if processes() > 1:
        dist.all_gather_object(values, value)
    return values


def device_for_training(name: str) -> torch.device:
    """The device of this name; `ConfigError` where it is not there, or nothing is trained on its kind."""
    device = known_device(name)
    if device.type not in PIECE_LOGITS:
        raise ConfigError(f"training runs on {' or '.join(PIECE_LOGITS)}, not on the device {name!r}")
    return device


def join_processes(device: str, *, bf16: bool) -> tuple[torch.device, Place | None]:
    """Meet the other processes that torchrun started; returns this one's own device, and how modules are spread.

    Spread modules compute the same as before, and may be on the CPU until then. With `bf16`, parameters are gathered
    and computed with in bfloat16 and gradients added in float32.
    """
    known = device_for_training(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return known, None
    own = torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else known)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
    return own, partial(fully_shard, mesh=init_device_mesh(own.type, (processes(),)), mp_policy=policy)


def leave_processes() -> None:
    if processes() > 1:
        dist.destroy_process_group()


def shard(objective: Objective, place: Place) -> None:
    """Spread every parameter over the processes, block by block."""
    for block in objective.decoder.blocks:
        if not isinstance(block, FSDPModule):
            place(block)
    place(objective)
    stray = [name for name, weight in objective.named_parameters() if not isinstance(weight, DTensor)]
    assert not stray, f"not sharded: {stray}"


def whole(weight: Tensor) -> Tensor:
    """The whole of a parameter of which this process has a part; all processes must call it."""
    return weight.full_tensor().detach() if isinstance(weight, DTensor) else weight.detach()
