"""Training on chains (`twgi train RECIPE`): text and pictures in one sequence, the whole model or adapters beside it.

The run's folder holds `run.json` (what was asked for), `checkpoint-STEP/`, `metrics.jsonl`, `samples/`, and at the end
`model/`, which `twgi think --model` loads, and `adapter/` where adapters were trained. The image tokenizer is read,
never trained, and written as it was read.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments

from twgi import __version__
from twgi.config import load_recipe
from twgi.errors import ConfigError, RunError
from twgi.thinking.thinker import Thinker
from twgi.trace import write_file
from twgi.training.batches import MicroBatches, Order, Rows
from twgi.training.checkpoints import barrier, newest_checkpoint, processes, rank, step_of
from twgi.training.objective import Counts, Objective
from twgi.training.recipe import Optimization, Recipe
from twgi.training.sharding import is_sharded, join_processes, leave_processes, shard, sharder
from twgi.training.sources import open_rows
from twgi.training.trainee import Trainee, check_export, copied, export, trainee
from twgi.training.trainer import MetricsFile, SafeTrainer, forget_after

RUN = "run.json"
Watch = Callable[[Thinker, Path], Mapping[str, float]]
"""Draws with the model of the moment into a folder, and returns what is to be logged of it."""


def learning_rate(optimizer: Optimization, steps: int, step: int) -> float:
    """The share of `lr` that step `step` (from 0) uses."""
    if step < optimizer.warmup:
        return (step + 1) / (optimizer.warmup + 1)
    left = max(steps - step, 0) / max(steps - optimizer.warmup, 1)
    return {"linear": left, "constant": 1.0, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[optimizer.schedule]


@dataclass(kw_only=True)
class Window:
    """The terms of the loss between two log lines: sums of the means of each step."""

    first_step: int
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, terms: Mapping[str, Tensor], counts: Counts) -> None:
        """One batch's part of a step."""
        means = {name: value.detach() / counts.divisors()[name] for name, value in terms.items()}
        means["ce"] = (terms["text_ce"] + terms["image_ce"]).detach() / max(counts.text + counts.image, 1)
        for name, value in means.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value

    def means(self, step: int) -> dict[str, float]:
        """Mean over the steps and the sum over the processes."""
        if processes() > 1:
            for value in self.sums.values():
                torch.distributed.all_reduce(value)
        return {name: value.item() / max(step - self.first_step, 1) for name, value in self.sums.items()}


class ChainsTrainer(SafeTrainer):
    """Each step's loss is a mean over all its supervised tokens, on all processes; each term of it is logged."""

    def __init__(self, recipe: Recipe, first_step: int, **options: Any) -> None:
        super().__init__(**options)
        self.recipe, self.first_step, self.kept = recipe, first_step, recipe.keep
        self.model_accepts_loss_kwargs = True  # the loss is already a mean over the step
        self.objective: Objective = self.model
        self.window = Window(first_step=first_step)

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            self.optimizer: Any = _adamw(self.recipe.optimizer, self.objective)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            chosen = self.recipe.optimizer
            self.lr_scheduler: Any = LambdaLR(
                optimizer or self.optimizer, lambda step: learning_rate(chosen, num_training_steps, step)
            )
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader[Any]:
        batches: Any = self.train_dataset
        left = range(self.first_step * batches.accumulation, len(batches))
        return DataLoader(batches, batch_size=None, sampler=left, generator=torch.Generator())

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        counts = torch.stack([self.objective.count(batch["labels"]) for batch in batch_samples]).sum(0).to(device)
        if processes() > 1:
            torch.distributed.all_reduce(counts)
        return counts

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        counts = Counts(text=int(num_items_in_batch[0]), image=int(num_items_in_batch[1]))
        bf16 = self.recipe.bf16 and not is_sharded(self.objective)  # sharded ones are gathered in bfloat16 already
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=bf16):
            terms = model(inputs["ids"], inputs["labels"], inputs.get("documents"))
        loss = self.objective.total(terms, counts)
        if not math.isfinite(loss.detach().item()):
            raise RunError(_not_finite(loss, self.state.global_step + 1, inputs["sources"]))
        self.window.add(terms, counts)
        return loss * processes()  # gradients are averaged over processes

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        step, order = self.state.global_step, self.train_dataset.order
        if "loss" in logs:
            logs |= self.window.means(step)
            self.window = Window(first_step=step)
        self.state.epoch = step * order.batching.batch / len(order.items)
        super().log(logs, start_time)


def _adamw(chosen: Optimization, objective: Objective) -> torch.optim.AdamW:
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    return torch.optim.AdamW(
        weights, lr=chosen.lr, betas=(chosen.beta1, chosen.beta2), eps=chosen.eps, weight_decay=chosen.weight_decay
    )


def _not_finite(loss: Tensor, step: int, sources: Sequence[str]) -> str:
    return (
        f"the loss is {loss.detach().item()} at step {step}, in the rows {', '.join(sources)}; nothing was learnt "
        "from them: look at them, or lower the learning rate"
    )


class Watcher(TrainerCallback):
    """Draws every so many steps, on the first process; `samples/step-STEP/` keeps what it drew."""

    def __init__(self, recipe: Recipe, trained: Trainee, watch: Watch, trainer: ChainsTrainer) -> None:
        self.recipe, self.trained, self.watch, self.trainer = recipe, trained, watch, trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.recipe.watch.every == 0:
            folder = Path(self.recipe.out) / "samples" / f"step-{state.global_step:06d}"
            found = watch_once(self.recipe, self.trained, self.watch, folder)
            if found:
                self.trainer.log({f"watch_{name}": value for name, value in found.items()})


def watch_once(recipe: Recipe, trained: Trainee, watch: Watch, folder: Path) -> Mapping[str, float]:
    """Think with the model as it is; training goes on as if nothing had happened."""
    objective, states = trained.objective, torch.get_rng_state()
    ready = copied(recipe, trained)
    found: Mapping[str, float] = {}
    if rank() == 0 and ready is not None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        decoder = ready.objective.decoder.eval()
        found = watch(Thinker(decoder, trained.loaded.tokenizer, trained.loaded), folder)
        objective.train()
    torch.set_rng_state(states)
    barrier()
    return found


def run_chains(recipe_path: str | Path, overrides: Sequence[str] = (), watch: Watch | None = None) -> Path:
    """Train by a recipe file; returns the folder of the model. `watch` draws every `watch.every` steps."""
    recipe = load_recipe(Recipe, recipe_path, overrides)
    device = join_processes(recipe.device)
    spread = processes() > 1 and not recipe.deepspeed
    trained = trainee(recipe, device, sharder(device, bf16=recipe.bf16) if spread else None)
    rows, digest = open_rows(recipe.data, trained.loaded.tokenizer, recipe.max_length)
    folder = train(recipe, trained, rows, digest, watch)
    leave_processes()
    return folder


def train(recipe: Recipe, trained: Trainee, rows: Rows, digest: str, watch: Watch | None = None) -> Path:
    """Train to the recipe's last step, from its newest checkpoint on; returns the folder of the model.

    `digest` says what the rows are: a run goes on with the same rows only.

    Raises:
        ConfigError: settings that do not go together.
        RunError: the folder's run was another one, or the loss is not a number.
    """
    out, order = Path(recipe.out), Order(rows, recipe.batching)
    steps = recipe.steps or math.ceil(recipe.epochs * len(order.items) / recipe.batching.batch)
    _check_tools(recipe)
    check_export(recipe, trained.vq)
    if rank() == 0:
        _same_run(out, recipe, trained, digest, steps)
        print(_describe(recipe, trained, order, steps), flush=True)
    barrier()
    if trained.place is not None:
        shard(trained.objective, trained.place)  # a block at a time to its device
    else:
        trained.objective.to(trained.device)
    checkpoint = newest_checkpoint(out)
    trainer = _trainer(recipe, trained, order, steps, step_of(checkpoint) if checkpoint else 0)
    if recipe.watch.every and watch is not None:
        trainer.add_callback(Watcher(recipe, trained, watch, trainer))
    if checkpoint is not None and trainer.first_step == steps:
        trainer.restore(checkpoint)  # the run was killed while it wrote the model
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return export(recipe, trained)


def _check_tools(recipe: Recipe) -> None:
    for name in (*recipe.report_to, *(["deepspeed"] if recipe.deepspeed else [])):
        if find_spec(name) is None:
            raise ConfigError(f"the recipe asks for {name}, which is not installed: pip install {name}")
    if recipe.deepspeed and "RANK" not in os.environ:
        raise ConfigError("deepspeed needs torchrun, for one GPU too: torchrun --nproc_per_node=1 -m twgi train RECIPE")


def _trainer(recipe: Recipe, trained: Trainee, order: Order, steps: int, first: int) -> ChainsTrainer:
    out, chosen = Path(recipe.out), recipe.optimizer
    batches = MicroBatches(
        order, steps=steps, pad=trained.loaded.tokenizer.vocab.pad, rank=rank(), processes=processes(),
        loss_on_padding=recipe.loss.padding_carries_loss,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=steps, max_grad_norm=chosen.clip, seed=recipe.seed,
        gradient_accumulation_steps=batches.accumulation, use_cpu=recipe.device == "cpu",
        per_device_train_batch_size=recipe.batching.micro_batch, logging_steps=recipe.log_every,
        save_steps=recipe.save_every, report_to=list(recipe.report_to), deepspeed=recipe.deepspeed or None,
        disable_tqdm=True, remove_unused_columns=False, ignore_data_skip=True,
        # What a configuration of DeepSpeed may leave to `auto`; nothing else asks for these.
        learning_rate=chosen.lr, adam_beta1=chosen.beta1, adam_beta2=chosen.beta2, adam_epsilon=chosen.eps,
        weight_decay=chosen.weight_decay, warmup_steps=chosen.warmup, bf16=recipe.bf16 and bool(recipe.deepspeed),
    )  # fmt: skip
    if rank() == 0:
        forget_after(out / "metrics.jsonl", first)
    return ChainsTrainer(
        recipe, first, model=trained.objective, args=arguments, train_dataset=batches,
        callbacks=[MetricsFile(out / "metrics.jsonl")],
    )  # fmt: skip


def _same_run(out: Path, recipe: Recipe, trained: Trainee, digest: str, steps: int) -> None:
    """Write down what was asked for; where something is written down already, it must be the same."""
    decides = json.loads(json.dumps({name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
        for name, value in recipe.decides().items()}))  # fmt: skip
    asked = decides | {"steps": steps, "rows": digest, "model": trained.loaded.sha256}
    file = out / RUN
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))["decides"]
        changed = next((name for name in asked if before.get(name) != asked[name]), None)
        if changed is not None:
            raise RunError(f"{out} holds a run with another {changed}; give another `out`, or the recipe it began with")
        return
    out.mkdir(parents=True, exist_ok=True)
    content = {"version": 1, "decides": asked, "recipe": asdict(recipe), "versions": versions()}
    write_file(file, (json.dumps(content, indent=1) + "\n").encode())


def versions() -> dict[str, str]:
    """Of what computes."""
    import transformers

    return {"twgi": __version__, "torch": str(torch.__version__), "transformers": transformers.__version__}


def _describe(recipe: Recipe, trained: Trainee, order: Order, steps: int) -> str:
    objective = trained.objective
    training = sum(weight.numel() for weight in objective.parameters() if weight.requires_grad)
    every = sum(weight.numel() for weight in objective.parameters())
    rows, tokens = len(order.rows.lengths), int(order.rows.lengths.sum())
    what = recipe.lora.describe(trained.loaded.tokenizer.vocab) + ". " if recipe.method == "lora" else ""
    return (
        f"{what}{training:,} of {every:,} parameters train, on {rows:,} rows with {tokens:,} tokens: "
        f"{steps:,} steps of {recipe.batching.batch}, {processes()} process(es)"
    )
