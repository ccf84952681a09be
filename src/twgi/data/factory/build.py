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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from twgi import __version__
from twgi.answers import AnswerBook
from twgi.data.factory.chains import Jobs, endpoint_jobs, icon_jobs
from twgi.data.factory.prompts import find_prompts
from twgi.data.factory.recipe import ROLES, BuildRecipe, Price
from twgi.data.factory.teachers import PictureStore, Teachers
from twgi.errors import DataError, PromptError, RunError
from twgi.files import Object, append_line, mend, read_bytes, read_objects, write_json, writing_lines
from twgi.runs.folder import RunFolder

RECORDS, ITEMS, PROMPTS, ANSWERS, REPORT = (
    "records.jsonl", "items.jsonl", "prompts.jsonl", "answers.jsonl", "report.json",
)  # fmt: skip
STOP_AFTER = 20  # chains in a row that failed: an endpoint is down, and --resume can go on later
MANY = 2**53  # tokens that no reply has
STATUSES = ("kept", "dropped", "failed")
COUNTS = ("answers", "unanswered", "attempts", "input_tokens", "output_tokens", "untold", "pictures", "cost")
_IN, _OUT = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")  # of words, of pictures

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Passes things on and shows how far one is: (things, how many, doing what)."""


def build(
    recipe: BuildRecipe, out: Path, *, resume: bool = False, reuse: Sequence[Path] = (), track: Track | None = None
) -> "BuildReport":
    """Make what the recipe asks for, or go on with it; chains that failed are tried again.

    `reuse`: folders of other builds whose answers may be used. Raises `RunError` where the folder is in use, holds
    another build or something else, or cannot be written, or where chain after chain fails; `ConfigError` where a key
    is missing or refused.
    """
    recipe.check_keys()
    books = [other / ANSWERS for other in reuse]
    if (absent := next((book for book in books if not book.is_file()), None)) is not None:
        raise RunError(f"{absent.parent} holds no {ANSWERS}: give the folder of a build with answers")
    file = Path(recipe.prompts.file) if recipe.prompts.file else None
    try:
        digest = sha256(read_bytes(file)).hexdigest() if file else None
    except DataError as error:
        raise PromptError(f"the prompts file cannot be used: {error}") from None
    run = {"version": 1, "twgi": __version__, "settings": recipe.identity(), "prompts": digest}
    with (
        RunFolder(out, run=run, resume=resume, identity=("settings", "prompts")),
        AnswerBook(out / ANSWERS, others=books) as book,
        closing(_Build(recipe, out, book, reuse, track or (lambda things, total, doing: things))) as work,
    ):
        jobs, interrupted = work.jobs(), False
        try:
            work.make(jobs)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            work.close()
            report = work.written(jobs)
    return replace(report, interrupted=interrupted)


class _Build:
    """A build at work. What is on its way when it ends is waited for a moment (`GRACE`), and its answers are kept."""

    def __init__(self, recipe: BuildRecipe, out: Path, book: AnswerBook, reuse: Sequence[Path], track: Track) -> None:
        self.recipe, self.out, self.book, self.track, self.start = recipe, out, book, track, time.monotonic()
        self.pictures = PictureStore(out, reuse)
        self.teachers, self.pool = Teachers(recipe, self.pictures, book), ThreadPoolExecutor(recipe.workers)
        self.items = self._stored()
        self.prompts: Counter[str] = Counter()

    def _stored(self) -> dict[str, Object]:
        """What became of each chain, as it is on disk. Raises `DataError` where a line is none of ours."""
        items: dict[str, Object] = {}
        for line in read_objects(self.out / ITEMS) if mend(self.out / ITEMS).exists() else ():
            item, kept = line.value, line.value.get("status") == "kept"
            if not {"id", "mode", "status", "step", "reason", *(["record"] if kept else [])} <= item.keys():
                raise DataError(f"{line.where}: not what became of a chain; remove this line")
            items[str(item["id"])] = item
        return items

    def close(self) -> None:
        self.teachers.dismiss()
        self.pool.shutdown(cancel_futures=True)

    def jobs(self) -> Jobs:
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

    def make(self, jobs: Jobs) -> None:
        """Whatever is not made yet. Raises `RunError` where nothing but failures comes for a long while."""
        known = {name for name, item in self.items.items() if item["status"] != "failed"}
        futures = [self.pool.submit(job) for name, job in jobs.items() if name not in known]
        lost = 0
        for future in self.track(as_completed(futures), len(futures), "building"):
            item: Object = future.result()
            append_line(self.out / ITEMS, item)
            self.items[item["id"]] = item
            lost = lost + 1 if item["status"] == "failed" else 0
            if lost >= STOP_AFTER:
                ended = f"{item['step']}: {item['reason']}"
                raise RunError(f"{lost} chains in a row failed ({ended}); --resume goes on later")

    def written(self, jobs: Jobs) -> "BuildReport":
        """Write records and report; chains in the order of the jobs, then those no longer among them."""
        self.items = self._stored()  # an interruption may have come between the disk and our count
        items = [self.items[name] for name in dict.fromkeys((*jobs, *self.items)) if name in self.items]
        with writing_lines(self.out / RECORDS) as lines:
            for item in items:
                if item["status"] == "kept":
                    lines.write(item["record"])
        spent = account(self.book.entries(), {name: one.price for name, one in self.recipe.endpoints.items()})
        seconds = time.monotonic() - self.start
        report = BuildReport(items=items, planned=len(jobs), prompts=self.prompts, spent=spent, seconds=seconds)
        write_json(self.out / REPORT, report.to_json())
        return report


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build has cost and yielded, over all its runs."""

    items: Sequence[Object]  # the last line of each chain in `items.jsonl`
    planned: int  # chains
    prompts: Mapping[str, int] = field(default_factory=dict)  # kept and dropped; empty where none are needed
    spent: Sequence[Object] = ()  # see `account`
    seconds: float  # of this run
    interrupted: bool = False  # somebody told it to stop

    def count(self, status: str, mode: str | None = None) -> int:
        """How many chains (of a mode) ended so."""
        return sum(item["status"] == status and mode in (None, item["mode"]) for item in self.items)

    @property
    def cost(self) -> float:
        """Of all answers, by the recipe's prices."""
        return float(sum(spent["cost"] for spent in self.spent))

    def yields(self) -> dict[str, dict[str, int]]:
        """Mode -> how its chains ended -> how many."""
        modes = dict.fromkeys(item["mode"] for item in self.items)
        return {mode: {status: self.count(status, mode) for status in STATUSES} for mode in modes}

    def to_json(self) -> Object:
        """The content of `report.json`."""
        counts = {status: self.count(status) for status in STATUSES}
        more = {"yield": self.yields(), "prompts": dict(self.prompts), "spent": list(self.spent), "cost": self.cost}
        return {"version": 2, "planned": self.planned, **counts, **more, "seconds": round(self.seconds, 3)}

    def problems(self) -> list[str]:
        """Why chains were not kept: the number, the step, the reason; most frequent first."""
        ends = Counter(
            f"{item['mode']} {item['status']} at {item['step']}: "
            + (f"score {item['score']:g}" if "score" in item else item["reason"])
            for item in self.items
            if item["status"] != "kept"
        )
        return [f"{number} {end}" for end, number in ends.most_common()]

    def summary(self) -> str:
        """All of it in a few lines."""
        lines = _table(self.spent) if self.spent else []
        lines += [f"{mode}: {ends['kept']} of {sum(ends.values())} kept" for mode, ends in self.yields().items()]
        left = self.planned - len(self.items)
        counts = ", ".join(f"{self.count(status)} {status}" for status in STATUSES)
        cost = f", cost {self.cost:.4f}" if self.spent else ""
        return "\n".join([*lines, f"{counts}{f', {left} not begun' if left > 0 else ''}{cost}, {self.seconds:.1f} s"])


def account(entries: Iterable[Mapping[str, Any]], prices: Mapping[str, Price]) -> list[Object]:
    """What each role took of each endpoint, in the order of the roles.

    `untold`: replies whose use of tokens the endpoint did not tell, so that they cost nothing here.
    """
    spent: dict[tuple[str, str], Counter[str]] = {}
    for entry in entries:
        if entry.get("role") not in ROLES or not {"endpoint", "usages", "attempts"} <= entry.keys():
            continue  # a line of somebody else
        price, usages = prices.get(entry["endpoint"], Price()), entry["usages"]
        tokens_in, tokens_out = (sum(_told(usage, keys) for usage in usages) for keys in (_IN, _OUT))
        picture, answered = int("picture" in entry), int("problem" not in entry)
        cost = (tokens_in * price.input + tokens_out * price.output) / 1e6 + picture * price.picture
        untold = sum(not usage for usage in usages)
        taken: Iterable[Any] = (
            answered, 1 - answered, entry["attempts"], tokens_in, tokens_out, untold, picture, cost
        )  # fmt: skip
        spent.setdefault((entry["role"], entry["endpoint"]), Counter()).update(dict(zip(COUNTS, taken, strict=True)))
    order = sorted(spent, key=lambda place: (ROLES.index(place[0]), place[1]))
    return [{"role": role, "endpoint": name, **spent[role, name]} for role, name in order]


def _told(usage: Mapping[str, Any], keys: Sequence[str]) -> int:
    told = (usage[key] for key in keys if isinstance(usage.get(key), int) and 0 <= usage[key] < MANY)
    return int(next(told, 0))


def _table(spent: Sequence[Object]) -> list[str]:
    rows = [("role", "endpoint", *COUNTS), *((*one.values(),) for one in spent)]
    texts = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in texts]
