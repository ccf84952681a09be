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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from twgi import __version__
from twgi.data.factory.answers import Album, Answers
from twgi.data.factory.crew import Crew
from twgi.data.factory.outcome import Outcome, made, read_outcomes
from twgi.data.factory.prompts import find_prompts
from twgi.data.factory.recipe import BuildRecipe
from twgi.data.factory.report import Report, account
from twgi.data.factory.teachers import EndpointTeacher, IconTeacher, Job, Teacher
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
    track = track or (lambda things, total, doing: things)
    recipe.check_keys()
    with RunFolder(out, run=_description(recipe), resume=resume) as folder:
        start, album = time.monotonic(), Album(folder)
        answers, outcomes = Answers(folder, reuse), read_outcomes(folder.mend(ITEMS))
        with _teacher(recipe, folder, album, answers, track) as (teacher, pool, prompts):
            try:
                _make_all(recipe, teacher, folder, pool, outcomes, track)
            finally:
                ended = _ordered(outcomes, teacher.jobs)
                spent = account(answers.entries(), {name: s.price for name, s in recipe.endpoints.items()})
                report = Report(
                    outcomes=ended, steps=teacher.steps, prompts=prompts, spent=spent, planned=len(teacher.jobs),
                    seconds=time.monotonic() - start,
                )  # fmt: skip
                _write(folder, ended, report)
    return report


def _description(recipe: BuildRecipe) -> dict[str, Any]:
    """What goes into `run.json`."""
    file = Path(recipe.prompts.file) if recipe.prompts.file else None
    try:
        digest = sha256(file.read_bytes()).hexdigest() if file else None
    except OSError as error:
        raise PromptError(f"cannot read the prompts file {file}: {error.strerror}") from None
    return {"version": 1, "twgi": __version__, "settings": recipe.identity(), "prompts": digest}


@contextmanager
def _teacher(
    recipe: BuildRecipe, folder: RunFolder, album: Album, answers: Answers, track: Track
) -> Iterator[tuple[Teacher, ThreadPoolExecutor, dict[str, int]]]:
    """The teacher with its work laid out, and who helps it; what is on its way when all ends is waited for and kept."""
    pool = ThreadPoolExecutor(recipe.workers)
    crew = Crew(recipe, album, answers)
    try:
        if recipe.teacher == "icons":
            yield IconTeacher(recipe, album), pool, {}
            return
        sieve = find_prompts(recipe, crew, lambda ask, wave: track(pool.map(ask, wave), len(wave), "prompts"))
        with writing(folder.path / PROMPTS) as lines:
            for line in sieve.seen:
                lines.write(line)
        if not sieve.kept:
            raise RunError(f"{folder.path}: not one prompt; see {PROMPTS} and answers.jsonl there, then --resume")
        yield EndpointTeacher(recipe, crew, sieve), pool, dict(Counter(line["status"] for line in sieve.seen))
    finally:
        crew.dismiss()
        pool.shutdown(cancel_futures=True)


def _make_all(
    recipe: BuildRecipe,
    teacher: Teacher,
    folder: RunFolder,
    pool: ThreadPoolExecutor,
    outcomes: dict[str, Outcome],
    track: Track,
) -> None:
    """Whatever is not made yet. Raises `RunError` where nothing but failures comes for a long while."""
    todo = [job for job in teacher.jobs if job.id not in outcomes or outcomes[job.id].status == "failed"]
    futures = [pool.submit(made, job, teacher, recipe.keep_from) for job in todo]
    lost = 0
    for future in track(as_completed(futures), len(futures), "building"):
        outcome: Outcome = future.result()
        folder.append(ITEMS, outcome.to_json())
        outcomes[outcome.id] = outcome
        lost = lost + 1 if outcome.status == "failed" else 0
        if lost >= STOP_AFTER:
            raise RunError(f"{lost} chains in a row failed ({outcome.step}: {outcome.reason}); --resume goes on later")


def _ordered(outcomes: dict[str, Outcome], jobs: Sequence[Job]) -> list[Outcome]:
    """In the order of the jobs, then those of prompts that are no longer among them."""
    places = {job.id: place for place, job in enumerate(jobs)}
    return sorted(outcomes.values(), key=lambda outcome: places.get(outcome.id, len(places)))


def _write(folder: RunFolder, outcomes: Sequence[Outcome], report: Report) -> None:
    with writing(folder.path / RECORDS) as lines:
        for outcome in outcomes:
            if outcome.status == "kept" and outcome.record is not None:
                lines.write(outcome.record)
    folder.put(REPORT, json.dumps(report.to_json(), indent=2, ensure_ascii=False).encode() + b"\n")
