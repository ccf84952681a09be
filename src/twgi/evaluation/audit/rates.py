"""How often the steps of a thought are right and its end is not, in the icon world, where truth is known.

Two failures the paper shows: a critique that is right and a redrawn picture that does not follow it; parts that are
right and a whole that does not combine them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from twgi.evaluation.audit.remarks import Remark, read_remark
from twgi.evaluation.detectors.suite import DetectorSuite
from twgi.evaluation.geneval.rules import Detection, GenEvalItem, judge
from twgi.evaluation.report.statistics import wilson
from twgi.thinking.modes import KINDS
from twgi.trace import ImageSegment, Segment, TextSegment, Trace


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of so many cases with Wilson's interval of 95 %; None where there was no case."""

    what: str
    right: int
    of: int

    def to_json(self) -> dict[str, Any]:
        if not self.of:
            return {"what": self.what, "share": None, "of": 0}
        low, high = wilson(self.right / self.of, self.of)
        return {"what": self.what, "share": self.right / self.of, "low": low, "high": high, "of": self.of}


def rate(what: str, cases: Iterable[bool]) -> Rate:
    """How often it was so."""
    found = list(cases)
    return Rate(what=what, right=sum(found), of=len(found))


@dataclass(frozen=True, kw_only=True)
class CritiqueStep:
    """A picture of a critique thought: whether it is right, what is said of it, and whether the next is right."""

    right: bool
    remark: Remark
    redrawn: bool | None  # None: nothing was drawn after it


class Auditor:
    """Looks at thoughts with the icon world's detector."""

    def __init__(self, suite: DetectorSuite) -> None:
        self.suite = suite

    def seen(self, image: ImageSegment) -> list[Detection]:
        """What is in a picture; nothing where it is not whole."""
        return self.suite.detector.detect([image.picture])[0] if image.picture else []

    def right(self, item: GenEvalItem, image: ImageSegment) -> bool:
        """Whether a picture fulfils the prompt."""
        return image.picture is not None and self._fulfils(item, image, self.seen(image))

    def _fulfils(self, item: GenEvalItem, image: ImageSegment, seen: Sequence[Detection]) -> bool:
        assert image.picture is not None
        return judge(item, image.picture, seen, self.suite.colors).correct

    def steps(self, item: GenEvalItem, trace: Trace) -> Iterator[CritiqueStep]:
        """Each picture that is whole and said something of."""
        pairs = list(_said(trace.segments))
        for number, (image, words) in enumerate(pairs):
            if image.picture is not None and words:
                right = self.right(item, image)
                following = pairs[number + 1][0] if number + 1 < len(pairs) else None
                remark = read_remark(words, item, self.seen(image), correct=right)
                redrawn = None if following is None else self.right(item, following)
                yield CritiqueStep(right=right, remark=remark, redrawn=redrawn)

    def parts(self, trace: Trace) -> list[ImageSegment]:
        """The pictures that are parts."""
        return [image for image in trace.images if image.kind in KINDS and KINDS[image.kind].part]

    def parts_right(self, item: GenEvalItem, trace: Trace) -> bool:
        """Whether what the parts show would fulfil the prompt, were it in one picture."""
        parts = [image for image in self.parts(trace) if image.picture]
        together = [thing for image in parts for thing in self.seen(image)]
        return bool(parts) and self._fulfils(item, parts[0], together)


def _said(segments: Sequence[Segment]) -> Iterator[tuple[ImageSegment, str]]:
    """Each drawn image with the words that follow it."""
    drawn = [i for i, segment in enumerate(segments) if isinstance(segment, ImageSegment) and segment.role != "input"]
    for start, end in zip(drawn, [*drawn[1:], len(segments)], strict=True):
        image, words = segments[start], [s.text for s in segments[start + 1 : end] if isinstance(s, TextSegment)]
        assert isinstance(image, ImageSegment)
        yield image, " ".join(words).strip()


def critique_rates(steps: Sequence[CritiqueStep]) -> list[Rate]:
    """What critiques are worth, and what is made of them."""
    right, wrong = [s for s in steps if s.right], [s for s in steps if not s.right]
    true_flaw = [s for s in wrong if s.remark.says == "flaw" and s.remark.true]
    return [
        rate("of right pictures, the critique says that they fit", (s.remark.says == "fits" for s in right)),
        rate("of wrong pictures, the critique names a true flaw", (s in true_flaw for s in wrong)),
        rate("of wrong pictures, the critique says that they fit", (s.remark.says == "fits" for s in wrong)),
        rate("critique right, redraw wrong", (not s.redrawn for s in true_flaw if s.redrawn is not None)),
        rate("of wrong pictures redrawn, the next is right", (s.redrawn for s in wrong if s.redrawn is not None)),
        rate("of right pictures redrawn, the next is wrong", (not s.redrawn for s in right if s.redrawn is not None)),
    ]


def subgoal_rates(thoughts: Sequence[tuple[bool, bool]]) -> list[Rate]:
    """(parts right, whole right) of thoughts with parts -> what parts are worth."""
    return [
        rate("parts right: together they fulfil the prompt", (parts for parts, _ in thoughts)),
        rate("parts right, whole wrong", (not whole for parts, whole in thoughts if parts)),
        rate("parts wrong, whole right", (whole for parts, whole in thoughts if not parts)),
    ]
