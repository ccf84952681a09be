"""What recipes say: the keys of every run, and those of `twgi train RECIPE`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

import torch

from twgi.errors import ConfigError
from twgi.training.batches import Batching
from twgi.training.lora import Lora
from twgi.training.loss import LossWeights, as_published

METHODS = ("full", "lora")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EXPORT_DTYPES = DTYPES | {"float16": torch.float16}
SCHEDULES = ("linear", "constant", "cosine")
TRACKERS = ("tensorboard", "trackio", "wandb")


def check_one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raise `ConfigError` for a value that is none of these."""
    if value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """The keys of every run of the loop.

    Args:
        out: folder of the run: checkpoints, metrics.jsonl, and what comes out.
        steps: of the optimizer.
        bf16: products in bfloat16 (autocast).
        log_every, save_every: steps between log lines, and between checkpoints; `keep` checkpoints stay.
        threads: on a CPU.
        report_to: some of tensorboard, trackio and wandb; metrics.jsonl is written always.
    """

    FREE: ClassVar[tuple[str, ...]] = ("out", "log_every", "save_every", "keep", "threads", "device", "report_to")
    """Keys that the weights do not depend on."""

    out: str
    seed: int = 0
    steps: int = 0
    bf16: bool = True
    log_every: int = 20
    save_every: int = 250
    keep: int = 2
    threads: int = 1
    device: str = "cpu"
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.log_every, self.save_every, self.keep, self.threads) < 1 or self.steps < 0:
            raise ConfigError("log_every, save_every, keep and threads must be 1 or more, steps 0 or more")
        for name in self.report_to:
            check_one_of("report_to", name, TRACKERS)
            if find_spec(name) is None:
                raise ConfigError(f"the recipe asks for {name}, which is not installed: pip install {name}")

    def decides(self) -> dict[str, Any]:
        """What the weights depend on, as JSON values: a resumed run must not change it."""
        return {name: value for name, value in asdict(self).items() if name not in self.FREE}


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """AdamW and its learning rate: `warmup` steps up, then `schedule` (to nothing at the last step, or constant)."""

    lr: float = 1e-5
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup: int = 0
    schedule: str = "linear"

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.eps <= 0 or self.weight_decay < 0 or self.clip < 0 or self.warmup < 0:
            raise ConfigError(f"optimizer: lr and eps must be above 0, the rest 0 or more, got {self}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigError(f"optimizer: beta1 and beta2 must be in [0, 1), got {self.beta1} and {self.beta2}")
        check_one_of("optimizer.schedule", self.schedule, SCHEDULES)


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Drawing with the model as it trains: every so many steps (0: never), the prompts of a file, or `icons`.

    With `icons`, or a file of GenEval's metadata lines, what was drawn is judged by the icon world's checker.
    """

    every: int = 0
    prompts: str = "icons"
    mode: str = "direct"
    limit: int = 16
    samples: int = 1
    batch: int = 8

    def __post_init__(self) -> None:
        if self.every < 0 or min(self.limit, self.samples, self.batch) < 1:
            raise ConfigError(f"watch: every must be 0 or more, limit, samples and batch 1 or more, got {self}")


@dataclass(frozen=True, kw_only=True)
class Recipe(RunRecipe):
    """A training run over rows of chains; what comes out is `model` (and `adapter`).

    Args:
        model: preset or folder to begin from.
        adapter: folder of a LoRA adapter to go on with.
        data: JSON lines of records or rows, or a folder of shards (`twgi encode`).
        max_length: rows with more tokens are left out, and counted aloud.
        method: `full`, or `lora`.
        compat: `reference` computes the losses as the published trainer does, mistakes included.
        steps: 0 takes `epochs`.
        dtype: of the weights that are held; products may be in bfloat16 all the same.
        recompute: keep no activations of the blocks; slower, and far less memory.
        export_dtype: of the weights that are written.
    """

    FREE: ClassVar[tuple[str, ...]] = (
        *RunRecipe.FREE, "data", "model", "adapter", "compat", "watch", "epochs", "recompute", "export_dtype"
    )  # fmt: skip

    data: tuple[str, ...] = ()
    model: str = "icons"
    adapter: str = ""
    max_length: int = 4096
    method: str = "full"
    lora: Lora = field(default_factory=Lora)
    loss: LossWeights = field(default_factory=LossWeights)
    compat: str = ""
    batching: Batching = field(default_factory=Batching)
    optimizer: Optimization = field(default_factory=Optimization)
    watch: Watching = field(default_factory=Watching)
    epochs: float = 1.0
    dtype: str = "float32"
    bf16: bool = False
    recompute: bool = False
    export_dtype: str = "float32"
    log_every: int = 10
    save_every: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat not in ("", "reference"):
            raise ConfigError(f"compat must be reference, or left out, got {self.compat!r}")
        if self.compat:
            object.__setattr__(self, "loss", as_published(self.loss))
        check_one_of("method", self.method, METHODS)
        check_one_of("dtype", self.dtype, DTYPES)
        check_one_of("export_dtype", self.export_dtype, EXPORT_DTYPES)
        if self.method == "full" and self.dtype != "float32":
            raise ConfigError(
                "method full needs dtype float32 (small steps vanish in bfloat16); bf16: true is for speed"
            )
        if self.adapter and self.method != "lora":
            raise ConfigError("adapter goes with method lora; merge it first (twgi train merge) to train all weights")
        if self.max_length < 1 or (self.steps == 0 and self.epochs <= 0):
            raise ConfigError("max_length must be 1 or more, and either steps or epochs above 0")
