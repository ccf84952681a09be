"""A run of a benchmark's prompts -> what is right in it: a row for each thought, a score for each task.

Scoring is apart from generation and reads nothing but traces, so it may be done again, or for pictures made elsewhere.
The last picture of a thought counts; the pictures before it are judged too, so that thinking can be measured against
the first draft. A thought that failed or left no whole last picture is wrong, not missing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twgi.evaluation.geneval import Detector, Item, Verdict, judge, overall, task_scores
from twgi.trace import ImageSegment, Trace

VERSION = 1
NO_PICTURE = Verdict(correct=False, reasons=("no picture",))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thought, judged: a verdict and a file for each of its images in order. A failed thought has none."""

    item: Item
    sample: int
    verdicts: tuple[Verdict, ...] = ()
    images: tuple[str | None, ...] = ()
    well_formed: bool = False
    finish_reason: str = "failed"

    @property
    def final(self) -> Verdict:
        return self.verdicts[-1] if self.verdicts else NO_PICTURE

    @property
    def first(self) -> Verdict:
        return self.verdicts[0] if self.verdicts else NO_PICTURE

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt_index": self.item.index,
            "sample": self.sample,
            "tag": self.item.tag,
            "prompt": self.item.prompt,
            "correct": self.final.correct,
            "reasons": list(self.final.reasons),
            "each": [verdict.correct for verdict in self.verdicts],
            "images": list(self.images),
            "well_formed": self.well_formed,
            "finish_reason": self.finish_reason,
        }


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The rows of a run, with what was asked for: `samples` thoughts for each of `items`."""

    items: Sequence[Item]
    samples: int
    rows: Sequence[Row]

    @property
    def expected(self) -> int:
        return len(self.items) * self.samples

    @property
    def partial(self) -> bool:
        """Whether thoughts are missing; such a score is of those that are there, and says so."""
        return len(self.rows) < self.expected

    @property
    def well_formed(self) -> float:
        """Share of thoughts whose order is right and every image whole."""
        return _share(row.well_formed for row in self.rows)

    def tasks(self, which: str = "final") -> dict[str, float]:
        """The score of each task, for the `final` or the `first` picture of every thought."""
        return task_scores((row.item.tag, getattr(row, which).correct) for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """The content of `scores.json`, less what only the run knows."""
        final, first = self.tasks("final"), self.tasks("first")
        right = {row.item.index for row in self.rows if row.final.correct}
        return {
            "version": VERSION,
            "partial": f"{len(self.rows)}/{self.expected}" if self.partial else None,
            "thoughts": len(self.rows),
            "prompts": len(self.items),
            "samples": self.samples,
            "tasks": final,
            "overall": overall(final),
            "first_picture": {"tasks": first, "overall": overall(first)},
            "correct_images": _share(row.final.correct for row in self.rows),
            "correct_prompts": len(right) / len(self.items) if self.items else 0.0,
            "well_formed": self.well_formed,
            "finish_reasons": dict(Counter(row.finish_reason for row in self.rows)),
            "images_per_thought": sum(len(row.verdicts) for row in self.rows) / max(len(self.rows), 1),
        }


def is_well_formed(trace: Trace) -> bool:
    """Whether a thought has an image, every image is whole, and nothing is out of order."""
    return bool(trace.images) and not trace.anomalies and all(image.picture for image in trace.images)


def score(
    items: Sequence[Item], samples: int, thoughts: Mapping[tuple[int, int], Trace | None], detector: Detector
) -> Scores:
    """Judge the thoughts, by (place in `items`, sample); None is one that failed, and what is not there is missing."""
    rows = [_row(items[place], sample, trace, detector) for (place, sample), trace in sorted(thoughts.items())]
    return Scores(items=items, samples=samples, rows=rows)


def _row(item: Item, sample: int, trace: Trace | None, detector: Detector) -> Row:
    if trace is None:
        return Row(item=item, sample=sample)
    return Row(
        item=item,
        sample=sample,
        verdicts=tuple(_verdict(item, image, detector) for image in trace.images),
        images=tuple(image.image for image in trace.images),
        well_formed=is_well_formed(trace),
        finish_reason=trace.finish_reason,
    )


def _verdict(item: Item, image: ImageSegment, detector: Detector) -> Verdict:
    if image.picture is None:
        return NO_PICTURE
    return judge(item, image.picture, detector.detect([image.picture])[0], detector)


def table(scores: Mapping[str, Any]) -> str:
    """`scores.json` as lines for people: the last picture of each thought, and the first where they differ."""
    first = scores["first_picture"]
    lines = [f"{'task':15} {'final':>6} {'first':>6}"]
    lines += [f"{task:15} {value:6.3f} {first['tasks'][task]:6.3f}" for task, value in scores["tasks"].items()]
    lines.append(f"{'overall':15} {scores['overall']:6.3f} {first['overall']:6.3f}")
    lines.append(
        f"{scores['thoughts']} thoughts of {scores['prompts']} prompts; {scores['well_formed']:.2%} well formed"
    )
    if scores["partial"]:
        lines.append(f"PARTIAL {scores['partial']}: not comparable")
    return "\n".join(lines)


def _share(truths: Iterable[bool]) -> float:
    values = list(truths)
    return sum(values) / len(values) if values else 0.0
