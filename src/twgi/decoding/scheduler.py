"""Who runs in a step, and which ids each row reads. No torch here.

Sequences enter in the order they came, each whole: one starts only when pages are free for the most rows it may ever
have at once, each as long as it may ever be. So nothing that began waits for room. (A row whose pages are closed gets
others in the next step and reads anew what it does not find: what was taken from a sequence may be given back later.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

from twgi.decoding.events import Event
from twgi.decoding.guidance import Branch
from twgi.decoding.pages import PAGE, Copy, Pages, Row
from twgi.decoding.request import Request
from twgi.decoding.sequence import Sequence
from twgi.errors import ConfigError

PIECE = 512  # ids that one row reads in a step, so that a long prompt does not hold up the others for long


def longest_rows(request: Request) -> list[int]:
    """The lengths its rows may come to, of the full row and of those beside it at the worst time."""
    full = len(request.prompt) + request.grammar.budget
    kinds = request.guidance.values() if request.grammar.max_images else ()
    beside = [[_longest(branch, request) for branch in g.weights if branch is not Branch.FULL] for g in kinds]
    beside.append([full] if request.unread else [])
    return [full, *max(beside, key=sum)]


def _longest(branch: Branch, request: Request) -> int:
    full, vocab = len(request.prompt) + request.grammar.budget, request.grammar.vocab
    own = {Branch.NEGATIVE: len(request.conditions.negative), Branch.PROMPT: len(request.conditions.prompt)}
    if branch is not Branch.IMAGE:
        return own.get(branch, 0) + 1 + vocab.tokens_per_image
    bos = request.conditions.bos
    if request.grammar.any_text or (bos is not None and vocab.is_text(bos)):  # text may hold what the branch keeps
        return full
    shown = sum(vocab.is_image(token) or token in (vocab.boi, vocab.eoi, vocab.bos, bos) for token in request.prompt)
    return min(full, shown + request.grammar.max_images * vocab.image_length)


def most_pages(request: Request, size: int = PAGE) -> int:
    """Pages of this size that a request may need at most."""
    return sum(-(-length // size) for length in longest_rows(request))


def most_positions(request: Request) -> int:
    """Positions of the cache that a request may need at most, in whole pages: what is set aside for it."""
    return most_pages(request) * PAGE


def best_window(rows: int) -> int:
    """How many tokens of each picture to draw at once while so many rows run."""
    return 6 if rows <= 20 else 4


@dataclass(slots=True)
class Batch:
    """What one step does: copies in the cache, then one pass over the next ids of rows, so many of each.

    `ready` are the sequences that are drawn from, `last` the pieces that their rows end with, in the order of their
    mixes. `early` are pieces of the others.
    """

    copies: list[Copy] = field(default_factory=list)
    ready: list[Sequence] = field(default_factory=list)
    last: list[tuple[Row, int]] = field(default_factory=list)
    early: list[tuple[Row, int]] = field(default_factory=list)
    drawn_after: list[int] = field(default_factory=list)  # of each of the last pieces, how many states are wanted

    @property
    def pieces(self) -> list[tuple[Row, int]]:
        return self.last + self.early

    def reads(self, ids: Ordered[int], begin: int, end: int) -> bool:
        """Whether some row reads what is from `begin` to `end` of these ids, after the same beginning."""
        return any(
            row.read <= begin < end <= row.read + count and row.ids[begin] == ids[begin] and row.ids[:end] == ids[:end]
            for row, count in self.pieces
        )


class Scheduler:
    """The requests of an engine: those that wait, and those that run.

    `window` tokens are drawn of a sequence in one step, if all but the last were guessed; None: as many as pay.
    """

    def __init__(self, pages: Pages, window: int | None = 1) -> None:
        self.pages, self.window = pages, window
        self.waiting: deque[Sequence] = deque()
        self.live: list[Sequence] = []
        self._reserved = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to run; sequences that ask for a kind rest."""
        return any(not sequence.asking for sequence in self.live) or self._next_fits()

    def add(self, request: Request) -> None:
        """Take a request in; ConfigError where it could never start."""
        pages = most_pages(request, self.pages.size)
        if pages > self.pages.count:
            needs, room = pages * self.pages.size, self.pages.count * self.pages.size
            raise ConfigError(f"one thought needs {needs} positions of the cache, and there are {room}")
        self.waiting.append(Sequence(request, pages))

    def find(self, id: int) -> Sequence | None:
        """The sequence of a request that waits or runs."""
        return next((one for one in (*self.live, *self.waiting) if one.request.id == id), None)

    def remove(self, sequence: Sequence, *, keep: bool = True) -> None:
        """The sequence is over; unless kept, what it has read is forgotten."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            return
        self.live.remove(sequence)
        self._reserved -= sequence.most_pages
        for row in sequence.rows:
            self.pages.close(row, keep=keep)

    def remove_finished(self, sequence: Sequence) -> None:
        """Remove the sequence if it has its last token."""
        if sequence.state.finish is not None:
            self.remove(sequence)

    def admit(self) -> Iterator[Event]:
        """Start what there is room for; the events of its first tokens."""
        while self._next_fits():
            sequence = self.waiting.popleft()
            self._reserved += sequence.most_pages
            self.live.append(sequence)
            yield from sequence.begin()
            self.remove_finished(sequence)

    def _next_fits(self) -> bool:
        return bool(self.waiting) and self._reserved + self.waiting[0].most_pages <= self.pages.count

    def schedule(self) -> Batch:
        """The next step of all that run."""
        batch, live = Batch(), [sequence for sequence in self.live if not sequence.asking]
        window = self.window or best_window(sum(len(sequence.mix) for sequence in live))
        for sequence in live:
            self._plan(sequence, batch, window)
        return batch

    def _plan(self, sequence: Sequence, batch: Batch, window: int) -> None:
        """Each row holds back its last id until all of its sequence can finish: they are drawn from together."""
        rows = [row for row, _ in sequence.mix]
        if not all(row.pages for row in rows):
            self._open(sequence, batch)
        left = [(row, len(row.ids) - row.read) for row in rows if row.pages]
        if len(left) == len(rows) and all(count <= PIECE for _, count in left):
            drafts = len(sequence.propose(window - 1))
            batch.ready.append(sequence)
            batch.last += [(row, count + drafts) for row, count in left]
            batch.drawn_after += [drafts + 1] * len(left)
        else:
            batch.early += [(row, min(PIECE, count - 1)) for row, count in left if count > 1]

    def _open(self, sequence: Sequence, batch: Batch) -> None:
        """Give pages to new rows, but not to one whose next page another is just reading: it will find that read.
        What has most in common with the rows before it comes first, as it may go on in their place."""
        for row in sequence.dropped:
            self.pages.close(row)
        sequence.dropped.clear()
        new = [row for row, _ in sequence.mix if not row.pages]
        for row in sorted(new, key=lambda row: -self.pages.match(row.ids)[1]):
            found = self.pages.match(row.ids)[1]
            if batch.reads(row.ids, found, min(found + self.pages.size, len(row.ids) - 1)):
                continue
            copy = self.pages.open(row)
            if copy is not None:
                batch.copies.append(copy)
