"""The training loop, and a run of it on chains (`twgi train RECIPE`).

`fit` is the loop: whatever has an objective, an optimizer and batches for each step goes through it, the icon world's
own models too (`icons/`). `train_chains` sets it up for a recipe: the whole model or adapters beside it.

The run's folder holds `run.json` (what was asked for), `checkpoint-STEP/`, `metrics.jsonl`, `samples/`, and at the end
`model/` and `adapter/`. The image tokenizer is read, never trained, and written as it was read.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from twgi import __version__
from twgi.config import load_recipe
from twgi.data.shards import sha256_of
from twgi.errors import RunError
from twgi.files import FolderLock, read_json, write_json
from twgi.runs.folder import refuse_changes
from twgi.thinking.thinker import Thinker
from twgi.training.batches import Order, Rows, micro_batches, open_rows
from twgi.training.checkpoints import clear_unfinished, load_checkpoint, newest_checkpoint, save_checkpoint
from twgi.training.lora import TENSORS
from twgi.training.metrics import Log
from twgi.training.model import Trainable, export, load_trainable, whole_copy
from twgi.training.objective import Batch, LossModule
from twgi.training.recipe import Recipe, RunRecipe, Watching
from twgi.training.sharding import (
    barrier,
    device_for_training,
    join_processes,
    leave_processes,
    processes,
    rank,
    shard,
    summed,
    whole,
)

RUN = "run.json"
OTHERWISE = "give another `out`, or the recipe it began with"
Watch = Callable[[Watching, Thinker, Path], Mapping[str, float]]
"""Draws what a recipe asks for, with the model of the moment, into a folder; returns what is to be logged of it."""
Told = Callable[[int], Mapping[str, float]]  # what is to be logged, given how many steps are done


def fit(
    recipe: RunRecipe,
    objective: LossModule,
    optimizer: Optimizer,
    batches_of: Callable[[int], Sequence[Batch]],
    *,
    rate: Callable[[int], float],
    clip: float,
    autocast: bool,
    told: Told = lambda done: {},
    watch: Told = lambda done: {},
) -> None:
    """Train to the last step, from the newest checkpoint on: to the bytes it would have come to without a break.

    `batches_of` is asked what this process reads in a step (from 0), a batch for each forward pass. It may use the
    model first: samples of reinforcement learning are drawn there. `rate` is the share of the optimizer's own `lr` that
    a step uses, `clip` the largest norm of the gradient (0: any). `told` is what else a log line has; `watch` is called
    after each step, and what it returns is a line by itself.
    Raises `RunError` where the loss is not a number, or the checkpoint is of another model.
    """
    full_rates = [group["lr"] for group in optimizer.param_groups]
    torch.manual_seed(recipe.seed)
    device, checkpoint = objective.train().device, newest_checkpoint(Path(recipe.out))
    first, state = load_checkpoint(checkpoint, objective, optimizer) if checkpoint else (0, {})
    log = Log(recipe, first, state)
    for step in range(first, recipe.steps):
        batches = batches_of(step)
        counts = summed(torch.stack([objective.count(batch) for batch in batches]).sum(0).to(device))
        for batch in batches:
            there = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                terms = objective(there)
            loss = objective.total(terms, counts)
            check_finite("the loss", loss, step, [batch])
            (loss * processes()).backward()  # gradients are averaged over processes
            log.add({"loss": loss, **objective.means(terms, counts)})
        weights = [weight for weight in objective.parameters() if weight.grad is not None]
        norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        length = whole(norm)
        check_finite("the norm of the gradient", length, step, batches)
        if clip > 0:
            clip_grads_with_norm_(weights, clip, norm)
        for group, full in zip(optimizer.param_groups, full_rates, strict=True):
            group["lr"] = full * rate(step)
        optimizer.step()
        optimizer.zero_grad()

        done = step + 1
        if done % recipe.log_every == 0:
            rate_now = optimizer.param_groups[0]["lr"]
            log.write_means(done, {"grad_norm": length.item(), "learning_rate": rate_now, **told(done)})
        if seen := watch(done):
            log.write(done, {f"watch_{name}": value for name, value in seen.items()})
        if done % recipe.save_every == 0 or done == recipe.steps:
            save_checkpoint(Path(recipe.out), done, objective, optimizer, log.state(), keep=recipe.keep)


def check_finite(what: str, value: Tensor, step: int, batches: Sequence[Batch]) -> None:
    """Raise `RunError` before anything is learnt from a number that is none."""
    if not math.isfinite(value.item()):
        rows = ", ".join(source for batch in batches for source in batch["sources"])
        raise RunError(
            f"{what} is {value.item()} at step {step + 1}, in the rows {rows}; nothing was learnt from them: look at "
            "them, or lower the learning rate"
        )


def learning_rate(step: int, steps: int, *, warmup: int, schedule: str = "linear", decay_from: float = 0.0) -> float:
    """The share of the full rate that a step (from 0) uses: `warmup` steps up, then by the schedule.

    `decay_from` is the share of all steps until which the rate stays full, where it is later than the warm-up's end.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = min(max(steps - step, 0) / max(min(steps - warmup, steps * (1 - decay_from)), 1), 1.0)
    return {"linear": left, "constant": 1.0, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[schedule]


@contextmanager
def begin(recipe: RunRecipe, more: dict[str, Any]) -> Iterator[None]:
    """Write down what was asked for, and hold the folder. `more` is what else the weights depend on.

    Raises `RunError` where the folder holds another run, or another process is at it.
    """
    if rank() > 0:
        yield
        return
    device_for_training(recipe.device)
    decides = {name: value for name, value in asdict(recipe).items() if name not in recipe.FREE}
    out, asked = Path(recipe.out), json.loads(json.dumps(decides | more))
    with FolderLock(out, otherwise="wait for it, or give another `out`"):
        clear_unfinished(out)
        if (out / RUN).is_file():
            stored = read_json(out / RUN)
            if not isinstance(stored, dict) or not isinstance(stored.get("decides"), dict):
                raise RunError(f"{out / RUN} is damaged, or not of a training; give another `out`")
            refuse_changes(out, stored["decides"], asked, asked, otherwise=OTHERWISE)
        else:
            versions = {"twgi": __version__, "torch": str(torch.__version__)}
            write_json(out / RUN, {"version": 1, "decides": asked, "recipe": asdict(recipe), "versions": versions})
        try:
            yield
        except KeyboardInterrupt:
            print(f"{out}: the same command goes on from the newest checkpoint", flush=True)
            raise


def train_chains(recipe_path: str | Path, overrides: Sequence[str] = (), watch: Watch | None = None) -> Path:
    """Train by a recipe file; returns the folder of the model. `watch` is called every `watch.every` steps."""
    recipe = load_recipe(Recipe, recipe_path, overrides)
    trained = load_trainable(recipe, *join_processes(recipe.device, bf16=recipe.bf16))
    rows, digest = open_rows(recipe.data, trained.loaded.tokenizer, recipe.max_length)
    folder = train(recipe, trained, rows, digest, watch)
    leave_processes()
    return folder


def train(recipe: Recipe, trained: Trainable, rows: Rows, digest: str, watch: Watch | None = None) -> Path:
    """Train to the recipe's last step, from its newest checkpoint on; returns the folder of the model.

    `digest` says what the rows are: a run goes on with the same rows only. Raises as `begin` and `fit`.
    """
    chosen, order = recipe.optimizer, Order(rows, recipe.batching)
    steps = recipe.steps or math.ceil(recipe.epochs * len(order.items) / recipe.batching.batch)
    recipe = replace(recipe, steps=steps)
    adapter = {"adapter": sha256_of(Path(recipe.adapter) / TENSORS)} if recipe.adapter else {}
    with begin(recipe, {"rows": digest, "model": trained.loaded.sha256, **adapter}):
        barrier()
        if rank() == 0:
            print(_describe(recipe, trained, order), flush=True)
        if trained.place is not None:
            shard(trained.objective, trained.place)  # a block at a time to its device
        else:
            trained.objective.to(trained.device)
        optimizer = torch.optim.AdamW(
            [weight for weight in trained.objective.parameters() if weight.requires_grad], lr=chosen.lr,
            betas=(chosen.beta1, chosen.beta2), eps=chosen.eps, weight_decay=chosen.weight_decay,
        )  # fmt: skip
        fit(
            recipe, trained.objective, optimizer,
            partial(
                micro_batches, order, pad=trained.loaded.tokenizer.vocab.pad, rank=rank(), processes=processes(),
                loss_on_padding=recipe.loss.padding_carries_loss,
            ),
            rate=partial(learning_rate, steps=steps, warmup=chosen.warmup, schedule=chosen.schedule), clip=chosen.clip,
            autocast=recipe.bf16 and trained.place is None,  # FSDP2 gathers in bfloat16 already
            told=lambda done: {"epoch": done * recipe.batching.batch / len(order.items)},
            watch=partial(watch_once, recipe, trained, watch),
        )  # fmt: skip
        return export(recipe, trained)


def watch_once(recipe: Recipe, trained: Trainable, watch: Watch | None, done: int) -> Mapping[str, float]:
    """Every `watch.every` steps: think with the model as it is; training goes on as if nothing had happened."""
    found: Mapping[str, float] = {}
    if not watch or not recipe.watch.every or done % recipe.watch.every:
        return found
    folder, states = Path(recipe.out) / "samples" / f"step-{done:06d}", torch.get_rng_state()
    ready = whole_copy(recipe, trained)
    if rank() == 0 and ready is not None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        decoder = ready.objective.decoder.eval()
        found = watch(recipe.watch, Thinker(decoder, trained.loaded.tokenizer, trained.loaded), folder)
        trained.objective.train()
    torch.set_rng_state(states)
    barrier()
    return found


def _describe(recipe: Recipe, trained: Trainable, order: Order) -> str:
    sizes = [(weight.numel(), weight.requires_grad) for weight in trained.objective.parameters()]
    rows, tokens = len(order.rows.lengths), int(order.rows.lengths.sum())
    what = recipe.lora.describe(trained.loaded.tokenizer.vocab) + ". " if recipe.method == "lora" else ""
    return (
        f"{what}{sum(size for size, trains in sizes if trains):,} of {sum(size for size, _ in sizes):,} parameters "
        f"train, on {rows:,} rows with {tokens:,} tokens: {recipe.steps:,} steps of {recipe.batching.batch}, "
        f"{processes()} process(es)"
    )
