"""A run: prompts, each thought about a number of times, into a folder that survives whatever happens.

A job is one sample of one prompt. What it comes to depends on nothing but itself, so jobs may run in any order and any
batch, and a resumed run takes up those whose thought is not in the folder yet.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from twgi import __version__
from twgi.runs.folder import Description, RunFolder
from twgi.runs.plan import Job, RunPlan, digest, job_id
from twgi.thinking.events import Done, ImageFinished, Task, ThoughtEvent, ThoughtFailed
from twgi.thinking.settings import Settings
from twgi.trace import Failure, ModelId, Trace, png


class Report(Protocol):
    """Whoever wants to know how a run is coming along.

    It hears how many thoughts are ahead, what goes on in them (with the path of a finished picture), of each that is in
    the folder, and of each prompt that cannot be thought about.
    """

    def begin(self, todo: int) -> None: ...
    def hear(self, event: ThoughtEvent, path: Path | None) -> None: ...
    def finished(self, trace: Trace) -> None: ...
    def failed(self, where: str, problem: str) -> None: ...


@dataclass(kw_only=True)
class Outcome:
    """What is in the folder, thoughts of earlier runs too, and what is not: failures by (prompt, sample)."""

    folder: Path
    prompts: int
    jobs: int
    thoughts: int = 0
    pictures: int = 0
    failures: dict[tuple[int, int], Failure] = field(default_factory=dict)
    interrupted: bool = False
    page: Path | None = None

    @property
    def failed_prompts(self) -> int:
        """How many prompts have a sample that failed."""
        return len({number for number, _ in self.failures})

    @property
    def kept(self) -> str:
        """In words."""
        return f"{self.thoughts} of {self.jobs} thoughts with {self.pictures} pictures are in {self.folder}"


class Thinks(Protocol):
    """What a run needs of a thinker: `Thinker`, or one that has many machines do the work."""

    @property
    def identity(self) -> ModelId: ...
    def resolved(self, settings: Settings) -> Settings: ...
    def stream_many(self, tasks: Iterable[Task], *, batch: int = 8) -> Iterator[tuple[int, ThoughtEvent]]: ...


def run(
    thinker: Thinks,
    plan: RunPlan,
    out: Path,
    *,
    report: Report,
    batch: int = 8,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Outcome:
    """Think about all that is not in the folder `out` yet, and write its page. Ctrl-C ends it early and in order.

    `about` is written into `run.json`, for whoever reads the folder later. Memory does not grow with the run: a thought
    that is in the folder is not in memory. Raises `ConfigError`: a setting does not fit the model or the mode;
    `RunError`: the folder cannot be used (see `RunFolder`).
    """
    described = describe(thinker, plan, about or {})
    with RunFolder(out, run=described.to_json(), resume=resume) as folder:
        outcome = Outcome(folder=out, prompts=len(plan.prompts), jobs=plan.count)
        try:
            for number, line in plan.bad_lines():
                failure = Failure(prompt=line.where, mode=plan.settings.mode, error=line.problem)
                _fail((number, 0), failure, {"where": line.where}, folder, outcome, report)
            _think(thinker, plan, folder, outcome, report, batch)
        except (KeyboardInterrupt, BrokenPipeError):  # or whoever read the output has gone
            outcome.interrupted = True
            folder.refresh()  # a thought may be stored of which nobody has heard
        for trace in folder.thoughts():
            outcome.thoughts += 1
            outcome.pictures += len(trace.images)
        if outcome.thoughts:
            outcome.page = folder.write_page({job_id(*key): failure for key, failure in outcome.failures.items()})
        else:
            folder.discard()
    return outcome


def describe(thinker: Thinks, plan: RunPlan, about: Mapping[str, Any]) -> Description:
    """`run.json`: the settings that come out of the plan and the checkpoint's defaults, and what they are used on."""
    return Description(
        settings=thinker.resolved(plan.settings),
        seed=plan.seed,
        samples=plan.samples,
        part=plan.part,
        model=thinker.identity,
        prompts={str(number): digest(line) for number, line in enumerate(plan.prompts)},
        versions={"twgi": __version__, "torch": torch.__version__, "python": platform.python_version()},
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        about=about,
    )


def _think(thinker: Thinks, plan: RunPlan, folder: RunFolder, outcome: Outcome, report: Report, batch: int) -> None:
    todo, asked = max(0, plan.count - len(folder)), dict[int, Job]()  # of those on their way, by index

    def tasks() -> Iterator[Task]:
        for index, job in enumerate(job for job in plan.jobs() if job.id not in folder):
            asked[index] = job
            yield job.task

    report.begin(todo)
    for index, event in thinker.stream_many(tasks(), batch=max(1, min(batch, todo))):
        job = asked.pop(index) if isinstance(event, Done | ThoughtFailed) else asked[index]
        task, path = job.task, None
        if isinstance(event, Done):
            trace = event.trace.filed(job.id)
            folder.add(trace)
            report.finished(trace)
        elif isinstance(event, ThoughtFailed):
            error, place = str(event.error), {"where": job.where, "id": job.id, "sample": task.sample}
            failure = Failure(prompt=task.prompt, mode=task.settings.mode, error=error, sample=task.sample)
            _fail((job.number, task.sample), failure, place, folder, outcome, report)
        else:
            if isinstance(event, ImageFinished):  # it can be looked at while its thought goes on
                path = folder.put(f"{job.id}-{len(task.pictures) + event.number}.png", png(event.picture))
            report.hear(event, path)


def _fail(
    key: tuple[int, int], failure: Failure, place: dict[str, Any], folder: RunFolder, outcome: Outcome, report: Report
) -> None:
    first = not any(number == key[0] for number, _ in outcome.failures)
    outcome.failures[key] = failure
    folder.fail({**place, "error": failure.error})
    if first:  # the other samples of a prompt fail alike
        report.failed(place["where"], failure.error)
