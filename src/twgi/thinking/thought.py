"""One thought in the making: a task becomes a request to the engine, and its tokens become segments and a trace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.decoding.compat import (
    OF_GUIDANCE,
    PUBLISHED_IMAGES,
    PUBLISHED_LENGTH,
    PUBLISHED_PARTS,
    PUBLISHED_TOP_K,
    Quirk,
    parse_compat,
)
from twgi.decoding.grammar import FinishReason, Grammar
from twgi.decoding.guidance import Branch, GuidancePlan, Ids, plan_named
from twgi.decoding.params import SamplingParams
from twgi.decoding.request import Conditions, Request
from twgi.errors import CheckpointError, ConfigError, PromptError, TwgiError
from twgi.thinking.modes import NEGATIVE_PROMPT, Mode, images_allowed, mode_named
from twgi.thinking.prompts import check_text, place_pictures
from twgi.tokenizer.image import open_picture
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.trace import ImageSegment, ModelId, Segment, TextSegment, Trace


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to think about.

    Args:
        prompt: what the user says; `<image>` stands where a picture is, else pictures come after the text.
        mode: direct, subgoal, critique or general.
        pictures: of the prompt; PIL images or paths.
        seed, sample: with the prompt they decide every draw.
        sampling: None takes what the checkpoint says is best for it.
        guidance: a preset, a scheme, or a plan; None takes what the checkpoint says is best for it.
        scales: guidance scales that differ from the plan's: full, image, negative, prompt.
        rounds: of critique.
        negative_prompt: for guidance with a negative branch.
        compat: quirks of the published code to keep, see `parse_compat`.
        given: tokens after the prompt that the thought begins with, as if it had thought them itself.
    """

    prompt: str
    mode: str = "direct"
    pictures: Sequence[Image.Image | str | Path] = ()
    seed: int = 0
    sample: int = 0
    sampling: SamplingParams | None = None
    guidance: str | GuidancePlan | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    rounds: int = 1
    negative_prompt: str = NEGATIVE_PROMPT
    compat: str = ""
    given: Sequence[int] = ()

    @property
    def quirks(self) -> frozenset[Quirk]:
        return parse_compat(self.compat)


@dataclass(frozen=True, slots=True)
class TextPiece:
    """The next words."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageStarted:
    """Picture `number` (from 0) begins; `kind` says what for (see `GuidancePlan`)."""

    number: int
    kind: str


@dataclass(frozen=True, slots=True)
class ImageProgress:
    """`done` of `total` image tokens of picture `number` are drawn."""

    number: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class ImageFinished:
    """Picture `number` is whole."""

    number: int
    picture: Image.Image


@dataclass(frozen=True, slots=True)
class Done:
    """The thought is over; always the last event of a thought that began."""

    trace: Trace


@dataclass(frozen=True, slots=True)
class Failed:
    """The task cannot be thought about; its only event."""

    error: TwgiError


ThoughtEvent = TextPiece | ImageStarted | ImageProgress | ImageFinished | Done


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """What every thought of one model has in common.

    Args:
        defaults: the checkpoint's own (guidance, sampling settings).
        generation: its `generation_config.json`, which the published code samples by.
        config_bos: the id its config takes for bos.
    """

    tokenizer: MultimodalTokenizer
    context: int
    model: ModelId
    defaults: Mapping[str, Any]
    generation: Mapping[str, Any]
    config_bos: int

    def sampling(self, task: Task) -> SamplingParams:
        if task.sampling is not None:
            return task.sampling
        if Quirk.PUBLISHED_SAMPLING in task.quirks:
            top_k, top_p = self.generation.get("top_k", PUBLISHED_TOP_K), self.generation.get("top_p", 1.0)
            return SamplingParams(text_top_k=top_k, image_top_k=top_k, image_top_p=top_p)
        return SamplingParams().updated({key: value for key, value in self.defaults.items() if key != "guidance"})

    def plan(self, task: Task, mode: Mode) -> GuidancePlan:
        quirks = task.quirks
        usual = "reference" if quirks & OF_GUIDANCE else self.defaults.get("guidance", "paper")
        guidance = task.guidance if task.guidance is not None else usual
        plan = guidance if isinstance(guidance, GuidancePlan) else plan_named(guidance)
        if quirks:
            plan = replace(plan, quirks=tuple(sorted(quirks & OF_GUIDANCE)))
        return plan.only(mode.kinds).with_scales(**task.scales)


class Thought:
    """One thought in the making.

    Raises:
        ConfigError: settings that cannot be, or a limit too small for a picture.
        PromptError: the prompt is empty, too long, or does not fit its pictures.
        ImageError: a picture cannot be opened.
        CheckpointError: the mode draws, and the checkpoint cannot.
    """

    def __init__(self, id: int, task: Task, thinking: Thinking) -> None:
        self.id, self.task, self.thinking, self.tokenizer = id, task, thinking, thinking.tokenizer
        self.mode = mode_named(task.mode)
        self.plan, self.sampling = thinking.plan(task, self.mode), thinking.sampling(task)
        self.quirks = task.quirks | set(self.plan.quirks)
        self.pictures = [open_picture(p) if isinstance(p, str | Path) else p for p in task.pictures]
        self._encode_prompt()
        self.request = self._request()
        self._began = time.monotonic()
        self.busy = 0.0  # seconds of work, of steps shared with other thoughts its part
        self._busy_at: list[float] = []
        self._tokens: list[int] = []
        self._drawn: list[Image.Image] = []
        self._guided: list[dict[str, Any]] = []
        self._words = self.tokenizer.stream()
        self._image_tokens = 0

    def _encode_prompt(self) -> None:
        check_text(self.task.prompt)
        if self.pictures and not self.mode.takes_pictures:
            raise PromptError(f"mode {self.mode.name!r} takes no pictures in its prompt; use general")
        said = place_pictures(self.task.prompt, len(self.pictures))
        codes = self.tokenizer.codes(self.pictures)
        with_bos = tuple(self.tokenizer.encode_prompt(self.mode.prompt_text(said), codes))
        bare = Quirk.PROMPT_WITHOUT_BOS in self.quirks and self.mode.has_template
        self.prompt_ids = with_bos[1:] if bare else with_bos
        self.bare_ids = tuple(self.tokenizer.encode_prompt(said, codes)[1:-1])
        if Quirk.PROMPT_WITH_MARKS in self.quirks and not self.mode.has_template:
            self.bare_ids = with_bos
        self.negative_ids = self._negative() if Branch.NEGATIVE in self.plan.branches else ()

    def _negative(self) -> Ids:
        if not self.task.negative_prompt.strip():
            raise ConfigError(
                "the negative prompt is empty, and the guidance has a negative branch: set scale-negative to 0"
            )
        return tuple(self.tokenizer.text.encode(self.task.negative_prompt))

    def _request(self) -> Request:
        grammar = self._grammar()
        grammar.after(self.task.given)
        return Request(
            id=self.id,
            prompt=self.prompt_ids,
            grammar=grammar,
            text=self.sampling.text,
            image=self.sampling.image,
            seed=self.task.seed,
            sample=self.task.sample,
            guidance={kind: self.plan.for_picture(kind) for kind in self.plan.scales},
            conditions=self._conditions(),
            given=tuple(self.task.given),
            unread=frozenset({self.tokenizer.vocab.pad} if Quirk.PADS_UNREAD in self.quirks else ()),
        )

    def _conditions(self) -> Conditions:
        lost = self.mode.name == "subgoal" and Quirk.PROMPT_FORGOTTEN in self.quirks
        return Conditions(
            prompt=() if lost else self.bare_ids,
            negative=self.negative_ids,
            bos=self.thinking.config_bos if Quirk.CONFIG_BOS in self.quirks else None,
        )

    def _grammar(self) -> Grammar:
        images = self._images() if self.tokenizer.draws else self._without_drawing()
        at_last = Quirk.END_AT_LAST_IMAGE in self.quirks and images > 0
        return Grammar(
            vocab=self.tokenizer.vocab,
            budget=self._budget(),
            max_images=images,
            starts_with_image=self.mode.starts_with_image,
            stop_after_images=images if at_last else self.mode.stop_after_images,
            any_text=Quirk.ANY_TEXT in self.quirks,
        )

    def _images(self) -> int:
        asked, images = self.sampling.max_images, images_allowed(self.mode, self.task.rounds)
        if self.mode.stop_after_images:
            return images if asked is None else min(images, asked)
        if asked is None and Quirk.PUBLISHED_LIMITS in self.quirks:
            return PUBLISHED_IMAGES
        return images if asked is None else asked

    def _without_drawing(self) -> int:
        if not self.mode.takes_pictures:
            raise CheckpointError(
                f"mode {self.mode.name!r} draws, and this checkpoint has no image decoder (model.vqmodel.decoder.*): "
                "give the original vqgan.ckpt with --vq, or use mode general to read and write"
            )
        return 0

    def _budget(self) -> int:
        length, context, asked = len(self.prompt_ids), self.thinking.context, self.sampling.max_tokens
        needed = 1 if self.mode.takes_pictures else self.tokenizer.vocab.image_length
        if Quirk.PUBLISHED_LIMITS in self.quirks:
            context = min(context, PUBLISHED_LENGTH)
        room = context - length
        if room < needed:
            raise PromptError(
                f"the prompt is too long: {length} tokens and at least {needed} more, but the context holds {context}"
            )
        if Quirk.UNCHECKED_FIRST_IMAGE in self.quirks and self.mode.starts_with_image and asked is not None:
            asked = max(asked, needed)
        if asked is not None and asked < needed:
            raise ConfigError(
                f"max-tokens {asked} is too small for one picture: mode {self.mode.name!r} needs at least {needed}"
            )
        return room if asked is None else min(asked, room)

    def begin(self) -> Iterator[ThoughtEvent]:
        """The events of the given tokens."""
        for token in self.task.given:
            yield from self.hear(token)
            if token == self.tokenizer.vocab.boi:
                yield from self.open(len(self._guided), self.kind_of(len(self._guided)))

    def open(self, number: int, kind: str) -> Iterator[ThoughtEvent]:
        """A picture begins; the engine tells it of one that was given in part, too."""
        if number == len(self._guided):
            weights = {str(branch): weight for branch, weight in self.plan.for_picture(kind).weights.items()}
            self._guided.append({"kind": kind, **asdict(self.plan.scales[kind]), "weights": weights})
            yield ImageStarted(number, kind)

    def kind_of(self, k: int) -> str:
        """The kind of the k-th picture, whose boi is the last token heard."""
        return self._kind(k, (*self.prompt_ids, *self._tokens))

    def _kind(self, k: int, history: Ids) -> str:
        if self.mode.name == "subgoal" and Quirk.PARTS_BY_COUNT in self.quirks:
            return "part" if k < PUBLISHED_PARTS else "whole"
        said = history[len(self.prompt_ids) : -1]
        since = max((i + 1 for i, token in enumerate(said) if token == self.tokenizer.vocab.eoi), default=0)
        return self.mode.kind_of(k, self.tokenizer.text.decode(list(said[since:])))

    def hear(self, token: int) -> Iterator[ThoughtEvent]:
        """The events that one more token makes."""
        vocab = self.tokenizer.vocab
        self._tokens.append(token)
        if vocab.is_image(token):
            self._image_tokens += 1
            yield ImageProgress(len(self._drawn), self._image_tokens, vocab.tokens_per_image)
        elif token == vocab.eoi:
            yield self._draw()
        elif token in (vocab.boi, vocab.eos):
            yield from self._text(self._words.flush())
            if token == vocab.boi:
                self._image_tokens = 0
        else:
            yield from self._text(self._words.push(token))

    def _text(self, text: str) -> Iterator[TextPiece]:
        if text:
            yield TextPiece(text)

    def _draw(self) -> ImageFinished:
        """Each picture alone, so that its pixels do not depend on the batch either."""
        began = time.monotonic()
        self._words = self.tokenizer.stream()
        (drawn,) = self.tokenizer.draw([ImageSegment(tokens=tuple(self._tokens[-self.tokenizer.vocab.image_length :]))])
        assert isinstance(drawn, ImageSegment)
        assert drawn.picture is not None
        self._drawn.append(drawn.picture)
        self.busy += time.monotonic() - began
        self._busy_at.append(round(self.busy, 4))
        return ImageFinished(len(self._drawn) - 1, drawn.picture)

    def finish(self, reason: FinishReason) -> Iterator[ThoughtEvent]:
        """The words still held back, and the trace."""
        yield from self._text(self._words.flush())
        yield Done(self._trace(reason))

    def _trace(self, reason: FinishReason) -> Trace:
        ended = self._tokens[-1:] == [self.tokenizer.vocab.eos]  # the model wrote it, and read it no more
        segments, anomalies = self.tokenizer.decode(self._tokens[:-1] if ended else self._tokens)
        seconds = time.monotonic() - self._began
        return Trace(
            prompt=self.task.prompt,
            mode=self.mode.name,
            seed=self.task.seed,
            sample=self.task.sample,
            model=self.thinking.model,
            settings=self._settings(),
            finish_reason=reason.value,
            segments=(*self._inputs(), *self._with_pictures(segments)),
            anomalies=anomalies,
            timing={
                "seconds": round(seconds, 3),
                "busy": round(self.busy, 4),
                "busy_at_pictures": self._busy_at,
                "tokens": len(self._tokens),
                "prompt_tokens": len(self.prompt_ids),
            },
        )

    def _inputs(self) -> Iterator[ImageSegment]:
        return (ImageSegment(role="input", picture=picture) for picture in self.pictures)

    def _with_pictures(self, segments: Sequence[Segment]) -> Iterator[Segment]:
        roles, pictures = iter(self.mode.roles(len(self._drawn))), iter(self._drawn)
        for segment in segments:
            if isinstance(segment, TextSegment):
                yield segment
            else:  # one that is not whole, at the end of a thought cut short, has no picture
                yield replace(segment, role=next(roles, self.mode.role), picture=next(pictures, None))

    def _settings(self) -> dict[str, Any]:
        return {
            "sampling": asdict(self.sampling),
            "guidance": {"plan": self.plan.name, "pictures": self._guided},
            "limits": {"tokens": self.request.grammar.budget, "images": self.request.grammar.max_images},
            "rounds": self.task.rounds,
            **({"compat": sorted(self.quirks)} if self.quirks else {}),
            **({"negative_prompt": self.task.negative_prompt} if self.negative_ids else {}),
        }
