"""The audit of a run in the icon world, where truth is known: how often steps are right, and whether they matter.

Two failures the paper shows: a critique that is right and a redrawn picture that does not follow it; parts that are
right and a whole that does not combine them.

Does the thought matter? The same thought goes on from a step that was blanked, or swapped with another prompt's. Where
drafts are looked at again, the words about the first picture are changed, and the second picture is drawn anew; where
there are parts, their pictures are changed (their words stay), and the whole is drawn anew. All else stays: seed,
sample, settings. A thought that goes on from what it had thought itself is the same thought again, so `kept` is the
run's own picture.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twgi.errors import ConfigError
from twgi.evaluation.audit.remarks import Remark, read_remark
from twgi.evaluation.detectors.suite import DetectorSuite, self_test
from twgi.evaluation.geneval.rules import Detection, GenEvalItem, judge
from twgi.evaluation.icons import icon_suite
from twgi.evaluation.pictures import told_of
from twgi.evaluation.report.statistics import Estimate, differences, wilson
from twgi.files import write_json
from twgi.icons.world import Scene, render
from twgi.runs.folder import read_run, read_thoughts
from twgi.runs.plan import parse_job_id
from twgi.thinking.events import Task
from twgi.thinking.modes import KINDS
from twgi.thinking.settings import Settings
from twgi.thinking.thinker import Thinker
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.trace import ImageSegment, Segment, TextSegment, Trace

AUDIT, VERSION = "audit.json", 1
CONDITIONS = ("blanked", "swapped")
Ids = tuple[int, ...]
AboutItem = tuple[GenEvalItem, Trace]
STEPS = {"draft": "critique", "part": "pictures of the parts"}
Rate = dict[str, Any]
Verdicts = dict[tuple[str, int], bool]
"""(id of the prompt, sample) -> whether the picture is right"""


def rate(what: str, cases: Iterable[bool]) -> Rate:
    """The share of cases in which it was so, with Wilson's interval of 95 %; None where there was no case."""
    found = list(cases)
    if not found:
        return {"what": what, "share": None, "of": 0}
    share = sum(found) / len(found)
    low, high = wilson(share, len(found))
    return {"what": what, "share": share, "low": low, "high": high, "of": len(found)}


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

    def strange(self, traces: Iterable[Trace]) -> str | None:
        """Why none of their pictures can be judged, if that is so."""
        assert self.suite.blind is not None
        whys = [self.suite.blind(image.picture) for trace in traces for image in trace.images if image.picture]
        return whys[0] if whys and all(whys) else None

    def seen(self, image: ImageSegment) -> list[Detection]:
        """What is in a picture; nothing where it is not whole."""
        return self.suite.detector.detect([image.picture])[0] if image.picture else []

    def right(self, item: GenEvalItem, *images: ImageSegment) -> bool:
        """Whether what whole pictures show fulfils the prompt, as if it were in one; not where there are none."""
        seen = [thing for image in images for thing in self.seen(image)]
        whole = [image.picture for image in images if image.picture]
        return bool(whole) and judge(item, whole[0], seen, self.suite.colors).correct

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
        return [image for image in trace.images if image.kind in KINDS and KINDS[image.kind].part]


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
    """Every thought with such a step, in every condition; a donor is about another prompt. Raises `ConfigError`."""
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


class Audited:
    """The thoughts of a benchmark's run, with what they are of. Raises `ConfigError` where they have no steps."""

    def __init__(self, folder: Path) -> None:
        self.run = read_run(folder)
        told = told_of(folder, self.run)
        items = [GenEvalItem.from_json(line, int(n)) for line, n in zip(told["lines"], told["ids"], strict=True)]
        found = {parse_job_id(trace.id): trace.with_pictures(folder) for trace in read_thoughts(folder)}
        keys = sorted(found, key=lambda key: (key[1], key[0]))
        self.thoughts: list[AboutItem] = [(items[key[0]], found[key]) for key in keys]
        step = step_of([trace for _, trace in self.thoughts])
        if step is None:
            raise ConfigError(f"{folder}: its thoughts have no steps; there are some in critique and subgoal")
        self.step, self.auditor = step, Auditor(icon_suite())
        self_test(self.auditor.suite)
        if (strange := self.auditor.strange([trace for _, trace in self.thoughts])) is not None:
            raise ConfigError(f"{folder}: {strange}")

    def rates(self) -> list[Rate]:
        if self.step == "draft":
            return critique_rates([step for item, trace in self.thoughts for step in self.auditor.steps(item, trace)])
        right, found = self.auditor.right, [(i, t, self.auditor.parts(t)) for i, t in self.thoughts]
        return subgoal_rates([(right(i, *parts), right(i, t.images[-1])) for i, t, parts in found if parts])

    def changes(self, thinker: Thinker, limit: int) -> list[Intervention]:
        """So many thoughts, evenly over the prompts, in all conditions. Raises `ConfigError` for another model."""
        sha = self.run.model.sha256
        if thinker.identity.sha256 != sha:
            raise ConfigError(f"these thoughts are of another model ({sha[:12]}): give it as --model")
        made = interventions(self.thoughts, thinker.tokenizer)
        keys = list(dict.fromkeys(one.key for one in made))
        count = min(limit, len(keys))
        chosen = {keys[place * len(keys) // count] for place in range(count)}
        return [one for one in made if one.key in chosen]

    def intervene(
        self, thinker: Thinker, changes: Sequence[Intervention], *, batch: int, advance: Callable[[], None]
    ) -> tuple[list[Rate], dict[str, Estimate]]:
        """The score with each condition, and its difference from what was kept, paired by prompt."""
        pictures = redrawn(thinker, changes, self.run.settings, batch=batch, advance=advance)
        kept, changed = Verdicts(), dict[str, Verdicts]()
        for change, picture in zip(changes, pictures, strict=True):
            right = picture is not None and self.auditor.right(change.item, picture)
            changed.setdefault(change.condition, {})[change.key] = right
            kept[change.key] = self.auditor.right(change.item, change.trace.images[change.picture])
        named = {"kept": kept, **changed}.items()
        rates = [rate(f"right with the {STEPS[self.step]} {name}", found.values()) for name, found in named]
        return rates, {name: _effect(kept, found) for name, found in changed.items()}


def _effect(kept: Verdicts, found: Verdicts) -> Estimate:
    sums = dict[str, tuple[float, float]](), dict[str, tuple[float, float]]()
    for key in found:
        for by_prompt, right in zip(sums, (kept[key], found[key]), strict=True):
            total, count = by_prompt.get(key[0], (0.0, 0.0))
            by_prompt[key[0]] = total + right, count + 1
    return differences({"all": sums[0]}, {"all": sums[1]})["all"]


def write_audit(
    audited: Audited, folder: Path, *, rates: Sequence[Rate], effects: Mapping[str, Estimate]
) -> dict[str, Any]:
    """Write `audit.json`, which a report takes up; returns what it holds. Raises `RunError`."""
    run, told = audited.run, {name: estimate.to_json() for name, estimate in effects.items()}
    content = {"version": VERSION, "mode": run.settings.mode, "model": run.model.to_json()}
    content |= {"rates": list(rates), "effects": told}
    write_json(folder / AUDIT, content)
    return content


def table(content: Mapping[str, Any]) -> str:
    lines = [f"{'what':52} {'share':>6} {'of':>6}"]
    for entry in content["rates"]:
        share = "-" if entry["share"] is None else f"{entry['share']:.3f}"
        lines.append(f"{entry['what']:52} {share:>6} {entry['of']:>6}")
    for name, effect in content["effects"].items():
        interval = f"{effect['low']:+.3f} to {effect['high']:+.3f}"
        lines.append(f"{name} less kept: {effect['value']:+.3f} ({interval}), p = {effect['p']:.4f}")
    return "\n".join(lines)
