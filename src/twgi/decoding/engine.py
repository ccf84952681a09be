"""The engine: batched decoding of token ids. It knows no text, no pixels, no files.

A step is one forward pass over all rows of all sequences, whatever they are at: reading prompts, writing, drawing.
Sequences enter and leave at any step. What a sequence says is the same alone and in any company.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from twgi.decoding.events import Event, Failed, Finished, ImageAsked
from twgi.decoding.grammar import Choice, FinishReason, allowed_ids
from twgi.decoding.pages import PAGE, Pages
from twgi.decoding.params import Filter
from twgi.decoding.request import Request
from twgi.decoding.runner import Runner
from twgi.decoding.sampler import combined, draw
from twgi.decoding.scheduler import Batch, Scheduler, longest_rows
from twgi.decoding.sequence import Drawn, Sequence
from twgi.errors import ConfigError, PromptError
from twgi.model.transformer import Transformer
from twgi.vocab import Vocab


class Wanted(NamedTuple):
    """A draw: the sequence that is `place`-th in the step, the number of the draw in its window, the rows to mix."""

    place: int
    number: int
    sequence: Sequence
    rows: list[tuple[int, float]]


class Engine:
    """Decodes many requests at once.

    Args:
        model: in eval mode, on the device and in the dtype it should run.
        vocab: the meaning of its ids.
        tokens: positions of the cache, the bound on memory; see `scheduler.most_positions`.
        serial: rows in turn and their cache in host memory, where the device has too little.
        page: positions of a page of the cache.
        window: tokens of a sequence that are drawn in one step, if all but the last of them were guessed; the tokens do
            not depend on it. None: as many as pay, and 1 where the model's bits depend on how a row is cut into pieces.
    """

    def __init__(
        self,
        model: Transformer,
        vocab: Vocab,
        *,
        tokens: int,
        serial: bool = False,
        page: int = PAGE,
        window: int | None = None,
    ) -> None:
        self.model, self.vocab, self.pages = model, vocab, Pages(tokens, page)
        self.runner = Runner(model, self.pages, serial=serial)
        self.scheduler = Scheduler(self.pages, window or (None if self.runner.exact else 1))
        self._outbox: list[Event] = []
        device = next(model.parameters()).device
        self._ids = {choice: torch.tensor(allowed_ids(vocab, choice), device=device) for choice in Choice}

    @property
    def busy(self) -> bool:
        """Whether another step would do anything; sequences that asked for a kind rest until the answer."""
        return bool(self._outbox) or self.scheduler.busy

    def submit(self, request: Request) -> None:
        """Take a request in; its events come out of later steps.

        Raises:
            PromptError: the prompt is empty, or it, its budget or its negative prompt is longer than the context; or
                the grammar does not allow what is given.
            ConfigError: it needs more room than the cache has, or may draw and has no guidance.
        """
        context, length, budget = self.model.config.max_positions, len(request.prompt), request.grammar.budget
        if not request.prompt:
            raise PromptError("a sequence needs a prompt of at least one token")
        if length + budget > context:
            raise PromptError(f"{length} prompt tokens and {budget} more exceed the context of {context}")
        if request.grammar.max_images and not request.guidance:
            raise ConfigError("a sequence that may draw needs guidance for its pictures")
        if (longest := max(longest_rows(request))) > context:
            raise PromptError(f"a row of guidance of {longest} tokens exceeds the context of {context}")
        request.grammar.after(request.given)
        self.scheduler.add(request)

    def cancel(self, id: int) -> None:
        """End a request; its `Finished` event comes with the next step. Unknown and finished ones are left alone."""
        sequence = self.scheduler.find(id)
        if sequence is not None:
            self.scheduler.remove(sequence)
            self._outbox.append(Finished(id, FinishReason.CANCELLED))

    def answer(self, id: int, kind: str) -> None:
        """The open picture of a request that asked is of this kind. Unknown and finished requests are left alone.

        Raises:
            ConfigError: the request has no guidance for this kind, or has asked nothing.
        """
        sequence = self.scheduler.find(id)
        if sequence is None:
            return
        if kind not in sequence.request.guidance:
            raise ConfigError(f"unknown kind of picture {kind!r}; known are {', '.join(sequence.request.guidance)}")
        if not sequence.asking:
            raise ConfigError(f"request {id} has not asked for a kind of picture")
        self._outbox += sequence.answer(kind)
        self.scheduler.remove_finished(sequence)

    def run(self, kind_of: Callable[[int, int], str] | None = None) -> Iterator[Event]:
        """Steps until nothing is left to do. `kind_of` says the kind of a request's picture when that is asked; without
        it the caller answers before it takes the next event."""
        while self.busy:
            for event in self.step():
                yield event
                if isinstance(event, ImageAsked) and kind_of is not None:
                    self.answer(event.id, kind_of(event.id, event.number))

    def step(self) -> list[Event]:
        """One forward pass over everything, and one token for each sequence that is ready."""
        events, self._outbox = self._outbox, []
        events += self.scheduler.admit()
        batch = self.scheduler.schedule()
        if batch.pieces:
            for drawn in self._sample(batch, self.runner.run(batch)):
                events += self._accept(*drawn)
        return events

    @torch.inference_mode()
    def _sample(self, batch: Batch, hidden_ND: Tensor) -> list[tuple[Sequence, list[Drawn]]]:
        """What is drawn of each sequence that is ready, at each of its drafts and after them."""
        groups: dict[tuple[Choice, Filter], list[Wanted]] = {}
        out: list[tuple[Sequence, list[Drawn]]] = []
        first = 0
        for sequence in batch.ready:
            choices = list(sequence.choices())
            for number, choice in enumerate(choices):
                by = sequence.request.image if choice is Choice.IMAGE else sequence.request.text
                rows = [(first + i * len(choices) + number, weight) for i, (_, weight) in enumerate(sequence.mix)]
                groups.setdefault((choice, by), []).append(Wanted(len(out), number, sequence, rows))
            out.append((sequence, [(None, None)] * len(choices)))
            first += len(sequence.mix) * len(choices)
        for (choice, by), wanted in groups.items():
            for one, drawn in zip(wanted, self._draw(hidden_ND, choice, by, wanted), strict=True):
                out[one.place][1][one.number] = drawn
        return out

    def _draw(self, hidden_ND: Tensor, choice: Choice, by: Filter, wanted: list[Wanted]) -> Iterator[Drawn]:
        """One draw for each of these, in their order."""
        ids_A, rows = self._ids[choice], [one.rows for one in wanted]
        if sum(map(len, rows)) < len(hidden_ND):
            used = [place for own in rows for place, _ in own]
            hidden_ND, places = hidden_ND[used], count()
            rows = [[(next(places), weight) for _, weight in own] for own in rows]
        starts = [one.sequence.noise.start(one.sequence.position + one.number) for one in wanted]
        asked = any(one.sequence.request.logprobs for one in wanted)
        mixed_RA = combined(self.model.logits(hidden_ND, ids_A), rows)
        draws = draw(mixed_RA, ids_A, by, torch.tensor(starts, device=ids_A.device), logprobs=asked)
        logprobs = [None] * len(rows) if draws.logprobs_R is None else draws.logprobs_R.tolist()
        tokens = zip(wanted, draws.tokens_R.tolist(), draws.finite_R.tolist(), logprobs, strict=True)
        for one, token, finite, logprob in tokens:
            yield token if finite else None, logprob if one.sequence.request.logprobs else None

    def _accept(self, sequence: Sequence, drawn: list[Drawn]) -> list[Event]:
        if any(token is None for token, _ in sequence.agreed(drawn)):
            self.runner.forget(sequence.rows)
            self.scheduler.remove(sequence, keep=False)
            problem = "the model's logits are not finite numbers: load it in float32 or bfloat16, and check its weights"
            return [Failed(sequence.request.id, problem)]
        events = sequence.accept(drawn)
        self.scheduler.remove_finished(sequence)
        return events
