"""One request on its way: its tokens, where its grammar is, and the rows it is drawn from. No torch here.

A sequence has one full row for as long as it lives, and while it draws, the rows of its guidance. Those stay after the
picture, because the rows of the next one often begin like them.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from hashlib import blake2b

from twgi.decoding import drafts
from twgi.decoding.events import Event, Finished, ImageAsked, ImageOpened, Token
from twgi.decoding.grammar import Choice, State
from twgi.decoding.guidance import Ids, branch_ids, merge_equal
from twgi.decoding.pages import Row
from twgi.decoding.request import Request

Drawn = tuple[int | None, float | None]
"""A token (None where the logits were not numbers), and log p of it where that was asked for."""


class Noise:
    """The noise of one sequence: where its stream starts at each position."""

    def __init__(self, *, seed: int, prompt: Ids, sample: int = 0) -> None:
        text = f"{seed} {sample} {' '.join(map(str, prompt))}"
        self._key = blake2b(text.encode(), digest_size=32).digest()

    def start(self, position: int) -> int:
        """A signed 64-bit number, as good as random, for one position."""
        digest = blake2b(position.to_bytes(8, "little"), digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "little", signed=True)


class Sequence:
    """The state of one request.

    Attributes:
        most_pages: what is set aside for it.
        mix: the rows that the next token is drawn from, with their weights.
        branches: rows beside the full one; in use or kept for the next picture.
        dropped: rows that are not needed any more, for the scheduler to close.
        asking: a picture is open whose kind is not known yet; the sequence rests.
    """

    def __init__(self, request: Request, most_pages: int) -> None:
        self.request, self.most_pages = request, most_pages
        self.noise = Noise(seed=request.seed, prompt=request.prompt, sample=request.sample)
        self.full = Row([*request.prompt, *request.given], most=len(request.prompt) + request.grammar.budget)
        self.state = State()
        self.mix: list[tuple[Row, float]] = []
        self.branches: list[Row] = []
        self.dropped: list[Row] = []
        self.asking = False
        self.position = 0  # of the next draw
        self._drafts: list[int] = []
        self._ahead: list[int] = []  # what was drawn after a wrong guess
        self._opened_at = 0  # length of the history that the open picture follows, boi included

    @property
    def rows(self) -> list[Row]:
        """All that may have pages."""
        return [self.full, *self.branches, *self.dropped]

    def begin(self) -> list[Event]:
        """Be where the given tokens lead, and go on with those that no draw is needed for; call once."""
        self.state = self.request.grammar.after(self.request.given)
        if self.state.missing is None:
            self._open_text()
            return self._forced()
        drawn = self.request.grammar.vocab.tokens_per_image - self.state.missing
        self._opened_at = len(self.full.ids) - drawn
        return self._ask_or_open() + self._forced()

    def propose(self, most: int) -> list[int]:
        """Guess at most so many of the next tokens, and put them at the ends of the rows that are drawn from."""
        self.position = len(self.full.ids)
        self._drafts = self.guess(most)
        for row, _ in self.mix:
            row.ids += self._drafts
            row.drafts = len(self._drafts)
        return self._drafts

    def choices(self) -> Iterator[Choice]:
        """The set that each draw is from: one for each draft, if it were right, and one after them."""
        grammar, state = self.request.grammar, self.state
        for token in self._drafts:
            yield grammar.choice(state)
            state = grammar.advance(state, token)
        yield grammar.choice(state)

    def guess(self, most: int) -> list[int]:
        """Tokens that are likely next: never the last that a picture misses, nor the last that there is room for."""
        grammar, missing = self.request.grammar, self.state.missing
        most = min(most, (grammar.budget - self.state.tokens if missing is None else missing) - 1)
        if most < 1:
            return []
        if missing is None:
            return drafts.of_text(self.full.ids, most, grammar.vocab)
        return drafts.of_picture(self.full.ids, self._opened_at, self._ahead, most, grammar.vocab)

    def agreed(self, drawn: Ordered[Drawn]) -> Ordered[Drawn]:
        """Of the tokens drawn at all drafts and after them those that hold: up to the first that is another."""
        wrong = (i for i, token in enumerate(self._drafts) if drawn[i][0] != token)
        return drawn[: next(wrong, len(self._drafts)) + 1]

    def accept(self, drawn: Ordered[Drawn]) -> list[Event]:
        """Go on with the drawn tokens that hold, and with all that are forced after them."""
        held, guessed = self.agreed(drawn), len(self._drafts)
        for row, _ in self.mix:
            del row.ids[len(row.ids) - guessed :]
            row.read, row.drafts = row.read - guessed + len(held) - 1, 0
        self._ahead = [token for token, _ in drawn[len(held) :] if token is not None]
        self._drafts = []
        if not self.state.in_image:
            self._ahead.clear()
        events: list[Event] = []
        for token, logprob in held:
            assert token is not None
            events += self._append(token, drawn=True, logprob=logprob)
        return events + self._forced()

    def answer(self, kind: str) -> list[Event]:
        """The open picture is of this kind."""
        self.asking = False
        return self._open_picture(kind) + self._forced()

    def _forced(self) -> list[Event]:
        events: list[Event] = []
        while self.state.finish is None and not self.asking:
            token = self.request.grammar.forced(self.state)
            if token is None:
                return events
            events += self._append(token, drawn=False)
        return events

    def _append(self, token: int, *, drawn: bool, logprob: float | None = None) -> list[Event]:
        events: list[Event] = [Token(self.request.id, token, len(self.full.ids), drawn, logprob)]
        was_in_image = self.state.in_image
        self.state = self.request.grammar.advance(self.state, token)
        self.full.ids.append(token)
        for row, _ in self.mix:
            if row is not self.full:
                row.ids.append(token)
        if self.state.finish is not None:
            return [*events, Finished(self.request.id, self.state.finish)]
        if self.state.in_image and not was_in_image:
            self._opened_at = len(self.full.ids)
            return events + self._ask_or_open()
        if was_in_image and not self.state.in_image:
            self._open_text()
        return events

    def _open_text(self) -> None:
        self.mix = [(self.full, 1.0)]
        unread = self.request.unread
        if unread and not unread.isdisjoint(self.full.ids):
            self._replace([Row([token for token in self.full.ids if token not in unread], self.full.most)])
            self.mix = [(self.branches[0], 1.0)]

    def _ask_or_open(self) -> list[Event]:
        if len(self.request.guidance) == 1:
            return self._open_picture(*self.request.guidance)
        self.asking, self.mix = True, []
        return [ImageAsked(self.request.id, self.state.images - 1)]

    def _open_picture(self, kind: str) -> list[Event]:
        weights = self.request.guidance[kind].weights
        vocab, conditions = self.request.grammar.vocab, self.request.conditions
        history, drawn = tuple(self.full.ids[: self._opened_at]), self.full.ids[self._opened_at :]
        different = merge_equal(
            (
                branch_ids(
                    branch, history, prompt=conditions.prompt, negative=conditions.negative, vocab=vocab,
                    bos=conditions.bos,
                ),
                weight,
            )
            for branch, weight in weights.items()
        )  # fmt: skip
        row_of = {
            ids: self.full if ids == history else Row([*ids, *drawn], len(ids) + vocab.tokens_per_image)
            for ids, _ in different
        }
        self.mix = [(row_of[ids], weight) for ids, weight in different]
        self._replace([row for row in row_of.values() if row is not self.full])
        told = {str(branch): weight for branch, weight in weights.items()}
        return [ImageOpened(self.request.id, self.state.images - 1, kind, told)]

    def _replace(self, branches: list[Row]) -> None:
        self.dropped += self.branches
        self.branches = branches
