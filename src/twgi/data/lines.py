"""Files of JSON lines: read one line at a time, each fault with its place; written whole or not at all."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from twgi.errors import DataError, RunError

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with one line; `where` is `file:line`."""

    where: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"where": self.where, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class Line:
    """The JSON object of one line; `where` is `file:line`, `folder` that of the file."""

    where: str
    folder: Path
    value: Object


def read_lines(path: Path) -> Iterator[Line | Fault]:
    """Every line of a file that is not blank, in order, one in memory at a time.

    Raises `DataError` where the file cannot be read; a bad line is a `Fault`.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if content.strip():
                    yield _entry(content, f"{path}:{number}", path.parent)
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def count_lines(path: Path) -> int:
    """How many lines `read_lines` gives."""
    try:
        with path.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _entry(content: bytes, where: str, folder: Path) -> Line | Fault:
    try:
        return Line(where=where, folder=folder, value=parse_object(content))
    except DataError as error:
        return Fault(where=where, reason=str(error))


def parse_object(content: bytes) -> Object:
    """The JSON object of a line; raises `DataError` for anything else, also for a key that stands twice."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_double)
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"broken JSON at column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise DataError(f"broken JSON: {error}") from None
    except RecursionError:
        raise DataError("broken JSON: nested too deep") from None
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, got {type(value).__name__}")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_double(pairs: Iterable[tuple[str, Any]]) -> Object:
    kept: Object = {}
    for key, value in pairs:
        if key in kept:
            raise ValueError(f"the key {key!r} stands twice")
        kept[key] = value
    return kept


class LineWriter:
    """Adds JSON lines to an open file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.lines = file, 0

    def write(self, value: Mapping[str, Any]) -> None:
        """One more line."""
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        self._file.write(text.encode("utf-8", "backslashreplace") + b"\n")  # half a surrogate pair: as JSON writes it
        self.lines += 1


@contextmanager
def writing(path: Path) -> Iterator[LineWriter]:
    """A file of lines that appears under its name when all are written; not if something is raised, or there is none.

    Raises `RunError` where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            writer = LineWriter(file)
            yield writer
            file.flush()
            os.fsync(file.fileno())
        if writer.lines:
            temporary.replace(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{path}: cannot be written ({reason}); give another --out") from error
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
