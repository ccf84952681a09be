"""GenEval's rules (Ghosh et al., 2023; djghosh13/geneval at af4902f) over any detector.

A prompt's metadata asks for things (`include`) and forbids things (`exclude`); a picture is right when all of it
holds. What is in the picture comes from a `Detector`: boxes with scores; their colours come from a `ColorClassifier`.
The rules, their thresholds and their order are the published ones.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from twgi.errors import PromptError
from twgi.evaluation.frame import Item, Verdict
from twgi.files import short

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
RELATIONS = ("left of", "right of", "above", "below")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")

THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9  # scores must be greater; the second where the task is counting
MAX_OBJECTS = 16  # of each class, the best
MAX_COUNT = MAX_OBJECTS + 1  # that a clause may ask for: one more is "fewer than seventeen"
LIMITS = {"threshold": THRESHOLD, "counting_threshold": COUNTING_THRESHOLD, "max_objects": MAX_OBJECTS}
POSITION_SLACK = 0.1  # of the summed sizes of two boxes
MIN_COSINE = 0.5  # of the direction between two boxes along an axis

Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One thing that a detector sees: its class, box in pixels (far edge exclusive) and score.

    `mask` is its outline, [height, width] of truths, and `color` its colour, where the detector tells them as well.
    """

    name: str
    box: Box
    score: float
    color: str | None = None
    mask: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)


class Detector(Protocol):
    """Sees things in pictures; `name` and `version` are written beside every score."""

    name: str
    version: str

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """All it sees in each picture, of any class and score, in any order."""


class ColorClassifier(Protocol):
    """Names the colours of things that are seen; `name` and `version` are written beside every score."""

    name: str
    version: str

    def classify(self, picture: Image.Image, detections: Sequence[Detection]) -> list[str]:
        """One of the ten colours for each of these detections, all of one class; "" where it cannot tell."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """`count` things of a class, perhaps of a colour, perhaps `relation` to the things of clause number `target`."""

    name: str
    count: int
    color: str | None = None
    relation: str | None = None
    target: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise PromptError(f"a clause's class must be a name, got {short(self.name)}")
        if type(self.count) is not int or not 1 <= self.count <= MAX_COUNT:
            whole = f"a clause's count must be a whole number from 1 to {MAX_COUNT}"
            raise PromptError(f"{whole}, got {short(self.count)} of {self.name}")
        for what, value, known in (("color", self.color, COLORS), ("relation", self.relation, RELATIONS)):
            if value is not None and value not in known:
                raise PromptError(f"unknown {what} {short(value)}; known are {', '.join(known)}")
        if self.relation is not None and type(self.target) is not int:
            raise PromptError(f"{self.name} is {self.relation} what? its position names no other clause")

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Requirement":
        """Raises `PromptError`, or `KeyError`, `TypeError` or `ValueError` for what is no clause."""
        if not isinstance(record, dict):
            raise TypeError(f"a clause must be an object, got {short(record)}")
        relation, target = record.get("position") or (None, None)
        name, count, color = record["class"], record["count"], record.get("color")
        return cls(name=name, count=count, color=color, relation=relation, target=target)


@dataclass(frozen=True, kw_only=True)
class GenEvalItem(Item):
    """One prompt of GenEval; `id` is its place in the file, in five digits."""

    include: tuple[Requirement, ...] = ()
    exclude: tuple[Requirement, ...] = ()

    def __post_init__(self) -> None:
        for number, clause in enumerate(self.include):
            if clause.target is not None and not 0 <= clause.target < number:
                where = f"clause {number} of {self.prompt!r}"
                raise PromptError(f"{where} must point to an earlier one, not {clause.target}")

    @property
    def label(self) -> str:
        return f"prompt {self.id} ({self.prompt})"

    @property
    def names(self) -> frozenset[str]:
        return frozenset(clause.name for clause in (*self.include, *self.exclude))

    @classmethod
    def from_json(cls, record: Mapping[str, Any], index: int) -> "GenEvalItem":
        """One line of GenEval's metadata file. Raises `PromptError` where a field is missing or means nothing."""
        try:
            task, prompt = record["tag"], record["prompt"]
            if not isinstance(task, str) or not isinstance(prompt, str) or not prompt.strip():
                raise TypeError("tag and prompt must be texts")
            clauses = record["include"], record.get("exclude") or []
            if not all(isinstance(part, list) for part in clauses) or not clauses[0]:
                raise TypeError("include and exclude must be lists of clauses, include not empty")
            include, exclude = (tuple(map(Requirement.from_json, part)) for part in clauses)
            return cls(id=f"{index:05d}", task=task, prompt=prompt, include=include, exclude=exclude, record=record)
        except (KeyError, TypeError, ValueError) as error:
            raise PromptError(f"not a metadata line of GenEval: {type(error).__name__} {error}") from None


def item_of(record: Mapping[str, Any], index: int) -> GenEvalItem:
    """A line of GenEval's metadata, or of any prompts: then nothing says what is right. Raises `PromptError`."""
    if "include" in record:
        return GenEvalItem.from_json(record, index)
    if not isinstance(record.get("prompt"), str):
        raise PromptError(f"no prompt in {short(dict(record))}")
    return GenEvalItem(id=f"{index:05d}", prompt=record["prompt"], record=record)


def judge(item: GenEvalItem, picture: Image.Image, detections: Iterable[Detection], colors: ColorClassifier) -> Verdict:
    """Hold a picture's detections against what its prompt asks for."""
    objects = select(detections, counting=item.task == "counting")
    reasons: list[str] = []
    matched: list[Sequence[Detection] | None] = []
    for clause in item.include:
        found = objects.get(clause.name, [])[: clause.count]
        reason = _wrong(clause, found, matched, picture, colors)
        reasons += [reason] if reason else []
        matched.append(None if reason else found)
    for clause in item.exclude:
        number = len(objects.get(clause.name, []))
        if number >= clause.count:
            reasons.append(f"expected {clause.name}<{clause.count}, found {number}")
    return Verdict(score=float(not reasons), reasons=tuple(reasons))


def select(detections: Iterable[Detection], *, counting: bool) -> dict[str, list[Detection]]:
    """Of each class those above the threshold, best first, at most 16. (Published: overlaps are all kept.)"""
    threshold = COUNTING_THRESHOLD if counting else THRESHOLD
    objects: dict[str, list[Detection]] = defaultdict(list)
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if detection.score > threshold and len(objects[detection.name]) < MAX_OBJECTS:
            objects[detection.name].append(detection)
    return objects


def _wrong(
    clause: Requirement, found: Sequence[Detection], matched: Sequence[Sequence[Detection] | None],
    picture: Image.Image, classifier: ColorClassifier,
) -> str | None:  # fmt: skip
    """What is wrong about one clause: too few, else the colour, else the position."""
    if len(found) < clause.count:
        return f"expected {clause.name}>={clause.count}, found {len(found)}"
    if clause.color is not None:
        colors = classifier.classify(picture, found)
        if colors.count(clause.color) < clause.count:
            return f"expected {clause.color} {clause.name}>={clause.count}, found {', '.join(colors)}"
    if clause.relation is None or clause.target is None:
        return None
    targets = matched[clause.target]
    if targets is None:
        return f"no target for {clause.name} to be {clause.relation}"
    for thing in found:
        for target in targets:
            relations = relative_position(thing.box, target.box)
            if clause.relation not in relations:
                actual = " and ".join(sorted(relations)) or "neither side of"
                return f"expected {clause.name} {clause.relation} {target.name}, found {actual}"
    return None


def relative_position(box: Box, target: Box) -> frozenset[str]:
    """Where `box` lies from `target`: none, one or two of the four relations.

    Each axis of the offset between centres first loses a tenth of the two boxes' sizes; what is left, over the length
    of the whole offset, must be more than one half.
    """
    offsets, left = [], []
    for low, high, target_low, target_high in zip(box[:2], box[2:], target[:2], target[2:], strict=True):
        offsets.append((low + high - target_low - target_high) / 2)
        slack = POSITION_SLACK * (abs(high - low) + abs(target_high - target_low))
        left.append(math.copysign(max(abs(offsets[-1]) - slack, 0.0), offsets[-1]))
    if all(abs(each) < 1e-3 for each in left):
        return frozenset()
    length = sum(offset**2 for offset in offsets) ** 0.5
    dx, dy = (each / length for each in left)
    held = (dx < -MIN_COSINE, dx > MIN_COSINE, dy < -MIN_COSINE, dy > MIN_COSINE)
    return frozenset(relation for relation, holds in zip(RELATIONS, held, strict=True) if holds)


def task_scores(results: Iterable[tuple[str, float]]) -> dict[str, float]:
    """(tag, score) of every picture -> the mean of each task that has any, in GenEval's order."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for tag, correct in results:
        by_task[tag].append(correct)
    order = [task for task in TASKS if task in by_task] + sorted(set(by_task) - set(TASKS))
    return {task: fmean(by_task[task]) for task in order}


def overall(scores: Mapping[str, float]) -> float:
    """The unweighted mean of the tasks."""
    return fmean(scores.values()) if scores else 0.0
