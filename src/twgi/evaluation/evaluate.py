"""Pictures of a benchmark -> judgements -> `results.jsonl` and `scores.json`.

What was judged is kept apart from what is missing, a thought without a readable picture counts as wrong, and a score
that is not of the whole says PARTIAL or SUBSET.
"""

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from twgi import __version__
from twgi.errors import ConfigError, ImageError
from twgi.evaluation.frame import Benchmark, Part, PictureJudgement, PictureToJudge, Place, PromptSet
from twgi.evaluation.pictures import NOT_DRAWN, Generation, PictureReader, PictureSet, read_pictures
from twgi.evaluation.results import SCORES, PictureResult, Result, Results, Status, write_results
from twgi.files import write_json
from twgi.runs.plan import RunPlan
from twgi.runs.run import Outcome, Report, Thinks, run
from twgi.thinking.modes import KINDS

WHICH = ("final", "first", "each")
MOST_LISTED = 20

Counting = Callable[[int, str], AbstractContextManager[Callable[[], None]]]
"""(how many, doing what) -> call what it gives after each"""


@dataclass(frozen=True, kw_only=True)
class JudgedThought:
    """One thought with the judgements of its pictures, by number; `judgement` is that of the picture that counts."""

    item: Any
    sample: int
    generation: Generation
    pictures: Mapping[int, PictureJudgement]
    hashes: Mapping[int, str]
    status: Status
    why: str | None
    judgement: PictureJudgement

    @property
    def label(self) -> str:
        return f"{self.item.label}, sample {self.sample}"

    @property
    def pending(self) -> int:
        return sum(judgement.pending for judgement in self.pictures.values())

    def row(self, out: Path) -> Result | None:
        """Its row of results in a folder; None where nothing is known, since a row needs a score."""
        score = self.judgement.score
        if score is None:
            return None
        why: dict[str, Any] = {"why": self.why} if self.why else {}
        crops = [ref.crop for ref in self.generation.pictures if ref.crop is not None]
        reason = "failed" if self.generation.failed is not None else self.generation.finish_reason
        return Result(
            id=self.item.id,
            sample=self.sample,
            task=self.item.task,
            prompt=self.item.prompt,
            score=score,
            status=self.status,
            pictures=tuple(self._picture(number, out) for number in range(len(self.generation.pictures))),
            parts=self.judgement.parts,
            detail={"finish_reason": reason, **why, **self.judgement.detail, **({"crop": crops[0]} if crops else {})},
        )

    def _picture(self, number: int, out: Path) -> PictureResult:
        generation, judgement = self.generation, self.pictures.get(number)
        file = generation.pictures[number].file
        return PictureResult(
            image=Path(os.path.relpath(file, out)).as_posix() if file else None,
            kind=generation.kind(number),
            sha256=self.hashes.get(number),
            score=judgement.score if judgement else None,
            reasons=judgement.reasons if judgement else (),
            image_tokens=generation.image_tokens[number] if generation.image_tokens else 0,
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All thoughts that are there, judged, and the rows of those about which something is known."""

    asked: PromptSet
    pictures: PictureSet
    which: str
    thoughts: Sequence[JudgedThought]
    rows: Sequence[Result]

    @property
    def wanted(self) -> Iterator[tuple[Any, int]]:
        """(prompt, sample) of every thought that should be there."""
        return ((item, sample) for item in self.asked.items for sample in range(self.pictures.samples))

    @property
    def missing(self) -> list[tuple[Any, int]]:
        """Those that are not."""
        return [(item, n) for item, n in self.wanted if (item.id, n) not in self.pictures.generations]

    def common(self, judged: Mapping[str, Any]) -> dict[str, Any]:
        """What `scores.json` says of every benchmark."""
        missing = [f"{item.label}, sample {sample}" for item, sample in self.missing]
        lacking = [f"{t.label}: {t.pending} questions without an answer" for t in self.thoughts if t.pending]
        wanted = len(self.asked.items) * self.pictures.samples
        there = wanted - len(missing) - len(lacking)
        asked, whole = len(self.asked.items), self.asked.whole
        first = {thought.generation.kind(0) for thought in self.thoughts if thought.generation.pictures}
        return {
            "partial": f"{there}/{wanted}" if there < wanted else None,
            "subset": f"{asked}/{whole}" if asked < whole else None,
            "which": self.which,
            "thoughts": len(self.thoughts),
            "prompts": asked,
            "samples": self.pictures.samples,
            "first_is_draft": any(kind not in KINDS or KINDS[kind].draft for kind in first),  # unknown: it may be
            "statuses": dict(Counter(thought.status for thought in self.thoughts)),
            "missing": [*missing, *lacking],
            "unknown_files": list(self.pictures.unknown),
            "left_out": list(self.asked.left_out),
            "judged": dict(judged),
        }


def judged_numbers(which: str, count: int) -> Sequence[int]:
    """The numbers of a thought's pictures that are judged. Raises `ConfigError` for an unknown `which`."""
    if which not in WHICH:
        raise ConfigError(f"which must be final, first or each, got {which!r}")
    return {"final": [count - 1], "first": [0], "each": range(count)}[which] if count else ()


def judge_all(
    benchmark: Benchmark,
    asked: PromptSet,
    pictures: PictureSet,
    out: Path,
    *,
    which: str,
    counting: Counting,
    part: Part = (1, 1),
) -> list[JudgedThought]:
    """Judge all thoughts that are there, or those of a part of the prompts.

    `which` picture of a thought counts: the final one, the first one, or with `each` the final one while all are
    judged. Pictures are opened one after the other, as the judge takes them in.

    Raises:
        CheckpointError: whoever judges fails the self-test.
        ConfigError: `which` is unknown, or the judge refuses.
    """
    mine = [item for number, item in enumerate(asked.items) if number % part[1] == part[0] - 1]
    there = [
        (item, sample, pictures.generations[item.id, sample])
        for item in mine
        for sample in range(pictures.samples)
        if (item.id, sample) in pictures.generations
    ]
    judging = _Judging(benchmark, [(i, s, g, judged_numbers(which, len(g.pictures))) for i, s, g in there])
    with counting(sum(len(numbers) for *_, numbers in judging.wanted), "judging") as advance:
        for picture, judgement in benchmark.judge(judging.opened(advance), out, part):
            judging.judgements[picture.place] = judgement
    return [judging.thought(*wanted) for wanted in judging.wanted]


class _Judging:
    """The state of `judge_all`: judgements, hashes and problems by place."""

    def __init__(self, benchmark: Benchmark, wanted: list[tuple[Any, int, Generation, Sequence[int]]]) -> None:
        self.benchmark, self.wanted = benchmark, wanted
        self.judgements: dict[Place, PictureJudgement] = {}
        self.hashes: dict[Place, str] = {}
        self.problems: dict[Place, str] = {}

    def opened(self, advance: Callable[[], None]) -> Iterator[PictureToJudge]:
        """Every picture that can be looked at; of the others it is noted why not."""
        reader = PictureReader()
        for item, sample, generation, numbers in self.wanted:
            for number in numbers:
                place, image = (item.id, sample, number), None
                try:
                    if not generation.recorded:
                        self.hashes[place], image = reader.open(generation.pictures[number])
                    yield PictureToJudge(item=item, sample=sample, number=number, image=image)
                except ImageError as error:
                    self.problems[place] = str(error)
                    self.judgements[place] = self.benchmark.wrong(item, _told(str(error)))
                advance()

    def thought(self, item: Any, sample: int, generation: Generation, numbers: Sequence[int]) -> JudgedThought:
        places = {number: (item.id, sample, number) for number in numbers}
        pictures = {number: self.judgements[place] for number, place in places.items()}
        problem = self.problems.get(places[numbers[-1]]) if numbers else NOT_DRAWN
        status = _status(generation, problem)
        return JudgedThought(
            item=item,
            sample=sample,
            generation=generation,
            pictures=pictures,
            hashes={number: self.hashes[place] for number, place in places.items() if place in self.hashes},
            status=status,
            why=generation.failed if status == "failed" else problem if status == "unreadable" else None,
            judgement=pictures[numbers[-1]] if numbers else self.benchmark.wrong(item, status),
        )


def _told(problem: str) -> str:
    return problem if problem == NOT_DRAWN else f"unreadable: {problem}"


def _status(generation: Generation, problem: str | None) -> Status:
    if generation.failed is not None:
        return "failed"
    if problem is None:
        return "scored"
    return "no picture" if problem == NOT_DRAWN else "unreadable"


def score(
    benchmark: Benchmark, asked: PromptSet, pictures: PictureSet, out: Path, *, which: str, counting: Counting
) -> dict[str, Any]:
    """Judge all thoughts that are there and write `results.jsonl` and `scores.json`; returns what the latter holds.

    Raises:
        TwgiError: as `judge_all` does, or the files cannot be written.
    """
    thoughts = judge_all(benchmark, asked, pictures, out, which=which, counting=counting)
    rows = [row for thought in thoughts if (row := thought.row(out)) is not None]
    evaluation = Evaluation(asked=asked, pictures=pictures, which=which, thoughts=thoughts, rows=rows)
    versions = {"twgi": __version__, "python": platform.python_version()}
    judged = {**benchmark.describe(), "which": which, "versions": versions}
    common = {"version": 1, "benchmark": benchmark.name, **evaluation.common(judged)}
    content = {**common, **benchmark.scores(evaluation)}
    write_results(out, Results(benchmark=benchmark.name, rows=rows, made=pictures.made, judged=judged))
    write_json(out / SCORES, content)
    return content


def draw(
    thinker: Thinks,
    benchmark: Benchmark,
    asked: PromptSet,
    plan: RunPlan,
    out: Path,
    *,
    report: Report,
    batch: int = 8,
    resume: bool = False,
) -> tuple[Outcome, Path | None]:
    """Think about all that is not in the run folder `out` yet; where its pictures are laid out for other scorers.

    Raises:
        TwgiError: as `run` does.
    """
    about = asked.describe(benchmark.name)
    outcome = run(thinker, plan, out, report=report, batch=batch, resume=resume, about=about)
    if not outcome.thoughts:
        return outcome, None
    return outcome, benchmark.lay_out(asked, read_pictures(out, benchmark.name))


def costs(generations: Sequence[Generation], upto: Iterable[int]) -> list[dict[str, float]]:
    """Mean image tokens and seconds of work up to so many pictures; a thought that ended earlier stays at its end."""
    counts, points = list(upto), []
    timed = bool(generations) and all(generation.seconds for generation in generations)
    for count in counts if generations else ():
        point = {"image_tokens": fmean(sum(one.image_tokens[:count]) for one in generations)}
        if timed:
            point["seconds"] = fmean(one.seconds[min(count, len(one.seconds)) - 1] for one in generations)
        points.append(point)
    return points


def listed(what: str, entries: Sequence[str]) -> Iterator[str]:
    """A list for people, cut where it is long."""
    yield f"{what}: {len(entries)}"
    yield from (f"  {entry}" for entry in entries[:MOST_LISTED])
    if len(entries) > MOST_LISTED:
        yield f"  and {len(entries) - MOST_LISTED} more, see {SCORES}"


def share(truths: Iterable[bool]) -> float | None:
    """How many of them are true; None of nothing."""
    values = list(truths)
    return sum(values) / len(values) if values else None
