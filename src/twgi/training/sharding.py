"""Several processes under torchrun: each holds a part of every parameter (FSDP2, `fully_shard`).

Started as `torchrun --nproc_per_node=8 -m twgi train RECIPE`; nothing in the recipe changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from twgi.training.checkpoints import processes
from twgi.training.objective import Objective


def join_processes(device: str) -> torch.device:
    """Meet the other processes that torchrun started, if it did; returns this process's own device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return torch.device(device)
    own = torch.device(f"cuda:{os.environ['LOCAL_RANK']}") if device == "cuda" else torch.device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    return own


def leave_processes() -> None:
    if processes() > 1:
        dist.destroy_process_group()


def shard(objective: Objective, device: torch.device, *, bf16: bool) -> Objective:
    """Spread every parameter over the processes, block by block; it computes the same as before.

    With `bf16`, parameters are gathered and computed with in bfloat16 and gradients added in float32.
    """
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
    mesh = init_device_mesh(device.type, (processes(),))
    for block in objective.decoder.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    stray = [name for name, weight in objective.named_parameters() if not isinstance(weight, DTensor)]
    assert not stray, f"not sharded: {stray}"
    return objective


def whole_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter that trains, whole, on the CPU, one at a time. All processes must take all of them."""
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
            yield name, whole.detach().to("cpu")
