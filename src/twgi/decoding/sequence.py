"""One prompt on its way: its ids, where its grammar is, and the cache rows it reads (but not the cache itself).

A sequence has one full row for as long as it lives, and while it draws, the rows of its guidance. Those stay after the
picture, because the rows of the next one often begin like them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from twgi.decoding.grammar import FinishReason, Grammar, State
from twgi.decoding.guidance import Ids
from twgi.decoding.logits import Noise
from twgi.decoding.params import Filter

Guide = Callable[[int, Ids], tuple[tuple[Ids, float], ...]]
"""(number of the picture from 0, everything so far, ending in boi) -> different rows and their weights."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the engine is asked for: ids in, ids out.

    Args:
        id: names the events of this request.
        prompt: at least one id; what is drawn depends on it through the noise, too.
        guide: the rows of each picture.
        most_rows: rows it never exceeds, the full row among them.
        reread: what text is written after, given everything so far; that itself where it is None.
    """

    id: int
    prompt: Ids
    grammar: Grammar
    text: Filter
    image: Filter
    noise: Noise
    guide: Guide
    most_rows: int
    reread: Callable[[Ids], Ids] | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token that request `id` now has at `position` (counted from the start of its prompt)."""

    id: int
    token: int
    position: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Request `id` has its last token."""

    id: int
    reason: FinishReason


Event = Token | Finished


@dataclass(eq=False, slots=True)
class Row:
    """One row of the cache: the first `read` of its ids are in slot `slot`.

    The first `shared` ids are read on their own before any other, so that another row which begins with the same ids
    can start from a copy of them, and is then no different from one that read them itself.
    """

    ids: list[int]
    shared: int
    read: int = 0
    slot: int | None = None

    @property
    def beginning(self) -> Ids:
        """The shared ids; they never change."""
        return tuple(self.ids[: self.shared])

    def common(self, ids: Ids) -> int:
        """How many ids of the cache a row of these ids could keep; the last one is always read anew."""
        most = min(self.read, len(ids) - 1)
        count = bisect_left(range(most), True, key=lambda n: self.ids[: n + 1] != list(ids[: n + 1]))
        return count if count >= self.shared else 0

    def become(self, ids: Ids, keep: int) -> None:
        """Turn into a row of these ids, of which the first `keep` stay read."""
        self.ids, self.read = list(ids), keep


@dataclass(eq=False)
class Sequence:
    """The state of one request in the engine."""

    request: Request
    state: State = field(default_factory=State)
    rows: list[Row] = field(default_factory=list)
    mix: list[tuple[Row, float]] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        prompt = self.request.prompt
        self.rows.append(Row(ids=list(prompt), shared=len(prompt) - 1))
        self.mix = [(self.full, 1.0)]

    @property
    def full(self) -> Row:
        return self.rows[0]

    def begin(self) -> list[Event]:
        """Take the tokens that no draw is needed for; call once."""
        forced = self.request.grammar.forced(self.state)
        if forced is None:
            self._open_text()
        return [] if forced is None else self.take(forced)

    def take(self, token: int | None) -> list[Event]:
        """Go on with this token, and with all that are forced after it."""
        events: list[Event] = []
        while token is not None:
            events.append(Token(self.request.id, token, len(self.full.ids)))
            self._append(token)
            if self.state.finish is not None:
                events.append(Finished(self.request.id, self.state.finish))
                return events
            token = self.request.grammar.forced(self.state)
        return events

    def _append(self, token: int) -> None:
        was_in_image = self.state.in_image
        self.state = self.request.grammar.advance(self.state, token)
        self.full.ids.append(token)
        for row, _ in self.mix:
            if row is not self.full:
                row.ids.append(token)
        if self.state.in_image and not was_in_image:
            self._open_picture()
        elif was_in_image and not self.state.in_image:
            self._open_text()

    def _open_text(self) -> None:
        history = tuple(self.full.ids)
        ids = history if self.request.reread is None else self.request.reread(history)
        row = self.full if ids == history else self._branch_rows([ids])[ids]
        self.mix = [(row, 1.0)]

    def _open_picture(self) -> None:
        history = tuple(self.full.ids)
        targets = self.request.guide(self.state.images - 1, history)
        branches = [ids for ids, _ in targets if ids != history]
        row_of = {history: self.full, **self._branch_rows(branches)}
        self.mix = [(row_of[ids], weight) for ids, weight in targets]

    def _branch_rows(self, branches: list[Ids]) -> dict[Ids, Row]:
        """A row for each, made from the row of earlier pictures that has most in common with it."""
        free, chosen = self.rows[1:], {}
        pairs = [(row.common(ids), -i, ids, row) for row in free for i, ids in enumerate(branches)]
        for keep, _, ids, row in sorted(pairs, key=lambda pair: pair[:2], reverse=True):
            if keep and ids not in chosen and row in free:
                row.become(ids, keep)
                free.remove(row)
                chosen[ids] = row
        for ids in branches:
            chosen.setdefault(ids, Row(ids=list(ids), shared=len(ids) - 1))
        self._keep(free, chosen)
        return chosen

    def _keep(self, free: list[Row], chosen: dict[Ids, Row]) -> None:
        """Rows not needed now stay while there is room for them; the longest unused go first."""
        excess = 1 + len(free) + len(chosen) - self.request.most_rows
        assert excess <= len(free), "a picture needs more rows than its request says"
        self.dropped += free[: max(0, excess)]
        self.rows[1:] = [*free[max(0, excess) :], *chosen.values()]
