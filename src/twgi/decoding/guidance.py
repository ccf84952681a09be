"""Classifier-free guidance as one map from branch to weight. A branch is one condition row. No torch here.

The three schemes and their scales are those of the paper (section 3 and table 5), written out as weighted sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from twgi.decoding.compat import OF_GUIDANCE, Quirk
from twgi.errors import ConfigError
from twgi.vocab import Vocab

Ids = tuple[int, ...]
SMALLEST_WEIGHT = 1e-9  # below this a weight is what rounding left of zero


class Branch(StrEnum):
    """What a row of guidance is conditioned on."""

    FULL = "full"  # everything so far
    IMAGE = "image"  # the pictures so far, no words
    UNCONDITIONAL = "unconditional"  # nothing
    NEGATIVE = "negative"  # the negative prompt
    PROMPT = "prompt"  # the bare prompt


@dataclass(frozen=True)
class Guidance:
    """Weights of the branches; they add to one, and a branch without weight is left out and does not run.

    Raises:
        ConfigError: a weight is not a finite number, or the weights do not add to one.
    """

    weights: Mapping[Branch, float]

    def __post_init__(self) -> None:
        if not all(math.isfinite(weight) for weight in self.weights.values()):
            raise ConfigError(f"guidance weights must be finite, got {dict(self.weights)}")
        if not math.isclose(sum(self.weights.values()), 1.0, abs_tol=1e-6):
            raise ConfigError(f"guidance weights must add to one, got {sum(self.weights.values())}")
        kept = {Branch(branch): w for branch, w in self.weights.items() if abs(w) > SMALLEST_WEIGHT}
        object.__setattr__(self, "weights", kept)

    @classmethod
    def normal(cls, full: float, image: float = 0.0) -> Guidance:
        """u + full (f - u) + image (i - u)."""
        return cls({Branch.FULL: full, Branch.IMAGE: image, Branch.UNCONDITIONAL: 1 - full - image})

    @classmethod
    def obj(cls, full: float, negative: float = 0.0) -> Guidance:
        """u + full (f - u) - negative (n - u)."""
        return cls({Branch.FULL: full, Branch.NEGATIVE: -negative, Branch.UNCONDITIONAL: 1 - full + negative})

    @classmethod
    def full(cls, full: float, image: float, negative: float = 0.0, prompt: float = 0.0) -> Guidance:
        """u + full (f - i) + image (i - u) - negative (n - u) + prompt (p - u)."""
        return cls(
            {
                Branch.FULL: full,
                Branch.IMAGE: image - full,
                Branch.UNCONDITIONAL: 1 - image + negative - prompt,
                Branch.NEGATIVE: -negative,
                Branch.PROMPT: prompt,
            }
        )


SCALES_OF = {"normal": ("full", "image"), "obj": ("full", "negative"), "full": ("full", "image", "negative", "prompt")}


@dataclass(frozen=True, kw_only=True)
class Scales:
    """A scheme and its guidance scales, as people set them.

    Raises:
        ConfigError: an unknown scheme, a scale below zero, a scale the scheme does not have, or no weight left on the
            rows that know the prompt.
    """

    scheme: str
    full: float = 0.0
    image: float = 0.0
    negative: float = 0.0
    prompt: float = 0.0

    def __post_init__(self) -> None:
        if self.scheme not in SCALES_OF:
            raise ConfigError(f"unknown guidance scheme {self.scheme!r}; known are {', '.join(SCALES_OF)}")
        for name in ("full", "image", "negative", "prompt"):
            self._check(name, getattr(self, name))
        if not self.full + self.prompt > 0:
            raise ConfigError(
                "the guidance scales leave no weight on the prompt: scale-full or scale-prompt must be above 0"
            )

    def _check(self, name: str, value: float) -> None:
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"scale-{name} must be 0 or more, got {value:g}")
        if value and name not in SCALES_OF[self.scheme]:
            raise ConfigError(f"guidance scheme {self.scheme!r} has no scale-{name}; it has {self.known}")

    @property
    def known(self) -> str:
        return ", ".join(f"scale-{name}" for name in SCALES_OF[self.scheme])

    @property
    def guidance(self) -> Guidance:
        """The weights these scales come to."""
        scales: dict[str, float] = {name: getattr(self, name) for name in SCALES_OF[self.scheme]}
        match self.scheme:
            case "normal":
                return Guidance.normal(**scales)
            case "obj":
                return Guidance.obj(**scales)
        return Guidance.full(**scales)


@dataclass(frozen=True, kw_only=True)
class GuidancePlan:
    """Which guidance each kind of picture gets.

    Kinds: `direct`, `part` and `whole` (subgoal), `draft` and `redraw` (critique), `free` (general). `quirks` are those
    of the published code that concern rows of guidance.
    """

    name: str
    scales: Mapping[str, Scales]
    quirks: tuple[Quirk, ...] = ()

    def for_picture(self, kind: str) -> Guidance:
        return self.scales[kind].guidance

    @property
    def branches(self) -> frozenset[Branch]:
        """Every branch that some picture of this plan has."""
        return frozenset(branch for scales in self.scales.values() for branch in scales.guidance.weights)

    def with_scales(self, **scales: float) -> GuidancePlan:
        """This plan with some scales replaced wherever the scheme has them; ConfigError if no scheme has one."""
        given = {name: value for name, value in scales.items() if value is not None}
        for name in given:
            if not any(name in SCALES_OF[entry.scheme] for entry in self.scales.values()):
                schemes = sorted({entry.scheme for entry in self.scales.values()})
                raise ConfigError(f"scale-{name} has no effect: guidance {', '.join(schemes)} has no such scale")
        return replace(self, scales={kind: _replaced(entry, given) for kind, entry in self.scales.items()})

    def only(self, kinds: Sequence[str]) -> GuidancePlan:
        """This plan for these kinds of picture alone; ConfigError where it has not all of them."""
        missing = [kind for kind in kinds if kind not in self.scales]
        if missing:
            raise ConfigError(f"guidance {self.name!r} has no scales for pictures of kind {missing[0]!r}")
        return replace(self, scales={kind: self.scales[kind] for kind in kinds})


def _replaced(entry: Scales, given: Mapping[str, float]) -> Scales:
    changes: dict[str, Any] = {name: value for name, value in given.items() if name in SCALES_OF[entry.scheme]}
    return replace(entry, **changes)


KINDS = ("direct", "part", "whole", "draft", "redraw", "free")
_PUBLISHED = Scales(scheme="full", full=2.0, image=1.2, prompt=5.0)
_PUBLISHED_PART = Scales(scheme="obj", full=2.0)
_PAPER_CRITIQUE = Scales(scheme="full", full=1.5, image=0.8, negative=3.0, prompt=5.0)
_ICONS = Scales(scheme="normal", full=1.5)  # the best of 1, 1.2, 1.5, 2, 3 on the bundled model, see docs/log.md

PRESETS: dict[str, GuidancePlan] = {
    "paper": GuidancePlan(
        name="paper",
        scales={
            "direct": Scales(scheme="normal", full=2.0),  # not in table 5: the published scale of a lone picture
            "part": Scales(scheme="obj", full=5.0, negative=3.0),
            "whole": Scales(scheme="full", full=2.0, image=1.2, negative=3.0, prompt=5.0),
            "draft": _PAPER_CRITIQUE,
            "redraw": _PAPER_CRITIQUE,
            "free": Scales(scheme="normal", full=2.0, image=1.2),
        },
    ),
    "reference": GuidancePlan(
        name="reference",
        scales={
            "direct": Scales(scheme="normal", full=2.0, image=1.2),
            "part": _PUBLISHED_PART,
            "whole": _PUBLISHED,
            "draft": _PUBLISHED,
            "redraw": _PUBLISHED,
            "free": Scales(scheme="normal", full=2.0, image=1.2),
        },
        quirks=tuple(sorted(OF_GUIDANCE)),
    ),
    "icons": GuidancePlan(name="icons", scales=dict.fromkeys(KINDS, _ICONS)),
}


def plan_named(name: str) -> GuidancePlan:
    """A preset, or a scheme (`normal`, `obj`, `full`) for every picture, at full scale 2 until scales say otherwise."""
    if name in PRESETS:
        return PRESETS[name]
    if name in SCALES_OF:
        return GuidancePlan(name=name, scales=dict.fromkeys(KINDS, Scales(scheme=name, full=2.0)))
    raise ConfigError(f"unknown guidance {name!r}; known are {', '.join([*PRESETS, *SCALES_OF])}")


def branch_ids(
    branch: Branch,
    history: Sequence[int],
    *,
    prompt: Sequence[int],
    negative: Sequence[int],
    vocab: Vocab,
    bos: int | None = None,
) -> Ids:
    """The row of one branch at the start of a picture; each ends in boi, as `history` (everything so far) does.

    `prompt` is the bare prompt, without template, bos and separator; without one its row is boi alone. `bos` is what
    the image branch keeps in place of the vocabulary's bos.
    """
    if branch is Branch.FULL:
        return tuple(history)
    if branch is Branch.IMAGE:
        marks = {vocab.boi, vocab.eoi, vocab.bos if bos is None else bos}
        return _ending_in_boi([token for token in history if token in vocab.image_ids or token in marks], vocab)
    before: dict[Branch, Sequence[int]] = {Branch.UNCONDITIONAL: (), Branch.NEGATIVE: negative, Branch.PROMPT: prompt}
    return _ending_in_boi(before[branch], vocab)


def _ending_in_boi(ids: Sequence[int], vocab: Vocab) -> Ids:
    return tuple(ids) if ids and ids[-1] == vocab.boi else (*ids, vocab.boi)


def merge_equal(rows: Iterable[tuple[Ids, float]]) -> tuple[tuple[Ids, float], ...]:
    """Rows of equal tokens run once, with the sum of their weights; one whose sum is zero does not run."""
    merged: dict[Ids, float] = {}
    for ids, weight in rows:
        merged[ids] = merged.get(ids, 0.0) + weight
    return tuple((ids, weight) for ids, weight in merged.items() if abs(weight) > SMALLEST_WEIGHT)
