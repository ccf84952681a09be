"""What a run is asked to do, known before any model is loaded: its prompts, how often, and how to think.

A plan is plain data: a worker process that gets one, the name of a model and a folder does the whole run.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from twgi.errors import ConfigError
from twgi.files import open_regular
from twgi.runs.folder import UNUSABLE
from twgi.runs.prompts import BadLine, PromptLine
from twgi.thinking.events import Task
from twgi.thinking.settings import Settings
from twgi.tokenizer.image import MAX_BYTES


MOST_SAMPLES = 100_000  # of a prompt


@dataclass(frozen=True, kw_only=True)
class Job:
    """One sample of one prompt, as a thinker takes it; `number` counts the prompts of the run from 0."""

    number: int
    where: str  # the prompt stands
    task: Task

    @property
    def id(self) -> str:
        """Of its trace, and how the names of its picture files begin."""
        return job_id(self.number, self.task.sample)


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

    `part` is (which, of how many), from 1: this run does every so-many-th prompt of all; the rest others do. Raises
    `ConfigError`: something is out of its range.
    """

    prompts: tuple[PromptLine | BadLine, ...]
    settings: Settings = field(default_factory=Settings)
    seed: int = 0
    samples: int = 1
    part: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise ConfigError(f"samples must be 1 or more, and {MOST_SAMPLES} at most, got {self.samples}")
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

    def _mine(self) -> Iterator[tuple[int, PromptLine | BadLine]]:
        which, of = self.part
        return islice(enumerate(self.prompts), which - 1, None, of)

    def jobs(self) -> Iterator[Job]:
        """Every sample of every prompt of this part that can be used, in order."""
        for number, line in self._mine():
            if isinstance(line, PromptLine):
                seed = self.seed if line.seed is None else line.seed
                task = Task(prompt=line.prompt, pictures=line.images, seed=seed, settings=self._settings(line))
                for sample in range(self.samples):
                    yield Job(number=number, where=line.where, task=replace(task, sample=sample))

    @property
    def count(self) -> int:
        """How many jobs there are."""
        return self.samples * sum(isinstance(line, PromptLine) for _, line in self._mine())

    def bad_lines(self) -> Iterator[tuple[int, BadLine]]:
        """(number of the prompt, line) of each that cannot be used."""
        return ((number, line) for number, line in self._mine() if isinstance(line, BadLine))


def digest(line: PromptLine | BadLine) -> str:
    """What a prompt is, its pictures included, in 16 signs; a line that cannot be used may yet be mended."""
    if isinstance(line, BadLine):
        return UNUSABLE
    content = hashlib.sha256(json.dumps([line.prompt, line.mode, line.seed]).encode())
    for image in line.images:
        try:
            with open_regular(image) as file:
                content.update(hashlib.sha256(file.read(MAX_BYTES + 1)).digest())
        except (OSError, ValueError):
            return UNUSABLE
    return content.hexdigest()[:16]
