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
from twgi.training.checkpoints import (
    barrier,
    keep_newest,
    load_random_state,
    load_tensors,
    rank,
    save_checkpoint,
    save_tensors,
)
from twgi.training.sharding import is_sharded

SCHEDULER = "scheduler.json"


class SafeTrainer(Trainer):
    """A Trainer whose checkpoints are those of `checkpoints.py`. Whether a model is sharded, its parameters tell."""

    kept = 2

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if is_sharded(self.model):
            self.accelerator.prepare_model = _as_it_is

    def restore(self, checkpoint: Path) -> None:
        """Take up a checkpoint, as `train` does, and train no further."""
        self._prepare_for_training(self.args.max_steps, None, str(checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        out = Path(self.args.output_dir)
        files = {SCHEDULER: self.lr_scheduler.state_dict(), TRAINER_STATE_NAME: dataclasses.asdict(self.state)}
        save_checkpoint(out / f"checkpoint-{self.state.global_step}", self._write_part, files)
        if rank() == 0:
            keep_newest(out, self.kept)
        barrier()

    def _write_part(self, folder: Path) -> None:
        if self.is_deepspeed_enabled:
            self.deepspeed.save_checkpoint(str(folder))  # files of its own, pickles among them
        else:
            save_tensors(folder, self.model, self._plain_optimizer)

    @property
    def _plain_optimizer(self) -> Any:
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Later, with the optimizer."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        if not self.is_deepspeed_enabled:  # which has read its files by now
            load_tensors(folder, self.model, self._plain_optimizer)
        load_random_state(folder)
        scheduler = json.loads((folder / SCHEDULER).read_text(encoding="utf-8"))
        self.lr_scheduler.load_state_dict(scheduler)
        for group, rate in zip(self._plain_optimizer.param_groups, scheduler.get("_last_lr", []), strict=False):
            group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Done by now."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """There is none."""

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        norm = super()._clip_grad_norm(model)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _as_it_is(model: nn.Module, **_: Any) -> nn.Module:
    return model


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
