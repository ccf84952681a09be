"""GenEval as a benchmark: a detector sees what is in a picture, the published rules say whether it is right.

Beside a run lies `geneval/`: the last picture of each thought in GenEval's own shape, ``00012/metadata.jsonl`` and
``00012/samples/00000.png``, for any other scorer.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from twgi.errors import DataError, PromptError, RunError
from twgi.evaluation.detectors.recorded import recorded
from twgi.evaluation.detectors.suite import DetectorSuite, self_test
from twgi.evaluation.evaluate import Evaluation, costs
from twgi.evaluation.frame import Judged, Part, PictureToJudge, PromptSet, Verdict
from twgi.evaluation.geneval.rules import GenEvalItem, item_of, judge, overall, task_scores
from twgi.evaluation.pictures import PictureSet, read_numbered, read_pictures
from twgi.evaluation.results import SCORES, Result
from twgi.files import inside, read_json, read_objects, short, write_whole
from twgi.runs.parts import link
from twgi.runs.prompts import BadLine, read_prompts

FOLDER, METADATA = "geneval", "metadata.jsonl"
MAX_METADATA = 2**20  # bytes
MOST_LISTED = 20


class GenEval:
    """The benchmark, judged by a suite of detectors; without one its prompts can be drawn only."""

    name = "geneval"

    def __init__(self, suite: DetectorSuite | None = None) -> None:
        self.suite = suite

    def prompts(self, path: Path) -> PromptSet:
        """The prompts of a metadata file that are about things the suite can see.

        Plain prompts, without metadata, can be drawn and not be judged: nothing says what is right about them. Raises
        `PromptError` where the file cannot be read, a line is not GenEval's, or nothing in it can be seen.
        """
        items = tuple(read_items(path))
        asked = self._seen(PromptSet(items=items, whole=len(items)))
        if not asked.items:
            raise PromptError(f"{path}: the judge knows the things in none of its {len(items)} prompts")
        return asked

    def from_run(self, folder: Path) -> tuple[PromptSet, PictureSet]:
        """What a run of ours was asked, and the thoughts that are there. Raises `RunError`."""
        pictures = read_pictures(folder, self.name)
        told = pictures.told
        items = tuple(item_of(line, int(index)) for line, index in zip(told["lines"], told["ids"], strict=True))
        return self._seen(PromptSet(items=items, whole=told["whole"], left_out=tuple(told["left_out"]))), pictures

    def from_elsewhere(self, folder: Path, path: Path, *, samples: int) -> tuple[PromptSet, PictureSet]:
        """Pictures in GenEval's shape, held against the whole prompts file, so that nothing is missing unnoticed.

        Raises what `read_numbered` does, and `PromptError` where the prompts cannot be read, or a folder says that it
        is of another prompt: its pictures were made from another prompts file.
        """
        items = {item.id: item for item in read_items(path)}
        pictures = read_numbered(folder, items, samples=samples)
        if pictures.unknown:
            raise PromptError(f"{folder / pictures.unknown[0]} is of no prompt: {path} has {len(items)}")
        untold = set(items)
        for metadata in sorted(folder.glob(f"*/{METADATA}")):
            if not metadata.parent.name.isdecimal():
                continue
            item, record = items[f"{int(metadata.parent.name):05d}"], read_json(metadata, most=MAX_METADATA)
            if record != dict(item.record):
                said = record.get("prompt") if isinstance(record, dict) else record
                asked = f"prompt {int(item.id)} of --prompts is {item.prompt!r}"
                raise PromptError(f"{metadata} says {(said if isinstance(said, str) else short(said))!r}, but {asked}")
            untold.discard(item.id)
        by_name = tuple(sorted({name for name, _ in pictures.generations} & untold))
        whole = PromptSet(items=tuple(items.values()), whole=len(items))
        return self._seen(whole), replace(pictures, by_name=by_name)

    def _seen(self, asked: PromptSet) -> PromptSet:
        """Without the prompts about what the suite cannot see; they are listed."""
        if self.suite is None or self.suite.names is None:
            return asked
        seen = tuple(item for item in asked.items if item.names <= self.suite.names)
        unseen = tuple(item.prompt for item in asked.items if not item.names <= self.suite.names)
        return PromptSet(items=seen, whole=asked.whole, left_out=(*asked.left_out, *unseen))

    def check(self) -> None:
        """Raises `CheckpointError` where the suite cannot see what is in pictures of known content."""
        if self.suite is not None:
            self_test(self.suite)

    def judge(self, pictures: Iterable[PictureToJudge], out: Path, part: Part) -> Iterator[Judged]:
        """Each picture by its detections; what a slow detector sees is kept in `out`."""
        assert self.suite is not None
        self.check()
        with recorded(self.suite, out) as suite:
            for picture in pictures:
                if not picture.item.include:
                    raise PromptError("these prompts have no metadata of GenEval, so nothing says what is right")
                assert picture.image is not None
                if suite.blind is not None and (why := suite.blind(picture.image)):
                    yield picture, Verdict(score=None, reasons=(why,))
                    continue
                seen = suite.detector.detect([picture.image])[0]
                yield picture, judge(picture.item, picture.image, seen, suite.colors)

    def wrong(self, item: GenEvalItem, problem: str) -> Verdict:
        return Verdict(score=0.0, reasons=(problem,))

    def describe(self) -> dict[str, Any]:
        assert self.suite is not None
        return self.suite.describe()

    def scores(self, evaluation: Evaluation) -> dict[str, Any]:
        """Tasks and overall: of the pictures that count, of the first ones, and of the k-th ones with their cost."""
        rows, thoughts = evaluation.rows, evaluation.thoughts
        missing = [(item.task, 0.0) for item, _ in evaluation.missing]
        formed = [one.generation.well_formed for one in thoughts if one.generation.well_formed is not None]
        most = max((len(row.pictures) for row in rows), default=0)
        spent = costs([thought.generation for thought in thoughts], range(1, most + 1))
        right, prompts = {row.id for row in rows if row.score == 1}, evaluation.asked.items
        return {
            **(_scored(rows) or {}),
            "overall_if_missing_were_wrong": overall(task_scores([*((r.task, r.score) for r in rows), *missing])),
            "first_picture": _scored(rows, 0),
            "by_picture": [{**(_scored(rows, number) or {}), **cost} for number, cost in enumerate(spent)],
            "correct_images": fmean(row.score == 1 for row in rows) if rows else None,
            "correct_prompts": len(right) / len(prompts) if prompts else 0.0,
            "well_formed": fmean(formed) if formed else None,
            "finish_reasons": dict(Counter(row.detail["finish_reason"] for row in rows)),
            "images_per_thought": sum(len(row.pictures) for row in rows) / max(len(rows), 1),
            "wrong_without_a_look": [
                f"{one.label}: {one.status}" + (f", {one.problem}" if one.problem != one.status else "")
                for one in thoughts
                if one.wrong
            ],
            **evaluation.pictures.made,
        }

    def lay_out(self, asked: PromptSet, pictures: PictureSet) -> Path:
        """The last pictures in GenEval's shape. A thought without a whole last picture leaves a gap."""
        root = pictures.root / FOLDER
        for item in asked.items:
            metadata = inside(pictures.root, f"{FOLDER}/{item.id}/{METADATA}", RunError)
            if not metadata.exists():
                write_whole(metadata, json.dumps(dict(item.record)).encode())
            for sample in range(pictures.samples):
                there = pictures.generations.get((item.id, sample))
                if there is not None and there.pictures and (file := there.pictures[-1].file):
                    link(file, pictures.root, f"{FOLDER}/{item.id}/samples/{sample:05d}.png")
        return root

    def table(self, scores: Mapping[str, Any]) -> str:
        """The pictures that count, drafts beside them, and what is not whole."""
        first, final = scores["first_picture"] or {}, "first" if scores["which"] == "first" else "final"
        beside = bool(first) and final != "first" and scores["first_is_draft"]
        values = {**scores["tasks"], "overall": scores["overall"]}
        others = {**first.get("tasks", {}), "overall": first.get("overall")}
        lines = [f"{'task':15} {final:>6}" + f" {'first':>6}" * beside]
        for task, value in values.items():
            lines.append(f"{task:15} {value:6.3f}" + (f" {others[task]:6.3f}" if beside else ""))
        return "\n".join([*lines, *_facts(scores)])


def read_items(path: Path) -> list[GenEvalItem]:
    """The prompts of GenEval's metadata file, or of any prompts file. Raises `PromptError`, which names the line."""
    try:
        lines = list(read_objects(path))
    except DataError as error:
        raise PromptError(f"cannot read the prompts: {error}") from None
    plain, items = bool(lines) and "include" not in lines[0].value, []
    for entry in read_prompts(path) if plain else ():
        if isinstance(entry, BadLine):
            raise PromptError(f"{entry.where}: {entry.problem}")
        if entry.images or entry.mode or entry.seed is not None:
            raise PromptError(f"{entry.where}: a line with images, mode or seed is for twgi think --prompts")
    for index, line in enumerate(lines):
        try:
            items.append((item_of if plain else GenEvalItem.from_json)(line.value, index))
        except PromptError as error:
            raise PromptError(f"{line.where}, prompt {index}: {error}") from None
    return items


def _scored(rows: Iterable[Result], picture: int | None = None) -> dict[str, Any] | None:
    """Tasks and overall: of the pictures that count, or of the k-th ones; None where one was not judged."""
    scores = [(row.task, row.score if picture is None else row.score_of(picture)) for row in rows]
    if any(score is None for _, score in scores):
        return None
    tasks = task_scores((task, score or 0.0) for task, score in scores)
    return {"tasks": tasks, "overall": overall(tasks)}


def _facts(scores: Mapping[str, Any]) -> Iterator[str]:
    by = scores["judged"]["detector"]
    yield f"{scores['thoughts']} thoughts of {scores['prompts']} prompts, judged by {by['name']} {by['version']}"
    if scores["well_formed"] is not None:
        yield f"{scores['well_formed']:.2%} well formed"
    yield from _listed("counted as wrong, there was nothing to look at", scores["wrong_without_a_look"])
    yield from _listed("not asked for, as it cannot be drawn or judged", scores["left_out"])
    yield from _listed("of what prompt, only the name of a folder says; it has no metadata.jsonl", scores["by_name"])
    if scores["subset"]:
        yield f"SUBSET {scores['subset']} prompts: not comparable with scores of the whole benchmark"
    if scores["partial"]:
        yield from _listed("missing", scores["missing"])
        yield (
            f"PARTIAL {scores['partial']} thoughts: not comparable; overall would be "
            f"{scores['overall_if_missing_were_wrong']:.3f} if the missing ones were wrong"
        )


def _listed(what: str, entries: Sequence[str]) -> Iterator[str]:
    """A list for people, cut where it is long; nothing of an empty one."""
    if entries:
        yield f"{what}: {len(entries)}"
        yield from (f"  {entry}" for entry in entries[:MOST_LISTED])
    if len(entries) > MOST_LISTED:
        yield f"  and {len(entries) - MOST_LISTED} more, see {SCORES}"
