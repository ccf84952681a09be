"""The training loop, and a run of it on chains (`twgi train RECIPE`).

`fit` is the loop: whatever has an objective, an optimizer and batches for each step goes through it, the icon world's
own models too (`icons/`). `train_chains` sets it up for a recipe: text and pictures in one sequence, the whole model or
adapters beside it.

The run's folder holds `run.json` (what was asked for), `checkpoint-STEP/`, `metrics.jsonl`, `samples/`, and at the end
`model/`, which `twgi think --model` loads, and `adapter/` where adapters were trained. The image tokenizer is read,
never trained, and written as it was read.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from twgi import __version__
from twgi.config import load_recipe
from twgi.errors import RunError
from twgi.files import FolderLock, read_json, refuse_changes, write_json
from twgi.thinking.thinker import Thinker
from twgi.training.batches import Order, Rows, micro_batches
from twgi.training.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint, step_of
from twgi.training.metrics import Log, Tracker, Window, check_trackers, open_trackers
from twgi.training.model import Trainable, check_export, export, load_trainable, whole_copy
from twgi.training.objective import Batch, LossModule
from twgi.training.recipe import Recipe
from twgi.training.sharding import (
    barrier,
    is_sharded,
    join_processes,
    leave_processes,
    processes,
    rank,
    shard,
    sharder,
    summed,
    whole,
)
from twgi.training.sources import open_rows

RUN = "run.json"
OTHERWISE = "give another `out`, or the recipe it began with"
Watch = Callable[[Thinker, Path], Mapping[str, float]]
"""Draws with the model of the moment into a folder, and returns what is to be logged of it."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the loop is given.

    Args:
        out: the run's folder.
        objective: on its device, or spread over the processes.
        optimizer: over its parameters. Each group's `lr` is the full rate.
        rate: the share of the full rate that a step (from 0) uses.
        batches: what this process reads in a step (from 0), a batch for each forward pass. It may use the model first:
            samples of reinforcement learning are drawn here.
        clip: largest norm of the gradient; 0 for any.
        bf16: products in bfloat16 (autocast).
        keep: how many checkpoints stay.
        epoch: steps of one pass over the data, where there is such a thing.
        watch: called every `watch_every` steps with how many are done; what it returns is logged.
    """

    out: Path
    objective: LossModule
    optimizer: Optimizer
    rate: Callable[[int], float]
    batches: Callable[[int], Sequence[Batch]]
    steps: int
    seed: int
    device: torch.device
    clip: float
    bf16: bool
    log_every: int
    save_every: int
    keep: int = 2
    epoch: float | None = None
    watch: Callable[[int], Mapping[str, float]] | None = None
    watch_every: int = 0
    trackers: Sequence[Tracker] = ()


def fit(run: Training) -> None:
    """Train to the last step, from the newest checkpoint on: then it comes to the bytes it would have come to.

    Raises:
        RunError: the loss is not a number, or the checkpoint is of another model.
    """
    full_rates = [group["lr"] for group in run.optimizer.param_groups]
    first = _resume(run)
    log, window = Log(run.out, first=first, steps=run.steps, trackers=run.trackers), Window()
    for step in range(first, run.steps):
        batches = run.batches(step)
        counts = summed(torch.stack([run.objective.count(batch) for batch in batches]).sum(0), run.device)
        for batch in batches:
            window.add(_backward(run, batch, counts, step))
        norm = _clip(run, step, batches)
        for group, full in zip(run.optimizer.param_groups, full_rates, strict=True):
            group["lr"] = full * run.rate(step)
        run.optimizer.step()
        run.optimizer.zero_grad()

        done, window.steps = step + 1, window.steps + 1
        if done % run.log_every == 0:
            told = window.means(run.device) | {"grad_norm": norm, "learning_rate": run.optimizer.param_groups[0]["lr"]}
            log.write(done, told | ({} if run.epoch is None else {"epoch": done / run.epoch}))
            window = Window()
        if run.watch is not None and done % run.watch_every == 0:
            log.write(done, {f"watch_{name}": value for name, value in run.watch(done).items()})
        if done % run.save_every == 0 or done == run.steps:
            save_checkpoint(run.out, done, run.objective, run.optimizer, keep=run.keep)
    log.close()


def _resume(run: Training) -> int:
    """Take up the newest whole checkpoint; returns how many steps are done."""
    torch.manual_seed(run.seed)
    run.objective.train()
    checkpoint = newest_checkpoint(run.out)
    if checkpoint is None:
        return 0
    load_checkpoint(checkpoint, run.objective, run.optimizer)
    if rank() == 0:
        print(f"going on after {checkpoint}", flush=True)
    return step_of(checkpoint)


def _backward(run: Training, batch: Batch, counts: Tensor, step: int) -> dict[str, Tensor]:
    """Forward and backward of one batch; returns its part of what is logged."""
    there = {name: value.to(run.device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.bf16):
        terms = run.objective(there)
    loss = run.objective.total(terms, counts)
    if not math.isfinite(loss.item()):
        raise _not_finite(f"the loss is {loss.item()}", step, [batch])
    (loss * processes()).backward()  # gradients are averaged over processes
    return {"loss": loss, **run.objective.means(terms, counts)}


def _clip(run: Training, step: int, batches: Sequence[Batch]) -> float:
    """Scale the gradient down to a norm of `clip`; returns the norm it had."""
    weights = [weight for weight in run.objective.parameters() if weight.grad is not None]
    norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    found = whole(norm).item()
    if not math.isfinite(found):
        raise _not_finite(f"the norm of the gradient is {found}", step, batches)
    if run.clip > 0:
        clip_grads_with_norm_(weights, run.clip, norm)
    return found


def _not_finite(what: str, step: int, batches: Iterable[Batch]) -> RunError:
    rows = ", ".join(source for batch in batches for source in batch["sources"])
    return RunError(
        f"{what} at step {step + 1}, in the rows {rows}; nothing was learnt from them: look at them, or lower the "
        "learning rate"
    )


def learning_rate(step: int, steps: int, *, warmup: int, schedule: str = "linear", decay_from: float = 0.0) -> float:
    """The share of the full rate that a step (from 0) uses: `warmup` steps up, then by the schedule.

    `decay_from` is the share of all steps until which the rate stays full, where it is later than the warm-up's end.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = min(max(steps - step, 0) / max(min(steps - warmup, steps * (1 - decay_from)), 1), 1.0)
    return {"linear": left, "constant": 1.0, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[schedule]


def begin(out: Path, recipe: Any, decides: Mapping[str, Any]) -> AbstractContextManager[object]:
    """Write down what was asked for, and hold the folder; a run goes on only as it began.

    Raises:
        RunError: the folder holds another run, or another process is at it.
    """
    if rank() > 0:
        return nullcontext()
    lock, file = FolderLock(out, otherwise="wait for it, or give another `out`"), out / RUN
    asked = json.loads(json.dumps(decides))
    if file.is_file():
        refuse_changes(out, read_json(file)["decides"], asked, asked, otherwise=OTHERWISE)
    else:
        versions = {"twgi": __version__, "torch": str(torch.__version__)}
        write_json(file, {"version": 1, "decides": asked, "recipe": asdict(recipe), "versions": versions})
    return lock


def train_chains(recipe_path: str | Path, overrides: Sequence[str] = (), watch: Watch | None = None) -> Path:
    """Train by a recipe file; returns the folder of the model. `watch` draws every `watch.every` steps."""
    recipe = load_recipe(Recipe, recipe_path, overrides)
    check_trackers(recipe.report_to)
    device = join_processes(recipe.device)
    spread = sharder(device, bf16=recipe.bf16) if processes() > 1 else None
    trained = load_trainable(recipe, device, spread)
    rows, digest = open_rows(recipe.data, trained.loaded.tokenizer, recipe.max_length)
    folder = train(recipe, trained, rows, digest, watch)
    leave_processes()
    return folder


def train(recipe: Recipe, trained: Trainable, rows: Rows, digest: str, watch: Watch | None = None) -> Path:
    """Train to the recipe's last step, from its newest checkpoint on; returns the folder of the model.

    `digest` says what the rows are: a run goes on with the same rows only.

    Raises:
        ConfigError: settings that do not go together.
        RunError: the folder's run was another one, or the loss is not a number.
    """
    out, order = Path(recipe.out), Order(rows, recipe.batching)
    steps = recipe.steps or math.ceil(recipe.epochs * len(order.items) / recipe.batching.batch)
    check_export(recipe, trained.vq)
    decides = recipe.decides() | {"steps": steps, "rows": digest, "model": trained.loaded.sha256}
    with begin(out, recipe, decides):
        barrier()
        if rank() == 0:
            print(_describe(recipe, trained, order, steps), flush=True)
        if trained.place is not None:
            shard(trained.objective, trained.place)  # a block at a time to its device
        else:
            trained.objective.to(trained.device)
        fit(_training(recipe, trained, order, steps, watch))
        return export(recipe, trained)


def _training(recipe: Recipe, trained: Trainable, order: Order, steps: int, watch: Watch | None) -> Training:
    """A recipe as the loop wants it."""
    out, chosen, objective = Path(recipe.out), recipe.optimizer, trained.objective
    optimizer = torch.optim.AdamW(
        [weight for weight in objective.parameters() if weight.requires_grad], lr=chosen.lr,
        betas=(chosen.beta1, chosen.beta2), eps=chosen.eps, weight_decay=chosen.weight_decay,
    )  # fmt: skip
    batches = partial(
        micro_batches, order, pad=trained.loaded.tokenizer.vocab.pad, rank=rank(), processes=processes(),
        loss_on_padding=recipe.loss.padding_carries_loss,
    )  # fmt: skip
    return Training(
        out=out, objective=objective, optimizer=optimizer, batches=batches, steps=steps, seed=recipe.seed,
        rate=lambda step: learning_rate(step, steps, warmup=chosen.warmup, schedule=chosen.schedule),
        device=trained.device, clip=chosen.clip,
        bf16=recipe.bf16 and not is_sharded(objective),  # sharded ones are gathered in bfloat16 already
        log_every=recipe.log_every, save_every=recipe.save_every, keep=recipe.keep,
        epoch=len(order.items) / recipe.batching.batch,
        watch=partial(watch_once, recipe, trained, watch) if watch and recipe.watch.every else None,
        watch_every=recipe.watch.every, trackers=open_trackers(recipe.report_to, out, asdict(recipe)),
    )  # fmt: skip


def watch_once(recipe: Recipe, trained: Trainable, watch: Watch, step: int) -> Mapping[str, float]:
    """Think with the model as it is, into `samples/step-STEP`; training goes on as if nothing had happened."""
    folder, states = Path(recipe.out) / "samples" / f"step-{step:06d}", torch.get_rng_state()
    ready = whole_copy(recipe, trained)
    found: Mapping[str, float] = {}
    if rank() == 0 and ready is not None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        decoder = ready.objective.decoder.eval()
        found = watch(Thinker(decoder, trained.loaded.tokenizer, trained.loaded), folder)
        trained.objective.train()
    torch.set_rng_state(states)
    barrier()
    return found


def _describe(recipe: Recipe, trained: Trainable, order: Order, steps: int) -> str:
    weights = list(trained.objective.parameters())
    training = sum(weight.numel() for weight in weights if weight.requires_grad)
    rows, tokens = len(order.rows.lengths), int(order.rows.lengths.sum())
    what = recipe.lora.describe(trained.loaded.tokenizer.vocab) + ". " if recipe.method == "lora" else ""
    return (
        f"{what}{training:,} of {sum(weight.numel() for weight in weights):,} parameters train, on {rows:,} rows with "
        f"{tokens:,} tokens: {steps:,} steps of {recipe.batching.batch}, {processes()} process(es)"
    )
