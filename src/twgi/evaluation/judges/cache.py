"""Answers on disk, one a line, so that no question is asked twice, not even after a crash.

A line is written and flushed as soon as an answer is there, and synced to disk once a second. A torn last line is
taken away when the book is opened. The lines are those that the `replay` judge reads: an answered benchmark can be
scored again anywhere.
"""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from twgi.errors import RunError
from twgi.evaluation.judges.answer import Answer, Judge, Query, key

SYNC_SECONDS = 1.0


class AnswerBook:
    """The kept answers of one file, held for this process alone until it is closed.

    Args:
        path: the file; made when it is not there.
        others: files to read as well (those of other shards).

    Raises:
        RunError: it cannot be written, or another process has it.
    """

    def __init__(self, path: Path, *, others: Iterable[Path] = ()) -> None:
        self.path, self._synced = path, time.monotonic()
        self._answers: dict[str, Answer] = {}
        for other in others:
            self._read(other.read_bytes())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115 - stays open as long as the run
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}; give another --out") from None
        self._hold()
        self._file.seek(0)
        self._file.truncate(self._read(self._file.read()))

    def __enter__(self) -> "AnswerBook":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._file:
            self._sync()

    def get(self, query: Query, judge: Judge) -> Answer | None:
        """The kept answer of this judge to this question about this picture."""
        return self._answers.get(key(query, judge))

    def add(self, query: Query, judge: Judge, answer: Answer) -> None:
        """Keep an answer; one with a problem is none and is not kept."""
        if answer.problem is not None:
            return
        name = key(query, judge)
        self._answers[name] = answer
        try:
            self._file.write(_line(name, query, judge, answer))
            self._file.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}; what was answered is kept there") from error

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _hold(self) -> None:
        import fcntl  # not on Windows

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise RunError(f"{self.path} is in use by another process: wait for it, or give another --out") from None

    def _read(self, content: bytes) -> int:
        """Take in every whole line; returns where the last of them ends."""
        end = content.rfind(b"\n") + 1
        for line in content[:end].splitlines():
            with suppress(ValueError, KeyError, TypeError):  # a line of another program is no answer
                row = json.loads(line)
                self._answers[row["key"]] = Answer(raw=row["raw"], parsed=row["parsed"], p_yes=row["p_yes"])
        return end


def _line(name: str, query: Query, judge: Judge, answer: Answer) -> bytes:
    row: dict[str, Any] = {
        "key": name,
        "item_id": query.item,
        "sample": query.sample,
        "image": query.image,
        "proposition_id": query.proposition,
        "picture": query.picture.sha256 if query.picture else None,
        "question": query.question,
        **answer.to_json(),
        "judge": {"name": judge.name, "version": judge.version},
    }
    return json.dumps(row, ensure_ascii=True).encode() + b"\n"
