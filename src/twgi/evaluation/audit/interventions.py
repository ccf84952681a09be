"""Does the thought matter? The same thought goes on from a step that was blanked, or swapped with another prompt's.

Where drafts are looked at again, the words about the first picture are changed, and the second picture is drawn anew;
where there are parts, their pictures are changed (their words stay), and the whole is drawn anew. All else stays: seed,
sample, settings. A thought that goes on from what it had thought itself is the same thought again, so `kept` is the
run's own picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twgi.errors import ConfigError
from twgi.evaluation.geneval.rules import GenEvalItem
from twgi.icons.world import Scene, render
from twgi.thinking.events import Task
from twgi.thinking.modes import KINDS
from twgi.thinking.settings import Settings
from twgi.thinking.thinker import Thinker
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.trace import ImageSegment, TextSegment, Trace

CONDITIONS = ("blanked", "swapped")
Ids = tuple[int, ...]
AboutItem = tuple[GenEvalItem, Trace]


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One thought with a changed step: where it goes on from, and which of its pictures is then looked at."""

    item: GenEvalItem
    trace: Trace
    condition: str
    given: Ids
    picture: int

    @property
    def key(self) -> tuple[str, int]:
        return self.item.id, self.trace.sample


def step_of(traces: Sequence[Trace]) -> str | None:
    """What is a step in these thoughts: `draft`, a picture that is looked at again, or `part`."""
    kinds = [KINDS[image.kind] for trace in traces for image in trace.images if image.kind in KINDS]
    return "draft" if any(kind.draft for kind in kinds) else "part" if any(kind.part for kind in kinds) else None


def interventions(thoughts: Sequence[AboutItem], tokenizer: MultimodalTokenizer) -> list[Intervention]:
    """Every thought that has such a step, in every condition. A donor is always a thought about another prompt.

    Raises `ConfigError` where no thought has a step that can be changed.
    """
    step = step_of([trace for _, trace in thoughts])
    usable = [(i, t) for i, t in thoughts if step and len(t.images) > 1 and all(image.tokens for image in t.images)]
    blank, made = blank_tokens(tokenizer), []
    for place, (item, trace) in enumerate(usable):
        for condition in CONDITIONS:
            donor = _donor(usable, place, step) if condition == "swapped" else None
            if condition == "swapped" and donor is None:
                continue
            if step == "draft":
                given, picture = _words_changed(trace, donor), 1
            else:
                given, picture = _parts_changed(trace, donor, blank), len(trace.images) - 1
            made.append(Intervention(item=item, trace=trace, condition=condition, given=given, picture=picture))
    if not made:
        raise ConfigError("no thought of this run has a step that can be changed")
    return made


def blank_tokens(tokenizer: MultimodalTokenizer) -> Ids:
    """The tokens of a picture with nothing in it."""
    (codes,) = tokenizer.codes([render(Scene(()))])
    return tuple(tokenizer.image_block(codes))


def _donor(usable: Sequence[AboutItem], place: int, step: str | None) -> Trace | None:
    """The first thought, from half way round, that is about another prompt and has as much of the step."""
    count, (item, trace) = len(usable), usable[place]
    for turn in range(count):
        other, donor = usable[(place + count // 2 + turn) % count]
        fits = _words(donor) if step == "draft" else len(donor.images) >= len(trace.images)
        if other.prompt != item.prompt and fits:
            return donor
    return None


def _words_changed(trace: Trace, donor: Trace | None) -> Ids:
    """The words about the first picture are none, or another thought's."""
    first, second = trace.images[:2]
    return (*first.tokens, *(_words(donor) if donor else ()), second.tokens[0])


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


def _parts_changed(trace: Trace, donor: Trace | None, blank: Ids) -> Ids:
    """All pictures but the last are empty, or another thought's; the words stay."""
    parts = len(trace.images) - 1
    left = iter([image.tokens for image in donor.images[:parts]] if donor else [blank] * parts)
    places = [number for number, segment in enumerate(trace.segments) if isinstance(segment, ImageSegment)]
    given: list[int] = []
    for segment in trace.segments[: places[-2] + 1]:
        given += segment.tokens if isinstance(segment, TextSegment) else next(left)
    return tuple(given)


def task_of(change: Intervention, settings: Settings) -> Task:
    """The thought to go on with, under the settings of its run."""
    trace = change.trace
    return Task(prompt=trace.prompt, seed=trace.seed, sample=trace.sample, settings=settings, given=change.given)


def redrawn(
    thinker: Thinker, changes: Sequence[Intervention], settings: Settings, *, batch: int, advance: Callable[[], None]
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
