"""What a run tells on its way: into `metrics.jsonl`, on the terminal, and to trackers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from twgi.errors import ConfigError
from twgi.files import append_line, mend, read_objects, writing_lines
from twgi.training.sharding import rank, summed

METRICS = "metrics.jsonl"


class Window:
    """What the steps since the last log line came to."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps, self.since = 0, time.monotonic()

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """One batch's part of a step; parts of one name add up."""
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()

    def means(self, device: torch.device) -> dict[str, float]:
        """Mean over the steps of the sum over all processes, and the seconds that a step took."""
        means = {name: summed(value, device).item() / self.steps for name, value in self.sums.items()}
        return means | {"seconds": (time.monotonic() - self.since) / self.steps}


class Tracker(Protocol):
    """As a run of wandb or trackio is."""

    def log(self, values: dict[str, float], *, step: int) -> object: ...

    def finish(self) -> object: ...


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def log(self, values: dict[str, float], *, step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()


def check_trackers(names: Sequence[str]) -> None:
    """Raise `ConfigError` for a tracker that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f"the recipe asks for {name}, which is not installed: pip install {name}")


def open_trackers(names: Sequence[str], out: Path, config: dict[str, Any]) -> list[Tracker]:
    """The trackers of a run, on the first process; none on the others."""
    if rank() > 0:
        return []
    return [
        TensorBoard(out)
        if name == "tensorboard"
        else import_module(name).init(project="twgi", name=out.name, config=config)
        for name in names
    ]


class Log:
    """The lines of a run of `steps` steps that goes on after step `first`: what came after is forgotten."""

    def __init__(self, out: Path, *, first: int, steps: int, trackers: Sequence[Tracker] = ()) -> None:
        self.file, self.steps, self.trackers = out / METRICS, steps, trackers
        if rank() == 0 and mend(self.file).is_file():
            with writing_lines(self.file) as kept:
                for line in read_objects(self.file):
                    if line.value["step"] <= first:
                        kept.write(line.value)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line, on the first process."""
        if rank() > 0:
            return
        append_line(self.file, {"step": step, **values})
        told = [f"{name} {value:.4g}" for name, value in values.items() if name not in ("seconds", "epoch")]
        if "seconds" in values:
            left = timedelta(seconds=round(values["seconds"] * (self.steps - step)))
            told.append(f"{values['seconds']:.2g} s a step, {left} left")
        print(f"step {step}/{self.steps}  {'  '.join(told)}", flush=True)
        for tracker in self.trackers:
            tracker.log(values, step=step)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.finish()
