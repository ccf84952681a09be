"""The ways to think: what the prompt says, how the thought begins and ends, and what each picture is for.

A mode is one entry of `MODES`. Whoever needs to know more about a picture asks its kind, an entry of `KINDS`, which is
recorded with it in the trace; nobody asks for the name of a mode.

Templates, and the words of the negative prompt, are those the published weights were trained with. The same functions
build the rows of training data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from twgi.errors import ConfigError
from twgi.trace import Role, Segment, TextSegment

NEGATIVE_PROMPT = (
    "text in the image, text, lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, "
    "cropped, worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
)

KindOf = Callable[[int, str], str]
"""(number of the picture from 0, text since the picture before) -> kind of picture, see `GuidancePlan`."""

_WHOLE = re.compile(r"\b(whole|complete|full|final)\s+(picture|image|scene)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+")


def subgoal_kind(k: int, text_before: str) -> str:
    """`whole` once the words since the last picture announce the whole (complete, full, final) picture; else `part`.

    Of the words before the first picture only the last sentence counts: what comes before it is the plan.
    """
    words = text_before if k else _SENTENCE_END.split(text_before.strip())[-1]
    return "whole" if _WHOLE.search(words) else "part"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a picture is drawn as."""

    title: str = ""  # in words, for people; empty where there is nothing to say
    role: Role = "draft"  # in the trace, of all but the last picture of a thought, which is `final`
    draft: bool = False  # the model looks at it and says what is wrong; a picture after it is drawn to be better
    part: bool = False  # it shows a part of what was asked for, and a later picture is composed of the parts


KINDS: dict[str, Kind] = {
    "direct": Kind(),
    "part": Kind(title="subgoal", role="subgoal", part=True),
    "whole": Kind(title="the whole", role="subgoal"),
    "draft": Kind(title="draft", draft=True),
    "redraw": Kind(title="redrawn"),
    "free": Kind(),
}


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to think."""

    name: str
    template: str = "{prompt}"  # the prompt as the model reads it; `{prompt}` is what the user said
    kinds: tuple[str, ...]  # every kind of picture it draws, entries of `KINDS`
    kind_of: KindOf  # which of them the k-th picture is
    starts_with_image: bool = False  # boi is forced
    stop_after_images: int | None = None  # complete with this many pictures; None leaves the end to the model
    max_images: int  # pictures it may draw, when the user does not say
    has_rounds: bool = False  # each round after the first allows one more picture
    takes_pictures: bool = False  # the prompt may have pictures

    @property
    def has_template(self) -> bool:
        """Whether the prompt stands inside an instruction."""
        return self.template != "{prompt}"

    @property
    def has_parts(self) -> bool:
        """Whether it composes a picture of parts that it draws first."""
        return any(KINDS[kind].part for kind in self.kinds)

    def prompt_text(self, prompt: str) -> str:
        """What the model reads between bos and separator."""
        return self.template.replace("{prompt}", prompt)


def roles(kinds: Sequence[str]) -> list[Role]:
    """The roles of the pictures of one thought, in order, from their kinds."""
    return [*(KINDS[kind].role for kind in kinds[:-1]), "final"] if kinds else []


def with_kinds(segments: Iterable[Segment], mode: Mode) -> list[Segment]:
    """Words and drawn pictures of which nobody recorded what they were drawn as: the kind that the mode gives each, by
    its number and the words since the one before, and its role."""
    found, kinds, words = list(segments), list[str](), ""
    for segment in found:
        if isinstance(segment, TextSegment):
            words += segment.text
        else:
            kinds.append(mode.kind_of(len(kinds), words))
            words = ""
    kind, role = iter(kinds), iter(roles(kinds))
    return [s if isinstance(s, TextSegment) else replace(s, kind=next(kind), role=next(role)) for s in found]


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            name="direct",
            kinds=("direct",),
            kind_of=lambda k, text: "direct",
            starts_with_image=True,
            stop_after_images=1,
            max_images=1,
        ),
        Mode(
            name="subgoal",
            template="Generate the objects in the prompt step by step, and then generate the complete image. "
            "The prompt is: {prompt}",
            kinds=("part", "whole"),
            kind_of=subgoal_kind,
            max_images=8,
        ),
        Mode(
            name="critique",
            template="Generate an image based on the given prompt. Then analyze whether the image matches the prompt, "
            "and generate a better image based on your analysis. The prompt is: {prompt}",
            kinds=("draft", "redraw"),
            kind_of=lambda k, text: "redraw" if k else "draft",
            starts_with_image=True,
            max_images=2,
            has_rounds=True,
        ),
        Mode(name="general", kinds=("free",), kind_of=lambda k, text: "free", max_images=4, takes_pictures=True),
    )
}


def mode_named(name: str) -> Mode:
    """The mode of this name; ConfigError lists the known ones."""
    if name not in MODES:
        raise ConfigError(f"unknown mode {name!r}; known are {', '.join(MODES)}")
    return MODES[name]


def images_allowed(mode: Mode, rounds: int) -> int:
    """Pictures a thought may draw. Raises `ConfigError`: no round at all, or rounds in a mode that has none."""
    if rounds < 1:
        raise ConfigError(f"rounds must be 1 or more, got {rounds}")
    if rounds > 1 and not mode.has_rounds:
        having = ", ".join(name for name, other in MODES.items() if other.has_rounds)
        raise ConfigError(f"mode {mode.name!r} has no rounds; only {having} has")
    return mode.max_images + rounds - 1
