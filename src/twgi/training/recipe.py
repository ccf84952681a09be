"""What recipes say: the keys of every run, and those of `twgi train RECIPE`."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import torch

from twgi.config import check_one_of
from twgi.errors import ConfigError
from twgi.thinking.modes import MODES
from twgi.training.batches import Batching
from twgi.training.lora import Lora, read_lora
from twgi.training.objective import LossWeights, as_published

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EXPORT_DTYPES = DTYPES | {"float16": torch.float16}
TRACKERS = ("tensorboard", "trackio", "wandb")
LARGEST = 10**9  # of a count
LORA = Lora()  # what a recipe has that says nothing of it


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """The keys of every run of the loop. The weights do not depend on those that are FREE."""

    FREE: ClassVar[tuple[str, ...]] = ("out", "log_every", "save_every", "keep", "threads", "device", "report_to")

    out: str  # folder of the run
    seed: int = 0
    steps: int = 0  # of the optimizer
    bf16: bool = True  # products in bfloat16 (autocast)
    log_every: int = 20  # steps between log lines
    save_every: int = 250  # steps between checkpoints
    keep: int = 2  # checkpoints that stay
    threads: int = 1  # on a CPU
    device: str = "cpu"
    report_to: tuple[str, ...] = ()  # some of TRACKERS; metrics.jsonl is written always

    def __post_init__(self) -> None:
        counts = (self.log_every, self.save_every, self.keep, self.threads)
        if min(counts) < 1 or self.threads > 1024 or not 0 <= self.steps <= LARGEST or not 0 <= self.seed < 2**63:
            raise ConfigError(
                "log_every, save_every, keep and threads must be 1 or more (threads at most 1024), steps in "
                f"0..{LARGEST} and seed in 0..2^63-1"
            )
        object.__setattr__(self, "out", os.path.expanduser(self.out))
        if not self.out.strip() or self.out.startswith("~"):
            raise ConfigError(f"out must be a folder, got {self.out!r}")
        for name in self.report_to:
            check_one_of("report_to", name, TRACKERS)
            if find_spec(name) is None:
                raise ConfigError(f"the recipe asks for {name}, which is not installed: pip install {name}")


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
        numbers = (self.lr, self.eps, self.weight_decay, self.clip, self.warmup)
        if min(self.lr, self.eps) <= 0 or min(numbers) < 0 or not all(map(math.isfinite, numbers)):
            raise ConfigError(f"optimizer: lr and eps must be above 0, the rest 0 or more, got {self}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigError(f"optimizer: beta1 and beta2 must be in [0, 1), got {self.beta1} and {self.beta2}")
        check_one_of("optimizer.schedule", self.schedule, ("linear", "constant", "cosine"))


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Drawing with the model as it trains."""

    every: int = 0  # so many steps; 0: never
    prompts: str = "icons"  # or a file; the icon world's checker judges what is in GenEval's metadata lines
    mode: str = "direct"
    limit: int = 16
    samples: int = 1
    batch: int = 8

    def __post_init__(self) -> None:
        if self.every < 0 or min(self.limit, self.samples, self.batch) < 1:
            raise ConfigError(f"watch: every must be 0 or more, limit, samples and batch 1 or more, got {self}")
        check_one_of("watch.mode", self.mode, MODES)


@dataclass(frozen=True, kw_only=True)
class Recipe(RunRecipe):
    """A training run over rows of chains; what comes out is `model` (and `adapter`). 0 `steps` take `epochs`."""

    FREE: ClassVar[tuple[str, ...]] = (
        *RunRecipe.FREE, "data", "model", "adapter", "compat", "watch", "epochs", "recompute", "export_dtype"
    )  # fmt: skip

    data: tuple[str, ...] = ()  # JSON lines of records or rows, or a folder of shards (`twgi encode`)
    model: str = "icons"  # preset or folder to begin from
    adapter: str = ""  # folder of a LoRA adapter to go on with
    max_length: int = 4096  # rows with more tokens are left out, and counted aloud
    method: str = "full"
    lora: Lora = LORA  # with `adapter`, what that was made with
    loss: LossWeights = field(default_factory=LossWeights)
    compat: str = ""  # `reference` computes the losses as the published trainer does, mistakes included
    batching: Batching = field(default_factory=Batching)
    optimizer: Optimization = field(default_factory=Optimization)
    watch: Watching = field(default_factory=Watching)
    epochs: float = 1.0
    dtype: str = "float32"  # of the weights that are held; products may be in bfloat16 all the same
    bf16: bool = False
    recompute: bool = False  # keep no activations of the blocks; slower, and far less memory
    export_dtype: str = "float32"  # of the weights that are written
    log_every: int = 10
    save_every: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compat not in ("", "reference"):
            raise ConfigError(f"compat must be reference, or left out, got {self.compat!r}")
        if self.compat:
            object.__setattr__(self, "loss", as_published(self.loss))
        check_one_of("method", self.method, ("full", "lora"))
        check_one_of("dtype", self.dtype, DTYPES)
        check_one_of("export_dtype", self.export_dtype, EXPORT_DTYPES)
        if self.method == "full" and self.dtype != "float32":
            raise ConfigError(
                "method full needs dtype float32 (small steps vanish in bfloat16); bf16: true is for speed"
            )
        if self.adapter and self.method != "lora":
            raise ConfigError("adapter goes with method lora; merge it first (twgi train merge) to train all weights")
        if self.method != "lora" and self.lora is not LORA:
            raise ConfigError("lora goes with method lora; with method full, leave it out")
        if self.max_length < 1 or (self.steps == 0 and not 0 < self.epochs <= LARGEST):
            raise ConfigError("max_length must be 1 or more, and either steps or epochs above 0")
        if self.adapter:
            self._take_lora()

    def _take_lora(self) -> None:
        """The adapter's own settings; raises `ConfigError` where the recipe says otherwise."""
        own = read_lora(Path(self.adapter))
        for key, value in vars(own).items():
            if self.lora is not LORA and (said := getattr(self.lora, key)) != value:
                raise ConfigError(
                    f"lora.{key} is {said!r} in the recipe and {value!r} in {self.adapter}: an adapter goes on as it "
                    "began; leave lora out, or say the same"
                )
        object.__setattr__(self, "lora", own)
