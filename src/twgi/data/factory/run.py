"""A build: a locked folder that is complete at every moment, whatever happens to the process.

::

    run.json       what the build is: the recipe, versions
    records.jsonl  the chains that were kept, for `twgi data check`, `twgi encode`, `twgi train`
    images/        their pictures, and those of the chains that were not kept
    items.jsonl    what became of every chain, with the judge's score and reason, the dropped ones too
    prompts.jsonl  what became of every prompt
    answers.jsonl  every answer of an endpoint by the hash of what was asked
    report.json    cost and yield
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from twgi import __version__
from twgi.data.factory.answers import Album, Answers
from twgi.data.factory.crew import Crew
from twgi.data.factory.outcome import Outcome, made, read_outcomes
from twgi.data.factory.prompts import find_prompts
from twgi.data.factory.recipe import BuildRecipe
from twgi.data.factory.report import Report, account
from twgi.data.factory.teachers import EndpointTeacher, IconTeacher, Teacher
from twgi.data.lines import writing
from twgi.errors import PromptError, RunError
from twgi.thinking.run_folder import RunFolder

RECORDS, ITEMS, PROMPTS, REPORT = "records.jsonl", "items.jsonl", "prompts.jsonl", "report.json"
STOP_AFTER = 20  # chains in a row that failed: an endpoint is down, and --resume can go on later

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Passes things on and shows how far one is: (things, how many, doing what)."""


def build(
    recipe: BuildRecipe, out: Path, *, resume: bool = False, reuse: Sequence[Path] = (), track: Track | None = None
) -> Report:
    """Make what the recipe asks for, or go on with it; chains that failed are tried again.

    Args:
        out: the folder of the build.
        resume: go on with the build that is there.
        reuse: folders of other builds whose answers may be used.
        track: shows how far one is.

    Raises:
        RunError: the folder is in use, holds another build or something else, or cannot be written; or chain after
            chain fails.
        ConfigError: a key is missing or refused.
    """
    recipe.check_keys()
    with RunFolder(out, run=_description(recipe), resume=resume) as folder, _Site(recipe, folder, reuse, track) as site:
        site.find_teacher()
        try:
            site.make_all()
        finally:
            report = site.report()
            _write(folder, report)
    return report


def _description(recipe: BuildRecipe) -> dict[str, Any]:
    """What goes into `run.json`."""
    file = Path(recipe.prompts.file) if recipe.prompts.file else None
    try:
        digest = sha256(file.read_bytes()).hexdigest() if file else None
    except OSError as error:
        raise PromptError(f"cannot read the prompts file {file}: {error.strerror}") from None
    return {"version": 1, "twgi": __version__, "settings": recipe.identity(), "prompts": digest}


class _Site:
    """A build at work. What is on its way when it ends is waited for and kept."""

    teacher: Teacher

    def __init__(self, recipe: BuildRecipe, folder: RunFolder, reuse: Sequence[Path], track: Track | None) -> None:
        self.recipe, self.folder, self.start = recipe, folder, time.monotonic()
        self.track: Track = track or (lambda things, total, doing: things)
        self.outcomes = read_outcomes(folder.mend(ITEMS))
        self.album, self.answers = Album(folder), Answers(folder, reuse)
        self.crew, self.pool = Crew(recipe, self.album, self.answers), ThreadPoolExecutor(recipe.workers)
        self.prompts: dict[str, int] = {}

    def __enter__(self) -> "_Site":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.crew.dismiss()
        self.pool.shutdown(cancel_futures=True)

    def find_teacher(self) -> None:
        """With the work laid out. Raises `RunError` where there is none."""
        if self.recipe.teacher == "icons":
            self.teacher = IconTeacher(self.recipe, self.album)
            return
        sieve = find_prompts(self.recipe, self.crew, self._together)
        with writing(self.folder.path / PROMPTS) as lines:
            for line in sieve.seen:
                lines.write(line)
        if not sieve.kept:
            raise RunError(f"{self.folder.path}: not one prompt; see {PROMPTS} and answers.jsonl there, then --resume")
        self.prompts = dict(Counter(line["status"] for line in sieve.seen))
        self.teacher = EndpointTeacher(self.recipe, self.crew, sieve)

    def _together(self, ask: Callable[[int], list[str]], wave: Sequence[int]) -> Iterable[list[str]]:
        return self.track(self.pool.map(ask, wave), len(wave), "asking for prompts")

    def make_all(self) -> None:
        """Whatever is not made yet. Raises `RunError` where nothing but failures comes for a long while."""
        known = {name for name, outcome in self.outcomes.items() if outcome.status != "failed"}
        todo = [job for job in self.teacher.jobs if job.id not in known]
        futures = [self.pool.submit(made, job, self.teacher, self.recipe.keep_from) for job in todo]
        lost = 0
        for future in self.track(as_completed(futures), len(futures), "building"):
            outcome: Outcome = future.result()
            self.folder.append(ITEMS, outcome.to_json())
            self.outcomes[outcome.id] = outcome
            lost = lost + 1 if outcome.status == "failed" else 0
            if lost >= STOP_AFTER:
                ended = f"{outcome.step}: {outcome.reason}"
                raise RunError(f"{lost} chains in a row failed ({ended}); --resume goes on later")

    def report(self) -> Report:
        """Chains in the order of the jobs, then those of prompts that are no longer among them."""
        places = {job.id: place for place, job in enumerate(self.teacher.jobs)}
        prices = {name: station.price for name, station in self.recipe.endpoints.items()}
        return Report(
            outcomes=sorted(self.outcomes.values(), key=lambda outcome: places.get(outcome.id, len(places))),
            steps=self.teacher.steps,
            prompts=self.prompts,
            spent=account(self.answers.entries(), prices),
            seconds=time.monotonic() - self.start,
            planned=len(places),
        )


def _write(folder: RunFolder, report: Report) -> None:
    with writing(folder.path / RECORDS) as lines:
        for outcome in report.outcomes:
            if outcome.status == "kept" and outcome.record is not None:
                lines.write(outcome.record)
    folder.put(REPORT, json.dumps(report.to_json(), indent=2, ensure_ascii=False).encode() + b"\n")
