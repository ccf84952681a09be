"""What a run is asked to do, known before any model is loaded: its prompts, how often, and how to think.

A plan is plain data: a worker process that gets one, the name of a model and a folder does the whole run.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from twgi.errors import ConfigError
from twgi.files import UNUSABLE
from twgi.runs.prompts import BadLine, PromptLine
from twgi.thinking.events import Task
from twgi.thinking.settings import Settings
from twgi.tokenizer.image import MAX_BYTES


@dataclass(frozen=True, kw_only=True)
class Job:
    """One sample of one prompt, whose own mode is in the settings; `number` counts the prompts of the run from 0."""

    number: int
    sample: int
    prompt: PromptLine
    settings: Settings
    seed: int

    @property
    def id(self) -> str:
        """Of its trace, and how the names of its picture files begin."""
        return job_id(self.number, self.sample)

    @property
    def task(self) -> Task:
        """As a thinker takes it."""
        return Task(
            prompt=self.prompt.prompt,
            pictures=self.prompt.images,
            seed=self.seed,
            sample=self.sample,
            settings=self.settings,
        )


def job_id(number: int, sample: int) -> str:
    """(12, 0) -> "00012-0"."""
    return f"{number:05d}-{sample}"


def parse_job_id(id: str) -> tuple[int, int]:
    """ "00012-0" -> (12, 0). Raises `ValueError`."""
    number, sample = id.split("-")
    return int(number), int(sample)


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run is asked to do. The mode of `settings` and `seed` hold for prompts that do not say their own.

    Args:
        part: (which, of how many), from 1: this run does every so-many-th prompt of all; the rest others do.

    Raises:
        ConfigError: something is out of its range.
    """

    prompts: tuple[PromptLine | BadLine, ...]
    settings: Settings = field(default_factory=Settings)
    seed: int = 0
    samples: int = 1
    part: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"samples must be 1 or more, got {self.samples}")
        if not 1 <= self.part[0] <= self.part[1]:
            raise ConfigError(f"a part must be like 1/4 to 4/4, got {self.part[0]}/{self.part[1]}")
        object.__setattr__(self, "prompts", tuple(map(self._checked, self.prompts)))

    def _checked(self, line: PromptLine | BadLine) -> PromptLine | BadLine:
        """A line whose own mode is unknown, or does not go with the settings, cannot be used."""
        try:
            _ = self._settings(line) if isinstance(line, PromptLine) else None
        except ConfigError as error:
            return BadLine(where=line.where, problem=str(error))
        return line

    def _settings(self, line: PromptLine) -> Settings:
        return self.settings if line.mode is None else replace(self.settings, mode=line.mode)

    def _mine(self, number: int) -> bool:
        which, of = self.part
        return number % of == which - 1

    def jobs(self) -> Iterator[Job]:
        """Every sample of every prompt of this part that can be used, in order."""
        for number, line in enumerate(self.prompts):
            if isinstance(line, PromptLine) and self._mine(number):
                settings, seed = self._settings(line), self.seed if line.seed is None else line.seed
                for sample in range(self.samples):
                    yield Job(number=number, sample=sample, prompt=line, settings=settings, seed=seed)

    @property
    def count(self) -> int:
        """How many jobs there are."""
        mine = sum(isinstance(line, PromptLine) and self._mine(number) for number, line in enumerate(self.prompts))
        return mine * self.samples

    def bad_lines(self) -> Iterator[tuple[int, BadLine]]:
        """(number of the prompt, line) of each that cannot be used."""
        lines = ((n, line) for n, line in enumerate(self.prompts) if self._mine(n))
        return ((number, line) for number, line in lines if isinstance(line, BadLine))


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
