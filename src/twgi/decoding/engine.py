"""The engine: batched decoding of token ids. It knows no text, no pixels, no files.

A step is one forward pass over all rows of all sequences, whatever they are at: reading prompts, writing, drawing.
Sequences enter and leave at any step, each whole: one starts only when the most rows it may ever need are free, so
nothing waits for a part of another. What a sequence says is the same alone and in any company.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch

from twgi.decoding.grammar import Choice, FinishReason, allowed_ids
from twgi.decoding.logits import draw, mixed
from twgi.decoding.params import Filter
from twgi.decoding.rows import RowPool
from twgi.decoding.sequence import Event, Finished, Request, Row, Sequence
from twgi.errors import ConfigError, PromptError
from twgi.model.transformer import Transformer
from twgi.vocab import Vocab

PIECE = 512  # ids that one row reads in a step, so that a long prompt does not hold up the others for long


class Engine:
    """Decodes many requests at once.

    Args:
        model: in eval mode, on the device and in the dtype it should run.
        vocab: the meaning of its ids.
        rows: cache rows, each with room for the whole context: the bound on memory.
        serial: rows in turn and their cache in host memory, where the device has too little.
    """

    def __init__(self, model: Transformer, vocab: Vocab, *, rows: int, serial: bool = False) -> None:
        self.model, self.vocab, self.rows = model, vocab, RowPool(model, rows, serial=serial)
        self._waiting: deque[Sequence] = deque()
        self._live: list[Sequence] = []
        self._cancelled: list[Event] = []
        device = next(model.parameters()).device
        self._ids = {choice: torch.tensor(allowed_ids(vocab, choice), device=device) for choice in Choice}

    @property
    def busy(self) -> bool:
        """Whether another step would do anything."""
        return bool(self._waiting or self._live or self._cancelled)

    def submit(self, request: Request) -> None:
        """Take a request in; its events come out of later steps.

        Raises:
            PromptError: the prompt and its budget are longer than the context.
            ConfigError: it needs more rows than the engine has.
        """
        context, length = self.model.config.max_positions, len(request.prompt)
        if length + request.grammar.budget > context:
            raise PromptError(
                f"{length} prompt tokens and {request.grammar.budget} more exceed the context of {context}"
            )
        if request.most_rows > self.rows.size:
            raise ConfigError(f"one thought needs {request.most_rows} cache rows, and there are {self.rows.size}")
        self._waiting.append(Sequence(request))

    def cancel(self, id: int) -> None:
        """End a request; its `Finished` event comes with the next step. Unknown and finished ones are left alone."""
        for sequence in [s for s in (*self._live, *self._waiting) if s.request.id == id]:
            self._leave(sequence)
            self._cancelled.append(Finished(id, FinishReason.CANCELLED))

    def run(self) -> Iterator[Event]:
        """Steps until nothing is left to do."""
        while self.busy:
            yield from self.step()

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One forward pass over everything, and one token for each sequence that is ready."""
        events, self._cancelled = self._cancelled, []
        events += self._admit()
        plan = [(sequence, self._pieces(sequence)) for sequence in self._live]
        pieces = [piece for _, own in plan for piece in own]
        if not pieces:
            return events
        hidden_RD = self.rows.read(pieces)
        place = {row: i for i, (row, _) in enumerate(pieces)}
        ready = [sequence for sequence, _ in plan if all(len(row.ids) == row.read for row, _ in sequence.mix)]
        for sequence, token in self._draw(hidden_RD, place, ready):
            events += self._take(sequence, token)
        return events

    def _admit(self) -> list[Event]:
        events: list[Event] = []
        reserved = sum(sequence.request.most_rows for sequence in self._live)
        while self._waiting and reserved + self._waiting[0].request.most_rows <= self.rows.size:
            sequence = self._waiting.popleft()
            reserved += sequence.request.most_rows
            self._live.append(sequence)
            events += sequence.begin()
        return events

    def _pieces(self, sequence: Sequence) -> list[tuple[Row, int]]:
        """What the rows of a sequence read in this step. None finishes before all can: they are drawn from together."""
        rows = [row for row, _ in sequence.mix]
        placed = [row for row in rows if self.rows.place(row)]
        left = {row: len(row.ids) - row.read for row in placed}
        final = {row for row in placed if row.read >= row.shared and left[row] <= PIECE}
        if len(final) == len(rows):
            return list(left.items())
        return [(row, _early(row)) for row in placed if row not in final]

    def _draw(
        self, hidden_RD: torch.Tensor, place: dict[Row, int], ready: list[Sequence]
    ) -> Iterator[tuple[Sequence, int]]:
        if not ready:
            return
        groups: dict[tuple[Choice, Filter], list[Sequence]] = {}
        for sequence in ready:
            choice = sequence.request.grammar.choice(sequence.state)
            by = sequence.request.image if choice is Choice.IMAGE else sequence.request.text
            groups.setdefault((choice, by), []).append(sequence)
        logits_RV = self.model.logits(hidden_RD)
        for (choice, by), members in groups.items():
            weighted = [[(place[row], weight) for row, weight in sequence.mix] for sequence in members]
            logits_RA = mixed(logits_RV, weighted, self._ids[choice])
            starts = [sequence.request.noise.start(len(sequence.full.ids)) for sequence in members]
            yield from zip(members, draw(logits_RA, self._ids[choice], by, starts), strict=True)

    def _take(self, sequence: Sequence, token: int) -> list[Event]:
        events = sequence.take(token)
        for row in sequence.dropped:
            self.rows.release(row)
        sequence.dropped.clear()
        if sequence.state.finish is not None:
            self._leave(sequence)
        return events

    def _leave(self, sequence: Sequence) -> None:
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            return
        self._live.remove(sequence)
        for row in sequence.rows:
            self.rows.release(row)


def _early(row: Row) -> int:
    """Ids that a row reads while others of its sequence are not ready: shared ones first, and never the last."""
    end = row.shared if row.read < row.shared else len(row.ids) - 1
    return min(PIECE, end - row.read)
