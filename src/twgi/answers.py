"""A book of recorded answers: what was asked of a judge, a detector or a teacher is not asked again.

A book is a file of JSON lines, one for each answer, each on disk when `AnswerBook.add` returns. Only where each answer
stands in its file is held in memory.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twgi.errors import DataError
from twgi.files import LOCK, FolderLock, Object, append_line, mend, open_regular, parse_object, raw_lines, reading

KeyOf = Callable[[Mapping[str, Any]], str | None]


def stored_key(entry: Mapping[str, Any]) -> str | None:
    """The `key` of a line; none where it has a `problem`, so that what had no answer is asked again."""
    key = entry.get("key")
    return key if isinstance(key, str) and "problem" not in entry else None


class AnswerBook(FolderLock):
    """The answers in a file, held for this process alone until it is closed. Threads may share it.

    Raises `RunError` where another process holds the book or it cannot be written, `DataError` where one of the others
    cannot be read.

    Args:
        path: the file; it and its folder are made when they are not there. A torn last line is cut off.
        others: books whose answers count too; they are only read. What `path` says goes before what they say.
        key_of: the hash of what the answer in a line was asked with; None for a line that answers nothing.
    """

    def __init__(self, path: Path, *, others: Iterable[Path] = (), key_of: KeyOf = stored_key) -> None:
        self.path, self._key_of, self._mutex = path, key_of, threading.Lock()
        self._places: dict[str, tuple[Path, int]] = {}
        for other in others:
            self._index(other)
        super().__init__(path.parent, name=f".{path.name}{LOCK}")
        if mend(path).exists():
            self._index(path)

    def _index(self, path: Path) -> None:
        for start, entry in _entries(path):
            if (key := self._key_of(entry)) is not None:
                self._places[key] = (path, start)

    def get(self, key: str) -> Object | None:
        """The line that answers what has this key."""
        if key not in self._places:
            return None
        path, start = self._places[key]
        with reading(path), path.open("rb") as file:
            file.seek(start)
            return parse_object(file.readline())

    def add(self, entry: Mapping[str, Any]) -> None:
        """One more line. Raises `RunError` where it cannot be written; then the book is as it was."""
        with self._mutex:
            start, _ = append_line(self.path, entry)
            if (key := self._key_of(entry)) is not None:
                self._places[key] = (self.path, start)

    def entries(self) -> Iterator[Object]:
        """Every line of this book, in order; not those of the others."""
        return (entry for _, entry in _entries(self.path)) if self.path.exists() else iter(())


def _entries(path: Path) -> Iterator[tuple[int, Object]]:
    """The lines of a file with the byte where each begins. What is no JSON object is no answer and passed over."""
    start = 0
    with reading(path), open_regular(path) as file:
        for line in raw_lines(file):
            with suppress(DataError):
                yield start, parse_object(line)
            start = file.tell()
