"""A folder of pictures and a question file -> `results.jsonl` and `scores.json`, complete or labelled PARTIAL.

A thought without a picture, and a picture that cannot be read, are wrong and listed. What is missing is not counted
at all: the score then says of how many thoughts it is, and the command ends with another status than 0.
"""

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from twgi import __version__
from twgi.errors import ConfigError, PromptError
from twgi.evaluation.dpg_bench.gating import Rule, gate
from twgi.evaluation.dpg_bench.judging import Counting, Sheet, ask_about, images_judged
from twgi.evaluation.dpg_bench.official import PictureFile, official_scores
from twgi.evaluation.dpg_bench.pictures import NOT_DRAWN, PictureFolder, Sample
from twgi.evaluation.dpg_bench.questions import Item, QuestionSet
from twgi.evaluation.dpg_bench.scores import Judged, Share, categories, score, soft_scores
from twgi.evaluation.judges.answer import Judge
from twgi.evaluation.judges.cache import AnswerBook
from twgi.evaluation.results import SCORES, Result, Status, write_results
from twgi.evaluation.results import Judged as JudgedPicture
from twgi.trace import write_file

COMPARED: tuple[Rule, ...] = ("cascade", "one-level", "none")


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How pictures are scored.

    Args:
        which: the picture of a thought that counts; with `each` all are judged and the last one counts.
        gating: the rule of the main score; the others stand beside it.
        compat: `official` adds what the published program would have printed.
        shard: (which, of how many), from 1: judge only every so-many-th prompt, and score nothing.
        self_test: a judge that needs one must first tell red from blue.
    """

    which: str = "final"
    gating: Rule = "cascade"
    compat: str | None = None
    shard: tuple[int, int] = (1, 1)
    self_test: bool = True

    @classmethod
    def of(cls, *, gating: str, **options: Any) -> "ScoreOptions":
        """From words as a user gives them. Raises `ConfigError`."""
        rule = next((rule for rule in COMPARED if rule == gating), None)
        if rule is None:
            raise ConfigError(f"gating must be one of {', '.join(COMPARED)}, got {gating!r}")
        return cls(gating=rule, **options)

    def __post_init__(self) -> None:
        images_judged(self.which, 0)
        if self.compat not in (None, "official"):
            raise ConfigError(f"compat must be official, got {self.compat!r}")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise ConfigError(f"a shard must be like 1/4 to 4/4, got {self.shard[0]}/{self.shard[1]}")

    @property
    def book(self) -> str:
        """The name of the file of answers."""
        which, of = self.shard
        return "answers.jsonl" if of == 1 else f"answers-{which}-of-{of}.jsonl"


@dataclass(frozen=True, kw_only=True)
class Thought:
    """One thought of a known prompt: its judged pictures, and what its counting one comes to."""

    item: Item
    sample: Sample
    sheets: Sequence[Sheet]

    @property
    def status(self) -> Status:
        if self.sample.failed:
            return "failed"
        if not self.sheets or self.sheets[-1].problem == NOT_DRAWN:
            return "no picture"
        return "unreadable" if self.sheets[-1].problem else "scored"

    @property
    def judged(self) -> Judged:
        """The picture that counts; a thought without one is wrong in everything."""
        if not self.sheets:
            return Judged(item=self.item, sample=self.sample.sample, problem=self.status)
        return self.sheets[-1].judged

    @property
    def unanswered(self) -> int:
        return sum(len(sheet.unanswered) for sheet in self.sheets)

    @property
    def name(self) -> str:
        return f"{self.item.id}, sample {self.sample.sample}"


def judge_folder(
    questions: QuestionSet,
    folder: PictureFolder,
    judge: Judge,
    out: Path,
    *,
    options: ScoreOptions,
    counting: Counting,
) -> list[Sheet]:
    """Ask what is not in the answer files of `out` yet.

    Raises:
        TwgiError: as `ask_about` and `AnswerBook` do.
    """
    which, of = options.shard
    mine = [item for number, item in enumerate(questions.items.values()) if number % of == which - 1]
    samples = [(item, s) for item in mine for n in range(folder.each) if (s := folder.samples.get((item.id, n)))]
    book = out / options.book
    others = sorted(path for path in out.glob("answers*.jsonl") if path != book)
    with AnswerBook(book, others=others) as answers:
        return ask_about(samples, judge, answers, which=options.which, counting=counting, test=options.self_test)


def score_folder(
    questions: QuestionSet,
    folder: PictureFolder,
    sheets: Sequence[Sheet],
    judge: Judge,
    out: Path,
    *,
    options: ScoreOptions,
) -> dict[str, Any]:
    """Write `results.jsonl` and `scores.json` into `out`; returns what `scores.json` holds. Raises `RunError`."""
    thoughts = _thoughts(questions, folder, sheets)
    judged = describe(questions, judge, options)
    made = {"made": folder.made, "judged": judged}
    rows = [row for thought in thoughts if (row := _row(thought, out, options, **made)) is not None]
    content = _content(questions, folder, thoughts, options) | {"made": dict(folder.made), "judged": judged}
    write_results(out, rows)
    write_file(out / SCORES, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
    return content


def describe(questions: QuestionSet, judge: Judge, options: ScoreOptions) -> dict[str, Any]:
    """What every row says of how it was judged."""
    return {
        "judge": {"name": judge.name, "version": judge.version},
        "questions": {"name": questions.path.name, "sha256": questions.sha256},
        "self_test": "not needed" if not judge.needs_test else "asked for" if options.self_test else "skipped",
        "which": options.which,
        "gating": options.gating,
        "versions": {"twgi": __version__, "python": platform.python_version()},
    }


def _thoughts(questions: QuestionSet, folder: PictureFolder, sheets: Sequence[Sheet]) -> list[Thought]:
    """Those that are there, in the order of the questions, whatever the order in which they were judged."""
    of_sample: dict[tuple[str, int], list[Sheet]] = {}
    for sheet in sheets:
        of_sample.setdefault((sheet.item.id, sheet.sample), []).append(sheet)
    keys = ((item, (item.id, number)) for item in questions.items.values() for number in range(folder.each))
    return [
        Thought(item=item, sample=folder.samples[key], sheets=of_sample.get(key, []))
        for item, key in keys
        if key in folder.samples
    ]


def _content(
    questions: QuestionSet, folder: PictureFolder, thoughts: Sequence[Thought], options: ScoreOptions
) -> dict[str, Any]:
    missing = [f"{item}, sample {number}" for item, number in folder.missing(questions.items)]
    lacking = [f"{t.name}: {t.unanswered} questions without an answer" for t in thoughts if t.unanswered]
    expected = len(questions.items) * folder.each
    whole = expected - len(missing) - len(lacking)
    judged = [thought.judged for thought in thoughts]
    return {
        "version": 1,
        "benchmark": "dpg",
        "schema": "geneval2" if questions.soft else "dpg",
        "partial": f"{whole}/{expected}" if whole < expected else None,
        "thoughts": len(thoughts),
        "samples": folder.each,
        **score(judged, options.gating).to_json(),
        "by_gating": {rule: score(judged, rule).overall for rule in COMPARED},
        "answers": Share.of(truth for picture in judged for truth in picture.truths().values()).to_json(),
        "soft": soft_scores(judged).to_json(),
        "official": _official(questions, folder, thoughts) if options.compat == "official" else None,
        "first_picture": _first(thoughts, options),
        "by_picture": _costs([thought.sample for thought in thoughts if thought.sample.image_tokens], options),
        "statuses": dict(Counter(thought.status for thought in thoughts)),
        "wrong": [f"{t.name}: {t.status}" for t in thoughts if t.status != "scored"],
        "nothing_known": [t.name for t in thoughts if _share(t.judged, options).value is None],
        "missing": [*missing, *lacking],
        "unknown_files": list(folder.unknown),
        "question_faults": list(questions.notes),
    }


def _first(thoughts: Sequence[Thought], options: ScoreOptions) -> dict[str, Any] | None:
    """The score of the first picture of every thought, where all were judged."""
    if options.which != "each":
        return None
    judged = [t.sheets[0].judged if t.sheets else t.judged for t in thoughts]
    return {"overall": score(judged, options.gating).overall}


def _costs(samples: Sequence[Sample], options: ScoreOptions) -> list[dict[str, float]]:
    """Mean image tokens and seconds of work up to each judged picture; a thought that ended earlier stays at its
    end."""
    if not samples:
        return []
    most = max(len(sample.image_tokens) for sample in samples)
    upto = {"each": range(1, most + 1), "first": [1], "final": [most]}[options.which]
    tokens = [fmean(sum(sample.image_tokens[:count]) for sample in samples) for count in upto]
    points = [{"image_tokens": value} for value in tokens]
    if all(sample.seconds for sample in samples):
        for point, count in zip(points, upto, strict=True):
            point["seconds"] = fmean(sample.seconds[min(count, len(sample.seconds)) - 1] for sample in samples)
    return points


def _official(questions: QuestionSet, folder: PictureFolder, thoughts: Sequence[Thought]) -> dict[str, Any]:
    """What the published program would print, and what a public port's key for parents makes of it."""
    if questions.soft:
        return {"problem": "the published program knows DPG-Bench's questions alone"}
    files = [*_files(thoughts).values(), *(PictureFile(name=name, crops=()) for name in folder.unknown)]
    port = score([thought.judged for thought in thoughts], "single-key").overall
    try:
        return {**official_scores(questions.records, files).to_json(), "single_key_port": port}
    except PromptError as error:
        return {"problem": str(error), "single_key_port": port}


def _files(thoughts: Sequence[Thought]) -> dict[str, PictureFile]:
    """One file for each prompt, as the published program wants it: single samples count as the parts of a grid."""
    crops: dict[str, list[dict[int, str]] | None] = {}
    for thought in thoughts:
        grid = [spot.file.name for spot in thought.sample.spots if spot.file and spot.crop is not None]
        name = grid[0] if grid else f"{thought.item.id}.png"
        there = crops.setdefault(name, [])
        if thought.status == "unreadable" and grid:
            crops[name] = None
        elif thought.status == "scored" and there is not None:
            there.append({number: answer.text for number, answer in thought.sheets[-1].answers.items()})
    return {name: PictureFile(name=name, crops=said) for name, said in crops.items()}


def _row(
    thought: Thought, out: Path, options: ScoreOptions, *, made: Mapping[str, Any], judged: Mapping[str, Any]
) -> Result | None:
    """One line of `results.jsonl`; None where nothing is known, since a row needs a score."""
    value = _share(thought.judged, options).value
    if value is None:
        return None
    parts = categories([thought.judged], broad=True)
    return Result(
        benchmark="dpg",
        id=thought.item.id,
        sample=thought.sample.sample,
        task="dpg",
        prompt=thought.item.prompt,
        score=value,
        status=thought.status,
        pictures=tuple(_picture(thought, number, out, options) for number in range(len(thought.sample.spots))),
        parts={name: (share.yes, share.yes + share.no) for name, share in parts.items() if share.yes + share.no},
        detail=_detail(thought, options),
        made=made,
        judged=judged,
    )


def _share(judged: Judged, options: ScoreOptions) -> Share:
    return Share.of(gate(judged.item.questions, judged.truths(), options.gating).values())


def _picture(thought: Thought, number: int, out: Path, options: ScoreOptions) -> JudgedPicture:
    """The picture's file is named as seen from `out`, where the rows are."""
    sheet = next((sheet for sheet in thought.sheets if sheet.image == number), None)
    file = thought.sample.spots[number].file
    name = Path(os.path.relpath(file, out)).as_posix() if file else None
    tokens = thought.sample.image_tokens[number] if thought.sample.image_tokens else 0
    if sheet is None:
        return JudgedPicture(image=name, image_tokens=tokens)
    wrong = [q.text for q in sheet.item.questions if sheet.judged.truths()[q.id] is False]
    return JudgedPicture(
        image=name,
        image_tokens=tokens,
        sha256=sheet.sha256,
        score=_share(sheet.judged, options).value,
        reasons=(sheet.problem,) if sheet.problem else tuple(wrong),
    )


def _detail(thought: Thought, options: ScoreOptions) -> dict[str, Any]:
    """Every question and answer about the picture that counts."""
    judged = thought.judged
    own, gated = judged.truths(), gate(judged.item.questions, judged.truths(), options.gating)
    said = thought.sheets[-1].answers if thought.sheets else {}
    answers = [
        {
            "proposition_id": question.id,
            "question": question.text,
            "category": question.category,
            "answer": said[question.id].to_json() if question.id in said else None,
            "own": own[question.id],
            "gated": gated[question.id],
        }
        for question in sorted(judged.item.questions, key=lambda question: question.id)
    ]
    crops = [spot.crop for spot in thought.sample.spots if spot.crop is not None]
    return {"answers": answers, "invalid": Share.of(own.values()).invalid, "crop": crops[0] if crops else None}
