"""Pictures of a benchmark -> verdicts -> `results.jsonl` and `scores.json`.

What was judged is kept apart from what is missing or unknown, a thought that made no readable picture counts as wrong,
and a score that is not of the whole says PARTIAL, SUBSET or UNKNOWN.
"""

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from twgi import __version__
from twgi.errors import ConfigError, ImageError, RefusedImageError, RunError
from twgi.evaluation.frame import Benchmark, Part, PictureToJudge, PromptSet, Verdict
from twgi.evaluation.pictures import NOT_DRAWN, Generation, Key, PictureReader, PictureRef, PictureSet, read_pictures
from twgi.evaluation.results import SCORES, PictureResult, Result, Results, Status, write_results
from twgi.files import write_json
from twgi.runs.plan import RunPlan
from twgi.runs.run import Outcome, Report, Thinks, run
from twgi.thinking.modes import KINDS

WHICH = {"final": slice(-1, None), "first": slice(1), "each": slice(None)}

Counting = Callable[[int, str], AbstractContextManager[Callable[[], None]]]
"""(how many, doing what) -> call what it gives after each"""


@dataclass(kw_only=True)
class JudgedThought:
    """One thought; of its pictures with these `numbers`, of which the last counts, a verdict is entered by and by.

    `nothing` is the verdict where there is no picture at all.
    """

    item: Any
    sample: int
    generation: Generation
    numbers: Sequence[int]
    nothing: Verdict
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    hashes: dict[int, str] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.item.label}, sample {self.sample}"

    @property
    def problem(self) -> str | None:
        """Why the picture that counts cannot be looked at, or why there is no thought."""
        if self.generation.failed is not None or not self.numbers:
            return self.generation.failed or NOT_DRAWN
        return self.problems.get(self.numbers[-1])

    @property
    def status(self) -> Status:
        if self.generation.failed is not None:
            return "failed"
        if self.verdict.score is None and self.problem is not None:
            return "not looked at"
        return "scored" if self.problem is None else "no picture" if self.problem == NOT_DRAWN else "unreadable"

    @property
    def wrong(self) -> bool:
        """Whether there was nothing to look at, which counts as wrong."""
        return self.status not in ("scored", "not looked at")

    @property
    def verdict(self) -> Verdict:
        """On the picture that counts."""
        return self.verdicts[self.numbers[-1]] if self.numbers else self.nothing

    @property
    def pending(self) -> int:
        return sum(verdict.pending for verdict in self.verdicts.values())

    def row(self, out: Path) -> Result | None:
        """Its row of results in a folder; None where nothing is known, since a row needs a score."""
        score, refs = self.verdict.score, self.generation.pictures
        if score is None:
            return None
        reason = "failed" if self.generation.failed is not None else self.generation.finish_reason
        why = {"why": self.problem} if self.status in ("failed", "unreadable") else {}
        crops = [ref.crop for ref in refs if ref.crop is not None]
        return Result(
            id=self.item.id,
            sample=self.sample,
            task=self.item.task,
            prompt=self.item.prompt,
            score=score,
            status=self.status,
            pictures=tuple(self._picture(number, ref, out) for number, ref in enumerate(refs)),
            parts=self.verdict.parts,
            detail={
                "finish_reason": reason, **why, **self.verdict.detail, **({"crop": crops[0]} if crops else {}),
            },
        )  # fmt: skip

    def _picture(self, number: int, ref: PictureRef, out: Path) -> PictureResult:
        """The picture's file is named as seen from `out`, where the rows are."""
        verdict = self.verdicts.get(number, Verdict(score=None))
        return PictureResult(
            image=Path(os.path.relpath(ref.file, out)).as_posix() if ref.file else None,
            kind=ref.kind,
            sha256=self.hashes.get(number),
            score=verdict.score,
            reasons=verdict.reasons,
            image_tokens=ref.image_tokens,
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
    def missing(self) -> list[tuple[Any, int]]:
        """(prompt, sample) of every thought that should be there and is not."""
        wanted = ((item, sample) for item in self.asked.items for sample in range(self.pictures.samples))
        return [(item, sample) for item, sample in wanted if (item.id, sample) not in self.pictures.generations]

    def common(self, judged: Mapping[str, Any]) -> dict[str, Any]:
        missing = [f"{item.label}, sample {sample}" for item, sample in self.missing]
        missing += [f"{t.label}: {t.problem}" for t in self.thoughts if t.status == "not looked at"]
        asked = [thought for thought in self.thoughts if thought.pending and thought.status != "not looked at"]
        missing += [f"{thought.label}: {thought.pending} questions without an answer" for thought in asked]
        prompts, whole = len(self.asked.items), self.asked.whole
        wanted = prompts * self.pictures.samples
        first = {thought.generation.pictures[0].kind for thought in self.thoughts if thought.generation.pictures}
        return {
            "partial": f"{wanted - len(missing)}/{wanted}" if missing else None,
            "subset": f"{prompts}/{whole}" if prompts < whole else None,
            "which": self.which,
            "thoughts": len(self.thoughts),
            "prompts": prompts,
            "samples": self.pictures.samples,
            "first_is_draft": any(kind not in KINDS or KINDS[kind].draft for kind in first),  # unknown: it may be
            "statuses": dict(Counter(thought.status for thought in self.thoughts)),
            "missing": missing,
            "unknown_files": list(self.pictures.unknown),
            "by_name": list(self.pictures.by_name),
            "left_out": list(self.asked.left_out),
            "judged": dict(judged),
        }


def judge_all(
    benchmark: Benchmark, asked: PromptSet, pictures: PictureSet, out: Path, *, which: str, counting: Counting,
    part: Part = (1, 1),
) -> list[JudgedThought]:  # fmt: skip
    """Judge all thoughts that are there, or those of a part of the prompts.

    `which` picture of a thought counts: the final one, the first one, or with `each` the final one while all are
    judged. Pictures are opened one after the other, as the judge takes them in. Raises `CheckpointError` where whoever
    judges fails the self-test, `ConfigError` for an unknown `which` or where the judge refuses.
    """
    if which not in WHICH:
        raise ConfigError(f"which must be final, first or each, got {which!r}")
    thoughts: dict[Key, JudgedThought] = {}
    for item in asked.items[part[0] - 1 :: part[1]]:
        for sample in range(pictures.samples):
            if there := pictures.generations.get((item.id, sample)):
                numbers, nothing = range(len(there.pictures))[WHICH[which]], benchmark.wrong(item, NOT_DRAWN)
                thoughts[item.id, sample] = JudgedThought(
                    item=item, sample=sample, generation=there, numbers=numbers, nothing=nothing
                )
    with counting(sum(len(thought.numbers) for thought in thoughts.values()), "judging") as advance:
        opened = _opened(thoughts.values(), benchmark, advance)
        for picture, verdict in benchmark.judge(opened, out, part):
            thought = thoughts[picture.item.id, picture.sample]
            thought.verdicts[picture.number] = verdict
            if verdict.score is None and verdict.reasons:
                thought.problems[picture.number] = verdict.reasons[0]
    return list(thoughts.values())


def _opened(
    thoughts: Iterable[JudgedThought], benchmark: Benchmark, advance: Callable[[], None]
) -> Iterator[PictureToJudge]:
    """Every picture that can be looked at; of the others it is entered why not."""
    reader = PictureReader()
    for thought in thoughts:
        for number in thought.numbers:
            image = None
            try:
                if not thought.generation.recorded:
                    thought.hashes[number], image = reader.open(thought.generation.pictures[number])
            except RefusedImageError as error:
                thought.problems[number] = str(error)
                thought.verdicts[number] = Verdict(score=None, reasons=(str(error),))
            except ImageError as error:
                problem = thought.problems[number] = str(error)
                told = problem if problem == NOT_DRAWN else f"unreadable: {problem}"
                thought.verdicts[number] = benchmark.wrong(thought.item, told)
            else:
                yield PictureToJudge(item=thought.item, sample=thought.sample, number=number, image=image)
            advance()


def score(
    benchmark: Benchmark, asked: PromptSet, pictures: PictureSet, out: Path, *, which: str, counting: Counting
) -> dict[str, Any]:
    """Judge all thoughts that are there and write `results.jsonl` and `scores.json`; returns what the latter holds.

    Raises `RunError` where nobody could look at any of them, and what `judge_all` does.
    """
    thoughts = judge_all(benchmark, asked, pictures, out, which=which, counting=counting)
    if thoughts and all(thought.status == "not looked at" for thought in thoughts):
        raise RunError(f"none of the {len(thoughts)} pictures could be judged: {thoughts[0].problem}")
    rows = [row for thought in thoughts if (row := thought.row(out)) is not None]
    evaluation = Evaluation(asked=asked, pictures=pictures, which=which, thoughts=thoughts, rows=rows)
    versions = {"twgi": __version__, "python": platform.python_version()}
    judged = {**benchmark.describe(), "which": which, "versions": versions}
    common = {"version": 1, "benchmark": benchmark.name, "unknown": None, **evaluation.common(judged)}
    content = common | benchmark.scores(evaluation)
    write_results(out, Results(benchmark=benchmark.name, rows=rows, made=pictures.made, judged=judged))
    write_json(out / SCORES, content)
    return content


def draw(
    thinker: Thinks, benchmark: Benchmark, asked: PromptSet, plan: RunPlan, out: Path, *, report: Report,
    batch: int = 8, resume: bool = False,
) -> tuple[Outcome, Path | None]:  # fmt: skip
    """Think about all that is not in the run folder `out` yet; where its pictures are laid out for other scorers."""
    outcome = run(thinker, plan, out, report=report, batch=batch, resume=resume, about=asked.describe(benchmark.name))
    there = outcome.thoughts and not outcome.interrupted
    return outcome, benchmark.lay_out(asked, read_pictures(out, benchmark.name)) if there else None


def costs(generations: Sequence[Generation], upto: Iterable[int]) -> list[dict[str, float]]:
    """Mean image tokens and seconds of work up to so many pictures; a thought that ended earlier stays at its end."""
    points = []
    timed = all(generation.seconds for generation in generations)
    for count in upto if generations else ():
        point = {"image_tokens": fmean(sum(ref.image_tokens for ref in one.pictures[:count]) for one in generations)}
        if timed:
            point["seconds"] = fmean(one.seconds[min(count, len(one.seconds)) - 1] for one in generations)
        points.append(point)
    return points
