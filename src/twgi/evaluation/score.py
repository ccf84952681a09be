"""Thoughts that are there -> what is right in them: a row for each thought, a score for each task.

Judging is apart from drawing and reads nothing but a `Collection`, so it may be done again, with other eyes, or for
pictures made elsewhere. The last picture of a thought counts unless `which` says the first. A thought that failed, has
no whole picture, or has a file that cannot be read is wrong. One that is missing makes the score partial.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twgi import __version__
from twgi.errors import ConfigError, ImageError, PromptError
from twgi.evaluation.collection import Collection, Entry
from twgi.evaluation.detectors.eyes import Eyes, self_test
from twgi.evaluation.geneval import Item, judge, overall, task_scores
from twgi.evaluation.results import SCORES, Judged, Result, Status, write_results
from twgi.tokenizer.image import read_picture
from twgi.trace import write_file

VERSION = 1
WHICH = ("final", "first", "each")
_MOST_LISTED = 20

Advance = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A row for each thought of `collection` that is there; `judged` is what judged them."""

    collection: Collection
    rows: Sequence[Result]
    judged: Mapping[str, Any]

    @property
    def partial(self) -> str | None:
        """n/N where thoughts are missing: such a score is of those that are there, and says so."""
        wanted = len(self.collection.items) * self.collection.samples
        return f"{len(self.rows)}/{wanted}" if len(self.rows) < wanted else None

    @property
    def subset(self) -> str | None:
        """n/N where not all prompts of the benchmark were asked for."""
        asked, whole = len(self.collection.items), self.collection.whole
        return f"{asked}/{whole}" if asked < whole else None

    def tasks(self, picture: int | None = None) -> dict[str, float] | None:
        """The score of each task: of the picture that counts, or of the k-th; None where one was not judged."""
        scores = [row.score if picture is None else row.score_of(picture) for row in self.rows]
        if any(score is None for score in scores):
            return None
        return task_scores((row.task, score or 0.0) for row, score in zip(self.rows, scores, strict=True))

    def to_json(self) -> dict[str, Any]:
        """The content of `scores.json`."""
        tasks = self.tasks() or {}
        right = {row.id for row in self.rows if row.score == 1}
        entries = self._entries
        return {
            "version": VERSION,
            "benchmark": "geneval",
            "partial": self.partial,
            "subset": self.subset,
            "which": self.judged["which"],
            "thoughts": len(self.rows),
            "prompts": len(self.collection.items),
            "samples": self.collection.samples,
            "tasks": tasks,
            "overall": overall(tasks),
            "overall_if_missing_were_wrong": self._with_missing(),
            "first_picture": self._picture(0),
            "by_picture": self._by_picture(),
            "correct_images": _share(row.score == 1 for row in self.rows),
            "correct_prompts": len(right) / len(self.collection.items) if self.collection.items else 0.0,
            "well_formed": _share(bool(entry.well_formed) for entry in entries if entry.well_formed is not None),
            "finish_reasons": dict(Counter(row.detail["finish_reason"] for row in self.rows)),
            "images_per_thought": sum(len(row.pictures) for row in self.rows) / max(len(self.rows), 1),
            "missing": self.collection.missing,
            "wrong_without_a_look": [_named(row) for row in self.rows if row.status != "scored"],
            "left_out": list(self.collection.left_out),
            "judged": dict(self.judged),
            **self.collection.made,
        }

    def _with_missing(self) -> float:
        gone = [item.tag for item, sample in self.collection.wanted if (item.index, sample) not in self._there]
        return overall(task_scores([*((row.task, row.score) for row in self.rows), *((tag, 0.0) for tag in gone)]))

    @property
    def _there(self) -> frozenset[tuple[int, int]]:
        return frozenset((int(row.id), row.sample) for row in self.rows)

    def _picture(self, number: int) -> dict[str, Any] | None:
        tasks = self.tasks(number)
        return None if tasks is None else {"tasks": tasks, "overall": overall(tasks)}

    def _by_picture(self) -> list[dict[str, Any]]:
        """Scores and mean costs up to each picture; a thought that ended earlier stays at its last."""
        most = max((len(row.pictures) for row in self.rows), default=0)
        return [{**(self._picture(k) or {}), **_costs(self._entries, k)} for k in range(most)]

    @property
    def _entries(self) -> list[Entry]:
        return [self.collection.entries[int(row.id), row.sample] for row in self.rows]


def _costs(entries: Sequence[Entry], picture: int) -> dict[str, float]:
    tokens = [sum(entry.tokens[: picture + 1]) for entry in entries]
    seconds = [entry.seconds[min(picture, len(entry.seconds) - 1)] for entry in entries if entry.seconds]
    costs = {"image_tokens": sum(tokens) / max(len(tokens), 1)}
    return costs | ({"seconds": sum(seconds) / len(seconds)} if len(seconds) == len(entries) else {})


def score(collection: Collection, eyes: Eyes, *, which: str = "each", advance: Advance = lambda: None) -> Scores:
    """Judge all thoughts that are there, after the eyes have shown that they can see.

    `which` picture of a thought counts: the final one, the first one, or with `each` the final one while all are
    judged. `advance` is called after each thought.

    Raises:
        CheckpointError: the self-test fails.
        ConfigError: `which` is unknown.
        PromptError: the prompts have no metadata.
    """
    if which not in WHICH:
        raise ConfigError(f"which must be {', '.join(WHICH)}, got {which!r}")
    if collection.plain:
        raise PromptError("these prompts have no metadata of GenEval, so nothing says what is right")
    self_test(eyes)
    collection = collection.seen_by(eyes.names)
    judged = {**eyes.describe(), "which": which, "twgi": __version__}
    rows = []
    for item, sample in collection.wanted:
        entry = collection.entries.get((item.index, sample))
        if entry is not None:
            looked = Look(folder=collection.folder, item=item, eyes=eyes, which=which)
            rows.append(looked.row(entry, sample, made=collection.made, judged=judged))
            advance()
    return Scores(collection=collection, rows=rows, judged=judged)


@dataclass(frozen=True, kw_only=True)
class Look:
    """A look at the pictures of one prompt."""

    folder: Path
    item: Item
    eyes: Eyes
    which: str

    def row(self, entry: Entry, sample: int, *, made: Mapping[str, Any], judged: Mapping[str, Any]) -> Result:
        """A thought, judged."""
        counts = 0 if self.which == "first" else len(entry.pictures) - 1
        looked = [self._picture(entry, k, self.which == "each" or k == counts) for k in range(len(entry.pictures))]
        status, why = _status(entry, looked, counts)
        return Result(
            benchmark="geneval",
            id=f"{self.item.index:05d}",
            sample=sample,
            task=self.item.tag,
            prompt=self.item.prompt,
            score=looked[counts].score or 0.0 if looked else 0.0,
            status=status,
            pictures=tuple(looked),
            detail={"finish_reason": "failed" if entry.failed else entry.finish_reason, **why},
            made=made,
            judged=judged,
        )

    def _picture(self, entry: Entry, k: int, asked: bool) -> Judged:
        name = entry.pictures[k]
        tokens = entry.tokens[k] if entry.tokens else 0
        if name is None:
            return Judged(score=0.0, reasons=("no picture",), image_tokens=tokens)
        content = _bytes(self.folder / name)
        judged = self._judged(content, name) if asked else {}
        return Judged(image=name, sha256=hashlib.sha256(content).hexdigest(), image_tokens=tokens, **judged)

    def _judged(self, content: bytes, name: str) -> dict[str, Any]:
        try:
            picture = read_picture(content, name=name)
        except ImageError as error:
            return {"score": 0.0, "reasons": (f"unreadable: {error}",)}
        seen = self.eyes.detector.detect([picture])[0]
        verdict = judge(self.item, picture, seen, self.eyes.colors)
        return {"score": float(verdict.correct), "reasons": verdict.reasons}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _status(entry: Entry, looked: Sequence[Judged], counts: int) -> tuple[Status, dict[str, str]]:
    if entry.failed is not None:
        return "failed", {"why": entry.failed}
    if not looked or looked[counts].image is None:
        return "no picture", {}
    unreadable = next((reason for reason in looked[counts].reasons if reason.startswith("unreadable")), None)
    return ("unreadable", {"why": unreadable}) if unreadable else ("scored", {})


def write_scores(scores: Scores, out: Path) -> dict[str, Any]:
    """Write `results.jsonl` and `scores.json` into a folder; returns what `scores.json` holds. Raises `RunError`."""
    content = scores.to_json()
    write_results(out, scores.rows)
    write_file(out / SCORES, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
    return content


def table(scores: Mapping[str, Any]) -> str:
    """`scores.json` as lines for people: the picture that counts, the draft beside it, and what is not whole."""
    first = (scores["first_picture"] or {}).get("tasks")
    final = "first" if scores["which"] == "first" else "final"
    mode = scores.get("settings", {}).get("mode")  # a subgoal thought begins with a part, a direct one has one picture
    beside = first is not None and final != "first" and mode not in ("subgoal", "direct")
    values = {**scores["tasks"], "overall": scores["overall"]}
    others = {**(first or {}), "overall": (scores["first_picture"] or {}).get("overall")}
    lines = [f"{'task':15} {final:>6}" + f" {'first':>6}" * beside]
    lines += [f"{task:15} {value:6.3f}" + (f" {others[task]:6.3f}" if beside else "") for task, value in values.items()]
    return "\n".join([*lines, *_facts(scores)])


def _facts(scores: Mapping[str, Any]) -> Iterator[str]:
    judged = scores["judged"]["detector"]
    yield (
        f"{scores['thoughts']} thoughts of {scores['prompts']} prompts, judged by {judged['name']} {judged['version']}"
    )
    if scores["well_formed"] is not None:
        yield f"{scores['well_formed']:.2%} well formed"
    if scores["wrong_without_a_look"]:
        yield from _listed("counted as wrong, there was nothing to look at", scores["wrong_without_a_look"])
    if scores["left_out"]:
        yield from _listed("not asked for, as it cannot be drawn or judged", scores["left_out"])
    if scores["subset"]:
        yield f"SUBSET {scores['subset']} prompts: not comparable with scores of the whole benchmark"
    if scores["partial"]:
        yield from _listed("missing", scores["missing"])
        yield (
            f"PARTIAL {scores['partial']} thoughts: not comparable; overall would be "
            f"{scores['overall_if_missing_were_wrong']:.3f} if the missing ones were wrong"
        )


def _listed(what: str, entries: Sequence[str]) -> Iterator[str]:
    yield f"{what}: {len(entries)}"
    yield from (f"  {entry}" for entry in entries[:_MOST_LISTED])
    if len(entries) > _MOST_LISTED:
        yield f"  and {len(entries) - _MOST_LISTED} more, see {SCORES}"


def _named(row: Result) -> str:
    why = row.detail.get("why", "")
    return f"prompt {row.id} ({row.prompt}), sample {row.sample}: {row.status}" + (f", {why}" if why else "")


def _share(truths: Iterable[bool]) -> float | None:
    values = list(truths)
    return sum(values) / len(values) if values else None
