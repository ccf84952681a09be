"""Does the thought matter? The same thought goes on from a step that was blanked, or swapped with another prompt's.

In critique the words about the first picture are changed, and the second picture is drawn anew; in subgoal the pictures
of the parts are changed (their words stay), and the whole is drawn anew. All else stays: seed, sample, settings. A
thought that goes on from what it had thought itself is the same thought again, so `kept` is the run's own picture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twgi.decoding.params import SamplingParams
from twgi.errors import ConfigError
from twgi.evaluation.geneval import Item
from twgi.icons.world import Scene, render
from twgi.thinking.thinker import Thinker
from twgi.thinking.thought import Task
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.trace import ImageSegment, TextSegment, Trace

CONDITIONS = ("blanked", "swapped")
Ids = tuple[int, ...]
Thought = tuple[Item, Trace]


@dataclass(frozen=True, kw_only=True)
class Changed:
    """One thought with a changed step: where it goes on from, and which of its pictures is then looked at."""

    item: Item
    trace: Trace
    condition: str
    given: Ids
    picture: int


def changed(thoughts: Sequence[Thought], mode: str, tokenizer: MultimodalTokenizer) -> list[Changed]:
    """Every thought that has such a step, in every condition. A donor is always a thought about another prompt.

    Raises:
        ConfigError: the mode has no step that can be changed, or no thought has one.
    """
    if mode not in ("critique", "subgoal"):
        raise ConfigError(f"mode {mode!r} has no steps to change; critique and subgoal have")
    if mode == "critique":
        usable = [thought for thought in thoughts if len(thought[1].images) > 1]
        made = [_critique(usable, place, condition) for place in range(len(usable)) for condition in CONDITIONS]
    else:
        blank = blank_tokens(tokenizer)
        usable = [thought for thought in thoughts if _has_parts(thought[1])]
        made = [_subgoal(usable, place, condition, blank) for place in range(len(usable)) for condition in CONDITIONS]
    found = [one for one in made if one is not None]
    if not found:
        raise ConfigError(f"no thought of this run has a step that can be changed (mode {mode})")
    return found


def blank_tokens(tokenizer: MultimodalTokenizer) -> Ids:
    """The tokens of a picture with nothing in it."""
    (codes,) = tokenizer.codes([render(Scene(()))])
    return tuple(tokenizer.image_block(codes))


def _donor(usable: Sequence[Thought], place: int, fits: Callable[[Trace], bool]) -> Trace | None:
    """The first thought, from half way round, that is about another prompt and fits."""
    count = len(usable)
    turned = (usable[(place + count // 2 + step) % count] for step in range(count))
    item = usable[place][0]
    return next((trace for other, trace in turned if other.prompt != item.prompt and fits(trace)), None)


def _critique(usable: Sequence[Thought], place: int, condition: str) -> Changed | None:
    item, trace = usable[place]
    words: Ids = ()
    if condition == "swapped":
        donor = _donor(usable, place, lambda other: bool(_words(other)))
        if donor is None:
            return None
        words = _words(donor)
    first, second = trace.images[:2]
    given = (*first.tokens, *words, second.tokens[0])
    return Changed(item=item, trace=trace, condition=condition, given=given, picture=1)


def _words(trace: Trace) -> Ids:
    """The tokens between the first picture and the second."""
    between: list[int] = []
    seen = 0
    for segment in trace.segments:
        if isinstance(segment, ImageSegment):
            seen += 1
        elif seen == 1:
            between += segment.tokens
    return tuple(between)


def _has_parts(trace: Trace) -> bool:
    return len(trace.images) > 1 and all(image.tokens for image in trace.images)


def _subgoal(usable: Sequence[Thought], place: int, condition: str, blank: Ids) -> Changed | None:
    item, trace = usable[place]
    parts = len(trace.images) - 1
    pictures = [blank] * parts
    if condition == "swapped":
        donor = _donor(usable, place, lambda other: len(other.images) > parts)
        if donor is None:
            return None
        pictures = [image.tokens for image in donor.images[:parts]]
    given: list[int] = []
    left = iter(pictures)
    for segment in trace.segments[: _last_part(trace) + 1]:
        given += segment.tokens if isinstance(segment, TextSegment) else next(left)
    return Changed(item=item, trace=trace, condition=condition, given=tuple(given), picture=parts)


def _last_part(trace: Trace) -> int:
    """Where the last picture but one stands among the segments."""
    return [i for i, segment in enumerate(trace.segments) if isinstance(segment, ImageSegment)][-2]


def task_of(change: Changed, settings: Mapping[str, Any]) -> Task:
    """The thought to go on with, under the settings of its run (`run.json`)."""
    guidance = settings["guidance"]
    return Task(
        prompt=change.trace.prompt,
        mode=change.trace.mode,
        seed=change.trace.seed,
        sample=change.trace.sample,
        sampling=SamplingParams(**settings["sampling"]),
        guidance=guidance["name"],
        scales=guidance["changed"],
        rounds=settings["rounds"],
        given=change.given,
    )


def redrawn(
    thinker: Thinker,
    changes: Sequence[Changed],
    settings: Mapping[str, Any],
    *,
    batch: int,
    advance: Callable[[], None],
) -> list[ImageSegment | None]:
    """The picture that each change leads to; None where the thought ended without it."""
    pictures: list[ImageSegment | None] = [None] * len(changes)
    tasks = (task_of(change, settings) for change in changes)
    for index, result in thinker.think_many(tasks, batch=batch):
        images = result.images if isinstance(result, Trace) else ()
        number = changes[index].picture
        pictures[index] = images[number] if number < len(images) else None
        advance()
    return pictures
