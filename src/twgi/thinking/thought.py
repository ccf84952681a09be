"""One thought in the making: the engine's events come in, the events of the thought and its trace go out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import Any

from PIL import Image

from twgi.decoding.events import Event, Failed, Finished, ImageOpened, Token
from twgi.decoding.grammar import FinishReason
from twgi.errors import RunError, TwgiError
from twgi.thinking.events import (
    Done,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    Task,
    TextPiece,
    ThoughtEvent,
    ThoughtFailed,
)
from twgi.thinking.modes import KINDS, roles
from twgi.thinking.request import ModelFacts, Planned
from twgi.trace import ImageSegment, Role, Segment, TextSegment, Trace

Drawn = tuple[Image.Image, float]
"""A picture, and the seconds it took to decode it."""
NEVER_OPENED: tuple[str | None, Role, Image.Image | None] = (None, "draft", None)


class Thought:
    """One thought in the making.

    Its events are kept in order until they are taken out; a picture that is still being decoded holds back those after
    it, and nothing else.
    """

    def __init__(self, task: Task, planned: Planned, facts: ModelFacts) -> None:
        self.task, self.planned, self.facts, self.tokenizer = task, planned, facts, facts.tokenizer
        self.request, self.vocab = planned.request, facts.tokenizer.vocab
        self.busy = 0.0  # seconds of work, of steps shared with other thoughts its part
        self._began = time.monotonic()
        self._busy_at: list[float] = []
        self._tokens: list[int] = []
        self._words = self.tokenizer.text.stream()
        self._since_picture: list[int] = []  # tokens after the last eoi, or after the prompt
        self._guided: list[dict[str, Any]] = []
        self._pictures: list[Image.Image] = []
        self._outbox: deque[ThoughtEvent | Future[Drawn] | FinishReason] = deque()
        self._image_tokens = 0
        self.given_pictures: list[tuple[int, ...]] = []  # tokens of each whole picture that it begins with
        for token in self.request.given:
            if token == self.vocab.boi:
                kind = self.kind_of_next()
            if (picture := self._take(token)) is not None:
                self._record(kind)
                self.given_pictures.append(picture)
        self._outbox.clear()  # of what is given nothing is told

    def kind_of_next(self) -> str:
        """What the picture that begins now is drawn as, by its number and the words since the one before."""
        words = self.tokenizer.text.decode([t for t in self._since_picture if t != self.vocab.boi])
        return self.planned.kind_of(len(self._guided), words)

    def _record(self, kind: str) -> None:
        plan = self.planned.settings.plan
        weights = {str(branch): weight for branch, weight in plan.for_picture(kind).weights.items()}
        self._guided.append({"kind": kind, **asdict(plan.scales[kind]), "weights": weights})

    def hear(self, event: Event) -> tuple[int, ...] | None:
        """What the engine tells of it. Where a picture ends, its tokens are returned, to be decoded."""
        match event:
            case Token():
                return self._take(event.token)
            case ImageOpened():
                self._record(event.kind)
                self._outbox.append(ImageStarted(event.number, event.kind))
            case Finished():
                self._say(self._words.flush())
                self._outbox.append(event.reason)
            case Failed():
                self._fail(RunError(event.problem))
        return None

    def _take(self, token: int) -> tuple[int, ...] | None:
        vocab = self.vocab
        self._tokens.append(token)
        self._since_picture.append(token)
        if vocab.is_image(token):
            self._image_tokens += 1
            number, total = len(self._guided) - 1, vocab.tokens_per_image
            self._outbox.append(ImageProgress(number, self._image_tokens, total, token))
        elif token == vocab.eoi:
            self._since_picture.clear()
            self._words = self.tokenizer.text.stream()
            return tuple(self._tokens[-vocab.image_length :])
        elif token in (vocab.boi, vocab.eos):
            self._say(self._words.flush())
            self._image_tokens = 0
        else:
            self._say(self._words.push(token))
        return None

    def _say(self, text: str) -> None:
        if text:
            self._outbox.append(TextPiece(text))

    def await_picture(self, picture: Future[Drawn]) -> None:
        """The next picture comes from there."""
        self._outbox.append(picture)

    def _fail(self, error: TwgiError) -> None:
        """No token follows, and nothing that is not said yet."""
        self._outbox.clear()
        self._outbox.append(ThoughtFailed(error))

    @property
    def awaited(self) -> Future[Drawn] | None:
        """What holds back the next event."""
        first = self._outbox[0] if self._outbox else None
        return first if isinstance(first, Future) and not first.done() else None

    def events(self) -> Iterator[ThoughtEvent]:
        """What can be told now; the last is `Done` or `ThoughtFailed`."""
        while self._outbox and self.awaited is None:
            item = self._outbox.popleft()
            if isinstance(item, Future):
                yield from self._arrived(item)
            else:
                yield Done(self._trace(item)) if isinstance(item, FinishReason) else item

    def _arrived(self, decoded: Future[Drawn]) -> Iterator[ThoughtEvent]:
        try:
            picture, seconds = decoded.result()
        except (MemoryError, RuntimeError, TwgiError) as error:  # torch's own, out of memory too
            self._fail(error if isinstance(error, TwgiError) else RunError(f"a picture cannot be decoded: {error}"))
            return
        self.busy += seconds
        self._busy_at.append(round(self.busy, 4))
        self._pictures.append(picture)
        if len(self._pictures) > len(self.given_pictures):
            yield ImageFinished(len(self._pictures) - 1, picture)

    def _trace(self, reason: FinishReason) -> Trace:
        ended = self._tokens[-1] if self._tokens and self._tokens[-1] == self.vocab.eos else None
        segments, anomalies = self.tokenizer.decode(self._tokens if ended is None else self._tokens[:-1])
        task, grammar, settings = self.task, self.request.grammar, self.planned.settings
        limits = {"tokens": grammar.budget, "images": grammar.max_images}
        timing = {
            "seconds": round(time.monotonic() - self._began, 3),
            "busy": round(self.busy, 4),
            "busy_at_pictures": self._busy_at,
            "tokens": len(self._tokens),
            "prompt_tokens": len(self.request.prompt),
        }
        return Trace(
            prompt=task.prompt,
            mode=settings.mode,
            seed=task.seed,
            sample=task.sample,
            model=self.facts.identity,
            settings={**settings.to_json(), "limits": limits, "pictures": self._guided},
            finish_reason=reason.value,
            segments=(
                *(ImageSegment(role="input", picture=picture) for picture in self.planned.pictures),
                *self._with_pictures(segments),
            ),
            end_token=ended,
            anomalies=anomalies,
            timing=timing,
        )

    def _with_pictures(self, segments: Sequence[Segment]) -> Iterator[Segment]:
        """The segments with their kinds, roles and pictures; one that is cut short at the end has no picture."""
        kinds, whole = [picture["kind"] for picture in self._guided], len(self._pictures)
        named = [*roles(kinds[:whole]), *(KINDS[kind].role for kind in kinds[whole:])]
        of_images = zip(kinds, named, [*self._pictures, *[None] * (len(kinds) - whole)], strict=True)
        for segment in segments:
            if isinstance(segment, TextSegment):
                yield segment
            else:
                kind, role, picture = next(of_images, NEVER_OPENED)
                yield replace(segment, kind=kind, role=role, picture=picture)
