"""What a run is asked to do, known before any model is loaded: its prompts, how often, and with which settings."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from twgi.decoding.compat import parse_compat
from twgi.decoding.guidance import plan_named
from twgi.decoding.params import SamplingParams
from twgi.errors import ConfigError
from twgi.thinking.modes import images_allowed, mode_named
from twgi.thinking.prompts import BadLine, PromptLine
from twgi.thinking.run_folder import UNUSABLE
from twgi.tokenizer.image import MAX_BYTES


@dataclass(frozen=True, kw_only=True)
class Job:
    """One sample of one prompt; `number` counts the prompts of the run from 0."""

    number: int
    sample: int
    prompt: PromptLine
    mode: str
    seed: int

    @property
    def stem(self) -> str:
        """How the names of its picture files begin."""
        return f"{self.number:05d}-{self.sample}"

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What its trace says of it."""
        return self.prompt.prompt, self.mode, self.seed, self.sample


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run is asked to do. `mode` and `seed` hold for prompts that do not say their own.

    Args:
        sampling: settings of `SamplingParams` that differ from the checkpoint's defaults.
        guidance: a preset or a scheme; None leaves it to the checkpoint.
        scales: guidance scales that differ from those of the guidance.
        compat: quirks of the published code to keep, see `parse_compat`.

    Raises:
        ConfigError: something is unknown or out of its range.
    """

    prompts: tuple[PromptLine | BadLine, ...]
    mode: str = "direct"
    seed: int = 0
    samples: int = 1
    rounds: int = 1
    sampling: Mapping[str, Any] = field(default_factory=dict)
    guidance: str | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    compat: str = ""

    def __post_init__(self) -> None:
        images_allowed(mode_named(self.mode), self.rounds)
        SamplingParams().updated(self.sampling)
        parse_compat(self.compat)
        if self.guidance is not None:
            plan_named(self.guidance)
        if self.samples < 1:
            raise ConfigError(f"samples must be 1 or more, got {self.samples}")

    def jobs(self) -> Iterator[Job]:
        """Every sample of every prompt that can be used, in order."""
        for number, line in enumerate(self.prompts):
            if isinstance(line, PromptLine):
                mode, seed = line.mode or self.mode, self.seed if line.seed is None else line.seed
                for sample in range(self.samples):
                    yield Job(number=number, sample=sample, prompt=line, mode=mode, seed=seed)

    def bad_lines(self) -> Iterator[tuple[int, BadLine]]:
        """(number of the prompt, line) of each that cannot be used."""
        return ((number, line) for number, line in enumerate(self.prompts) if isinstance(line, BadLine))


def digest(line: PromptLine | BadLine) -> str:
    """What a prompt is, its pictures included, in 16 signs; a line that cannot be used may yet be mended."""
    if isinstance(line, BadLine):
        return UNUSABLE
    content = hashlib.sha256(json.dumps([line.prompt, line.mode, line.seed]).encode())
    for image in line.images:
        try:
            with open(image, "rb") as file:
                content.update(hashlib.sha256(file.read(MAX_BYTES + 1)).digest())
        except (OSError, ValueError):
            return UNUSABLE
    return content.hexdigest()[:16]
