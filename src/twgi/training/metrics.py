"""What a run tells on its way: into `metrics.jsonl`, on the terminal, and to trackers."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twgi.errors import RunError
from twgi.files import append_line, mend, read_objects, writing_lines
from twgi.training.recipe import RunRecipe
from twgi.training.sharding import rank, summed

METRICS = "metrics.jsonl"
SUM, SINCE = "log:sum:", "log:since"  # in a checkpoint
Tracker = Callable[[dict[str, float], int], object]  # takes values and the step they are of


def open_tracker(name: str, out: Path, config: dict[str, Any]) -> Tracker:
    """A new run in one of the recipe's trackers; tensorboard's is in the run's folder."""
    if name != "tensorboard":
        run = import_module(name).init(project="twgi", name=out.name, config=config)
        atexit.register(run.finish)
        return lambda values, step: run.log(values, step=step)
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(out / name))

    def tell(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)
        writer.flush()

    return tell


class Log:
    """The lines of a run that goes on after step `first`: those of later steps are forgotten.

    `state` is what a checkpoint has of the line that had begun then.
    """

    def __init__(self, recipe: RunRecipe, first: int, state: Mapping[str, Tensor]) -> None:
        out = Path(recipe.out)
        self.file, self.steps, self.trackers = out / METRICS, recipe.steps, list[Tracker]()
        if rank() == 0:
            self.trackers = [open_tracker(name, out, asdict(recipe)) for name in recipe.report_to]
            if mend(self.file).is_file():
                with writing_lines(self.file) as kept:
                    for line in read_objects(self.file):
                        if not isinstance(step := line.value.get("step"), int):
                            raise RunError(f"{line.where}: no line of metrics; delete it, or give another `out`")
                        if step <= first:
                            kept.write(line.value)
        self.before = {name.removeprefix(SUM): value for name, value in state.items() if name.startswith(SUM)}
        self.sums, self.since = dict[str, Tensor](), int(state.get(SINCE, first))
        self.start = first, time.monotonic()

    def add(self, parts: Mapping[str, Tensor]) -> None:
        for name, value in parts.items():
            if name not in self.sums:
                self.sums[name] = self.before.pop(name, torch.zeros_like(value)).to(value.device)
            self.sums[name] = self.sums[name] + value.detach()

    def state(self) -> dict[str, Tensor]:
        """What a run that goes on needs for its next line, of this process."""
        since = {SINCE: torch.tensor(self.since)} if rank() == 0 else {}
        return since | {SUM + name: value.cpu() for name, value in (self.before | self.sums).items()}

    def write_means(self, done: int, more: Mapping[str, float]) -> None:
        """Means over the steps since the last such line, of all processes together, and more; and begin anew."""
        first, started = self.start
        means = {name: summed(value).item() / (done - self.since) for name, value in self.sums.items()}
        self.write(done, means | {"seconds": (time.monotonic() - started) / (done - first), **more})
        self.sums, self.since, self.start = {}, done, (done, time.monotonic())

    def write(self, done: int, values: dict[str, float]) -> None:
        """One line after so many steps, on the first process."""
        if rank() > 0:
            return
        append_line(self.file, {"step": done, **values})
        told = [f"{name} {value:.4g}" for name, value in values.items() if name not in ("seconds", "epoch")]
        if "seconds" in values:
            left = timedelta(seconds=round(values["seconds"] * (self.steps - done)))
            told.append(f"{values['seconds']:.2g} s a step, {left} left")
        print(f"step {done}/{self.steps}  {'  '.join(told)}", flush=True)
        for tracker in self.trackers:
            tracker(values, done)
