"""A build: a locked folder that is complete at every moment, whatever happens to the process.

::

    run.json       what the build is: the recipe, versions
    records.jsonl  the chains that were kept, for `twgi data check`, `twgi encode`, `twgi train`
    images/        their pictures, and those of the chains that were not kept
    items.jsonl    what became of every chain, with the judge's score and reason, the dropped ones too
    prompts.jsonl  what became of every prompt
    answers.jsonl  every answer of an endpoint by the hash of what was asked, and every request that had none
    report.json    cost and yield
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from typing import Any

from twgi import __version__
from twgi.answers import AnswerBook
from twgi.data.factory.chains import ChainJob, endpoint_jobs, icon_jobs
from twgi.data.factory.pictures import PictureStore
from twgi.data.factory.prompts import find_prompts
from twgi.data.factory.recipe import BuildRecipe
from twgi.data.factory.report import BuildReport, account
from twgi.data.factory.teachers import Teachers
from twgi.errors import PromptError, RunError
from twgi.files import Line, Object, append_line, mend, read_objects, write_json, writing_lines
from twgi.runs.folder import RunFolder

RECORDS, ITEMS, PROMPTS, ANSWERS, REPORT = (
    "records.jsonl", "items.jsonl", "prompts.jsonl", "answers.jsonl", "report.json",
)  # fmt: skip
STOP_AFTER = 20  # chains in a row that failed: an endpoint is down, and --resume can go on later

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Passes things on and shows how far one is: (things, how many, doing what)."""


def build(
    recipe: BuildRecipe, out: Path, *, resume: bool = False, reuse: Sequence[Path] = (), track: Track | None = None
) -> BuildReport:
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
    books = [other / ANSWERS for other in reuse]
    if (absent := next((book for book in books if not book.is_file()), None)) is not None:
        raise RunError(f"{absent.parent} holds no {ANSWERS}: give the folder of a build with answers")
    with (
        RunFolder(out, run=_description(recipe), resume=resume, identity=("settings", "prompts")),
        AnswerBook(out / ANSWERS, others=books) as book,
        _Build(recipe, out, book, reuse, track or (lambda things, total, doing: things)) as work,
    ):
        jobs = work.jobs()
        try:
            work.make(jobs)
        finally:
            report = work.written(jobs)
    return report


def _description(recipe: BuildRecipe) -> Object:
    """What goes into `run.json`."""
    file = Path(recipe.prompts.file) if recipe.prompts.file else None
    try:
        digest = sha256(file.read_bytes()).hexdigest() if file else None
    except OSError as error:
        raise PromptError(f"cannot read the prompts file {file}: {error.strerror}") from None
    return {"version": 1, "twgi": __version__, "settings": recipe.identity(), "prompts": digest}


class _Build:
    """A build at work. What is on its way when it ends is waited for and its answers are kept."""

    def __init__(self, recipe: BuildRecipe, out: Path, book: AnswerBook, reuse: Sequence[Path], track: Track) -> None:
        self.recipe, self.out, self.book, self.track, self.start = recipe, out, book, track, time.monotonic()
        self.pictures = PictureStore(out, reuse)
        self.teachers, self.pool = Teachers(recipe, self.pictures, book), ThreadPoolExecutor(recipe.workers)
        stored = mend(out / ITEMS)
        self.items: dict[str, Object] = {line.value["id"]: line.value for line in _lines(stored)}
        self.prompts: Counter[str] = Counter()

    def __enter__(self) -> "_Build":
        return self

    def __exit__(self, *_: object) -> None:
        self.teachers.dismiss()
        self.pool.shutdown(cancel_futures=True)

    def jobs(self) -> list[ChainJob]:
        """The chains that there are to be. Raises `RunError` where there is no prompt for them."""
        if self.recipe.teacher == "icons":
            return icon_jobs(self.recipe, self.pictures)
        found = find_prompts(self.recipe, self.teachers, self._together)
        with writing_lines(self.out / PROMPTS) as lines:
            for line in found.seen:
                lines.write(line)
        if not found.kept:
            raise RunError(f"{self.out}: not one prompt; see {PROMPTS} and {ANSWERS} there, then --resume")
        self.prompts.update(line["status"] for line in found.seen)
        return endpoint_jobs(self.recipe, self.teachers, found.kept)

    def _together(self, ask: Callable[[int], list[str]], wave: Sequence[int]) -> Iterable[list[str]]:
        return self.track(self.pool.map(ask, wave), len(wave), "asking for prompts")

    def make(self, jobs: Sequence[ChainJob]) -> None:
        """Whatever is not made yet. Raises `RunError` where nothing but failures comes for a long while."""
        known = {name for name, item in self.items.items() if item["status"] != "failed"}
        futures = [self.pool.submit(job.item, self.recipe.keep_from) for job in jobs if job.id not in known]
        lost = 0
        for future in self.track(as_completed(futures), len(futures), "building"):
            item: Object = future.result()
            append_line(self.out / ITEMS, item)
            self.items[item["id"]] = item
            lost = lost + 1 if item["status"] == "failed" else 0
            if lost >= STOP_AFTER:
                ended = f"{item['step']}: {item['reason']}"
                raise RunError(f"{lost} chains in a row failed ({ended}); --resume goes on later")

    def written(self, jobs: Sequence[ChainJob]) -> BuildReport:
        """Write records and report; chains in the order of the jobs, then those no longer among them."""
        places = {job.id: place for place, job in enumerate(jobs)}
        items = sorted(self.items.values(), key=lambda item: places.get(item["id"], len(places)))
        with writing_lines(self.out / RECORDS) as lines:
            for item in items:
                if item["status"] == "kept":
                    lines.write(item["record"])
        prices = {name: endpoint.price for name, endpoint in self.recipe.endpoints.items()}
        spent, seconds = account(self.book.entries(), prices), time.monotonic() - self.start
        report = BuildReport(items=items, planned=len(jobs), prompts=self.prompts, spent=spent, seconds=seconds)
        write_json(self.out / REPORT, report.to_json())
        return report


def _lines(path: Path) -> Iterable[Line]:
    return read_objects(path) if path.exists() else ()
