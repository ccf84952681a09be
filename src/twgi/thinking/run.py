"""A run: prompts, each thought about a number of times, into a folder that survives whatever happens.

A job is one sample of one prompt. What it comes to depends on nothing but itself, so jobs may run in any order and any
batch, and a resumed run takes up those whose thought is not in the folder yet.
"""

import platform
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from twgi import __version__
from twgi.decoding.compat import parse_compat
from twgi.errors import RunError
from twgi.render import Record, render_page
from twgi.thinking.modes import mode_named
from twgi.thinking.plan import Job, RunPlan, digest
from twgi.thinking.run_folder import RunFolder
from twgi.thinking.thinker import Thinker
from twgi.thinking.thought import Done, Failed, ImageFinished, Task, ThoughtEvent
from twgi.trace import IMAGES, Failure, ImageSegment, Trace, png

_STEM = re.compile(rf"{IMAGES}/(.+)-\d+\.png")


class Report(Protocol):
    """Whoever wants to know how a run is coming along."""

    def begin(self, todo: int) -> None:
        """So many thoughts are ahead."""

    def hear(self, event: ThoughtEvent, path: Path | None) -> None:
        """What goes on in one of them; `path` is where a finished picture is."""

    def finished(self, trace: Trace) -> None:
        """A thought is in the folder."""

    def failed(self, where: str, problem: str) -> None:
        """A prompt cannot be thought about."""


@dataclass(kw_only=True)
class Outcome:
    """What is in the folder, thoughts of earlier runs too, and what is not: failures by (prompt, sample)."""

    folder: Path
    prompts: int
    jobs: int
    traces: dict[Job, Trace]
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
        pictures = sum(len(trace.images) for trace in self.traces.values())
        return f"{len(self.traces)} of {self.jobs} thoughts with {pictures} pictures are in {self.folder}"

    def records(self) -> list[Record]:
        """Thoughts and failures in the order of the prompts."""
        of_jobs: dict[tuple[int, int], Record] = {(job.number, job.sample): t for job, t in self.traces.items()}
        return [record for _, record in sorted({**of_jobs, **self.failures}.items(), key=lambda item: item[0])]


def run(thinker: Thinker, plan: RunPlan, out: Path, *, report: Report, batch: int = 8, resume: bool = False) -> Outcome:
    """Think about all that is not in the folder `out` yet, and write its page. Ctrl-C ends it early and in order.

    Raises:
        ConfigError: a setting does not fit the model or the mode.
        RunError: the folder cannot be used (see `RunFolder`).
    """
    described = describe(thinker, plan)
    with RunFolder(out, run=described, resume=resume) as folder:
        jobs = list(plan.jobs())
        traces = claimed(jobs, folder.traces())
        outcome = Outcome(folder=out, prompts=len(plan.prompts), jobs=len(jobs), traces=traces)
        try:
            _report_bad_lines(plan, folder, outcome, report)
            _think(thinker, plan, folder, outcome, report, batch)
        except (KeyboardInterrupt, BrokenPipeError):  # or whoever read the output has gone
            outcome.interrupted = True
        if outcome.traces:
            outcome.page = folder.write_page(render_page(outcome.records(), folder=out))
        else:
            folder.discard()
    return outcome


def describe(thinker: Thinker, plan: RunPlan) -> dict[str, Any]:
    """`run.json`: the settings that come out of the plan and the checkpoint's defaults, and what they are used on."""
    task, mode = _task(thinker, plan), mode_named(plan.mode)
    common: dict[str, Any] = {"mode": plan.mode, "seed": plan.seed, "samples": plan.samples, "rounds": plan.rounds}
    if plan.compat:
        common["compat"] = sorted(parse_compat(plan.compat))
    guidance = asdict(thinker.thinking.plan(task, mode)) | {"changed": dict(plan.scales)}
    return {
        "version": 1,
        "settings": {**common, "sampling": asdict(thinker.thinking.sampling(task)), "guidance": guidance},
        "model": thinker.thinking.model.to_json(),
        "prompts": {str(number): digest(line) for number, line in enumerate(plan.prompts)},
        "versions": {"twgi": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _task(thinker: Thinker, plan: RunPlan, job: Job | None = None) -> Task:
    """A job as the thinker takes it; without one, the settings that all have in common."""
    defaults = thinker.thinking.sampling(Task(prompt="", compat=plan.compat))
    return Task(
        prompt=job.prompt.prompt if job else "",
        mode=job.mode if job else plan.mode,
        pictures=job.prompt.images if job else (),
        seed=job.seed if job else plan.seed,
        sample=job.sample if job else 0,
        sampling=defaults.updated(plan.sampling),
        guidance=plan.guidance,
        scales=plan.scales,
        rounds=plan.rounds,
        compat=plan.compat,
    )


def _report_bad_lines(plan: RunPlan, folder: RunFolder, outcome: Outcome, report: Report) -> None:
    for number, line in plan.bad_lines():
        outcome.failures[number, 0] = Failure(prompt=line.where, mode=plan.mode, error=line.problem)
        folder.fail({"where": line.where, "error": line.problem})
        report.failed(line.where, line.problem)


def _think(thinker: Thinker, plan: RunPlan, folder: RunFolder, outcome: Outcome, report: Report, batch: int) -> None:
    todo = [job for job in plan.jobs() if job not in outcome.traces]
    report.begin(len(todo))
    tasks = (_task(thinker, plan, job) for job in todo)
    for index, event in thinker.stream_many(tasks, batch=max(1, min(batch, len(todo)))):
        job = todo[index]
        if isinstance(event, Done):
            outcome.traces[job] = trace = event.trace.filed(job.stem)
            folder.add(trace)
            report.finished(trace)
        elif isinstance(event, Failed):
            _fail(job, str(event.error), folder, outcome, report)
        else:
            report.hear(event, _placed(event, job, folder))


def _fail(job: Job, problem: str, folder: RunFolder, outcome: Outcome, report: Report) -> None:
    first = not any(number == job.number for number, _ in outcome.failures)
    outcome.failures[job.number, job.sample] = Failure(
        prompt=job.prompt.prompt, mode=job.mode, error=problem, sample=job.sample
    )
    folder.fail({"where": job.prompt.where, "sample": job.sample, "error": problem})
    if first:  # the other samples of a prompt fail alike
        report.failed(job.prompt.where, problem)


def _placed(event: ThoughtEvent, job: Job, folder: RunFolder) -> Path | None:
    """A finished picture can be looked at while its thought goes on."""
    if not isinstance(event, ImageFinished):
        return None
    name = f"{IMAGES}/{job.stem}-{len(job.prompt.images) + event.number}.png"
    return folder.put(name, png(event.picture))


def claimed(jobs: Sequence[Job], traces: Iterable[Trace]) -> dict[Job, Trace]:
    """Which job each stored thought is of.

    A thought with pictures says so by their names. One without fits its prompt, mode, seed and sample, and where that
    holds for several jobs they are the same job several times.

    Raises:
        RunError: a thought is of none of them.
    """
    stored = list(traces)
    by_stem = {job.stem: job for job in jobs}
    found = {by_stem[stem]: trace for trace in stored if (stem := _stem(trace)) in by_stem}
    free: defaultdict[tuple[str, str, int, int], deque[Job]] = defaultdict(deque)
    for job in jobs:
        if job not in found:
            free[job.key].append(job)
    for trace in (trace for trace in stored if _stem(trace) is None):
        key = (trace.prompt, trace.mode, trace.seed, trace.sample)
        if free[key]:
            found[free[key].popleft()] = trace
    if len(found) != len(stored):
        raise RunError(f"the run folder holds {len(stored) - len(found)} thoughts that are of no prompt of this run")
    return found


def _stem(trace: Trace) -> str | None:
    images = (segment.image for segment in trace.segments if isinstance(segment, ImageSegment) and segment.image)
    match = _STEM.fullmatch(next(images, ""))
    return match[1] if match else None
