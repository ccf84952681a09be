"""Pages of the key/value cache: which row has which, and what they hold. No torch here.

A page is room for `size` positions. A row gets the pages for all it may ever hold when it opens, one after the other
where such a run is free, so that attention reads it in place; else any pages, and then it shares the whole pages that
hold its beginning. Pages of a closed row keep what they hold until somebody needs the room, the longest unused first:
whatever begins with the same ids, in any request, finds them read.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from twgi.decoding.guidance import Ids

PAGE = 32
_BUSY = np.iinfo(np.int64).max


@dataclass(eq=False, slots=True)
class Row:
    """One row of the cache: ids, of which the first `read` are in its pages; it never holds more than `most`.

    The last `drafts` of its ids are guesses. `start` is its first position in the cache where its pages lie one after
    the other. `noted` positions of it can be found by other rows; `keys` names what comes before each of its pages.
    """

    ids: list[int]
    most: int
    read: int = 0
    drafts: int = 0
    pages: list[int] = field(default_factory=list)
    start: int | None = None
    noted: int = 0
    keys: list[bytes] = field(default_factory=lambda: [b""])


@dataclass(frozen=True, slots=True)
class Copy:
    """Positions of the cache whose keys and values go to the positions from `target` on, before the next pass."""

    sources: list[int]
    target: int


class Pages:
    """The pages of one cache, enough for `tokens` positions."""

    def __init__(self, tokens: int, size: int = PAGE) -> None:
        self.size, self.count = size, -(-tokens // size)
        self._refs = np.zeros(self.count, np.int64)  # rows that have the page
        self._used = np.zeros(self.count, np.int64)  # when it was of use, where it holds anything
        self._clock = 0
        self._held: dict[int, tuple[bytes, Ids]] = {}  # page -> key of what comes before it, its ids
        self._holders: dict[tuple[bytes, Ids], dict[int, None]] = {}  # key, first ids of a page -> pages

    def pages_for(self, positions: int) -> int:
        """How many pages a row of this length takes."""
        return -(-positions // self.size)

    @property
    def in_use(self) -> int:
        """Pages that rows have."""
        return int(np.count_nonzero(self._refs))

    def places(self, pages: Sequence[int], end: int, begin: int = 0) -> list[int]:
        """Where positions from `begin` to `end` of a row with these pages are in the cache."""
        return [pages[i // self.size] * self.size + i % self.size for i in range(begin, end)]

    def match(self, ids: Sequence[int]) -> tuple[list[int], int]:
        """Pages that hold the longest beginning of these ids, and its length. The last id is always read anew."""
        found: list[dict[int, None]] = []
        key, length, most = b"", 0, len(ids) - 1
        while length < most and length == len(found) * self.size:
            ahead = tuple(ids[length : min(length + self.size, most)])
            count = next((n for n in range(len(ahead), 0, -1) if (key, ahead[:n]) in self._holders), 0)
            if not count:
                break
            found.append(self._holders[key, ahead[:count]])
            length += count
            key = _key(key, ahead)
        pages: list[int] = []
        for holders in reversed(found):  # of the pages with the same content, those of one row
            page = pages[-1] - 1 if pages else -1
            pages.append(page if page in holders else next(reversed(holders)))
        return pages[::-1], length

    def open(self, row: Row) -> Copy | None:
        """Give a row its pages, with the beginning of it that is here; what must be copied for that.

        The caller has seen to it that there is room: all rows together never have more pages than there are.
        """
        held, length = self.match(row.ids)
        need = self.pages_for(row.most)
        self._clock += 1
        self._used[held] = self._clock
        self._refs[held] += 1
        free = self._oldest_run(need)
        self._refs[held] -= 1
        if held and self._goes_on(held, length, need, free):
            free = held[0]
        if free is None:
            self._scatter(row, held[: length // self.size], need)
            return None
        self._take(range(free, free + need))
        row.pages, row.start, row.read = list(range(free, free + need)), free * self.size, length
        self.note(row)
        return Copy(self.places(held, length), row.start) if held and held[0] != free else None

    def close(self, row: Row, *, keep: bool = True) -> None:
        """The row is not used any more. What it holds stays while there is room, unless it is not to be kept."""
        if keep:
            self.note(row)
        for page in row.pages:
            self._refs[page] -= 1
            if not keep and not self._refs[page]:
                self._forget(page)
            self._used[page] = self._clock if page in self._held else 0
        row.pages, row.start, row.read, row.noted, row.keys = [], None, 0, 0, [b""]

    def note(self, row: Row) -> None:
        """Let others find what the row has read, but no guesses."""
        end = min(row.read, len(row.ids) - row.drafts)
        while row.noted < end:
            number, known = divmod(row.noted, self.size)
            page, key, begin = row.pages[number], row.keys[number], number * self.size
            ids = tuple(row.ids[begin : min(begin + self.size, end)])
            for count in range(known + 1, len(ids) + 1):
                self._holders.setdefault((key, ids[:count]), {})[page] = None
            self._held[page] = (key, ids)
            row.noted = begin + len(ids)
            if len(ids) == self.size:
                row.keys.append(_key(key, ids))

    def _oldest_run(self, need: int) -> int | None:
        """The first of so many pages in a row that nobody has, and whose contents have been of no use for longest."""
        if need > self.count:
            return None
        newest = _largest_of(np.where(self._refs > 0, _BUSY, self._used), need)
        best = int(newest.argmin())
        return None if newest[best] == _BUSY else best

    def _goes_on(self, held: list[int], length: int, need: int, other: int | None) -> bool:
        """Whether a row may go on where its beginning is: nobody has the place, and what is lost by it is no newer
        than what would be lost in the other place."""
        first, end = held[0], held[0] + need
        if held != list(range(first, first + len(held))) or end > self.count or self._refs[first:end].any():
            return False
        shortens = len(self._held[held[-1]][1]) > length - (len(held) - 1) * self.size
        lost = self._clock if shortens else self._used[first + len(held) : end].max(initial=0)
        return other is None or bool(lost <= self._used[other : other + need].max())

    def _scatter(self, row: Row, shared: list[int], need: int) -> None:
        self._refs[shared] += 1
        free = np.flatnonzero(self._refs == 0)
        own = free[np.argsort(self._used[free], kind="stable")][: need - len(shared)].tolist()
        assert len(shared) + len(own) == need, "no room for a row"
        self._take(own)
        row.pages, row.read = [*shared, *own], len(shared) * self.size
        self.note(row)

    def _take(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._forget(page)
            self._refs[page] = 1

    def _forget(self, page: int) -> None:
        key, ids = self._held.pop(page, (b"", ()))
        for count in range(1, len(ids) + 1):
            holders = self._holders[key, ids[:count]]
            del holders[page]
            if not holders:
                del self._holders[key, ids[:count]]


def _key(before: bytes, ids: Ids) -> bytes:
    """The name of a beginning: of all ids up to the end of a page."""
    return blake2b(before + array("q", ids).tobytes(), digest_size=16).digest()


def _largest_of(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The largest of each `count` neighbours, in few passes."""
    width = 1
    while 2 * width <= count:
        values = np.maximum(values[:-width], values[width:])
        width *= 2
    rest = count - width
    return np.maximum(values[: len(values) - rest], values[rest:])
