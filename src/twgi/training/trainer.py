"""Hugging Face's Trainer with checkpoints of our own: exact to resume from, and nothing in them is executed.

Where several processes train, each holds a part of every parameter (`sharding.py`). The Trainer's own way to that does
nothing on a CPU without a word: accelerate then copies the whole model to each process.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from twgi.trace import write_file
from twgi.training.checkpoints import barrier, keep_newest, load_checkpoint, rank, save_checkpoint

SCHEDULER = "scheduler.json"


class SafeTrainer(Trainer):
    """A Trainer whose checkpoints are those of `checkpoints.py`. Whether a model is sharded, its parameters tell."""

    kept = 2

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if is_sharded(self.model):
            self.accelerator.prepare_model = _as_it_is

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.is_deepspeed_enabled:
            return super()._save_checkpoint(model, trial)
        out = Path(self.args.output_dir)
        files = {SCHEDULER: self.lr_scheduler.state_dict(), TRAINER_STATE_NAME: dataclasses.asdict(self.state)}
        save_checkpoint(out / f"checkpoint-{self.state.global_step}", self.model, self._plain_optimizer, files)
        if rank() == 0:
            keep_newest(out, self.kept)
        barrier()
        return None

    @property
    def _plain_optimizer(self) -> Any:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Later, with the optimizer."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.is_deepspeed_enabled:
            return super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_checkpoint(Path(checkpoint), self.model, self._plain_optimizer)
            scheduler = json.loads((Path(checkpoint) / SCHEDULER).read_text(encoding="utf-8"))
            self.lr_scheduler.load_state_dict(scheduler)
            for group, rate in zip(self._plain_optimizer.param_groups, scheduler["_last_lr"], strict=True):
                group["lr"] = rate
        return None

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Done, with the weights."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """There is none."""

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm = super()._clip_grad_norm(model)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _as_it_is(model: nn.Module, **_: Any) -> nn.Module:
    return model


def is_sharded(model: nn.Module) -> bool:
    """Whether its parameters are spread over processes."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


class MetricsFile(TrainerCallback):
    """Every log line of the Trainer as one line of JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                print(json.dumps({"step": state.global_step, **(logs or {})}), file=file)


def forget_after(path: Path, step: int) -> None:
    """Drop what a run wrote into its metrics after the step from which it goes on."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.strip() and json.loads(line)["step"] <= step]
        write_file(path, "".join(f"{line}\n" for line in kept).encode())
