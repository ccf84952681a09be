"""Files on disk: read strictly, written whole or appended with a sync, locked for one process.

Reading raises `DataError`, writing raises `RunError`; both say in one line which file, where in it, and what is wrong.
No other module syncs, locks, or repairs a file, or decides what JSON is.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Self

from twgi.errors import DataError, RunError, TwgiError
from twgi.strict import Object, checked, decoded, parse_json, parse_object, short

__all__ = ["Object", "checked", "parse_json", "parse_object", "short"]

TEMPORARY, LOCK = ".tmp-", ".lock"
MAX_FILE, MAX_LINE = 64 * 2**20, 16 * 2**20
"""Bytes of a file that is read as one, and of one line."""
BLANK = b" \t\r\n\xef\xbb\xbf"  # a byte order mark too


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with one line; `where` is `file:line`."""

    where: str
    reason: str

    def to_json(self) -> Object:
        return {"where": self.where, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class Line:
    """The JSON object of one line; `where` is `file:line`, `folder` that of the file."""

    where: str
    folder: Path
    value: Object


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """An `OSError`, a name that no file can have, or what is not UTF-8 becomes `DataError`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from None


def inside(folder: Path, name: str, error: type[TwgiError] = DataError) -> Path:
    """The path of a name below a folder. Raises `error` where `..`, an absolute path or a link leads out of it."""
    path = folder / name
    if "\0" in name or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise error(f"{short(str(path))} leads out of {folder}: no link and no path may")
    return path


def open_regular(path: str | Path) -> BufferedReader:
    """A file opened for reading; `OSError` for a pipe or a device, which would wait for ever or never end."""
    return open(path, "rb", opener=_open_regular)


def _open_own(path: str, flags: int) -> int:
    """For writing into a file that is there already: never through a link, which may lead anywhere."""
    try:
        return _open_regular(path, flags | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        raise (OSError(error.errno, "a link, which is not followed") if error.errno == errno.ELOOP else error) from None


def _open_regular(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)  # else a pipe waits here for its writer
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise OSError(errno.EINVAL, f"{what}, not a regular file")
    return handle


def read_bytes(path: Path, *, most: int = MAX_FILE) -> bytes:
    """The whole of a file, which may be so long."""
    with reading(path), open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DataError(f"{path}: larger than {most // 2**10} KiB")
    return content


def read_text(path: Path, *, most: int = MAX_FILE) -> str:
    """The whole of a UTF-8 file, without a byte order mark."""
    content = read_bytes(path, most=most)
    try:
        return decoded(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_json(path: Path, *, most: int = MAX_FILE // 2) -> Any:
    """The JSON value of a whole file."""
    text = read_text(path, most=most)
    try:
        return parse_json(text)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_lines(path: Path) -> Iterator[Line | Fault]:
    """Every line that is not blank, in order, one in memory at a time; a bad line is a `Fault`."""
    with reading(path), open_regular(path) as file:
        for number, content in enumerate(raw_lines(file), 1):
            if not content.strip(BLANK):
                continue
            if number == 1 and content.startswith((b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{")):
                raise DataError(f"{path}: UTF-16, not UTF-8: save it as UTF-8")
            try:
                if len(content) > MAX_LINE:
                    raise DataError(f"a line of more than {MAX_LINE // 2**20} MiB")
                value = parse_object(content.rstrip(b"\r\n"))
            except DataError as error:
                yield Fault(where=f"{path}:{number}", reason=str(error))
            else:
                yield Line(where=f"{path}:{number}", folder=path.parent, value=value)


def raw_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; of one that is longer than `MAX_LINE`, only the beginning, one byte too long."""
    while line := file.readline(MAX_LINE + 1):
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE + 1)
        yield line


def read_objects(path: Path) -> Iterator[Line]:
    """The same where no line may be bad: the first fault raises `DataError`."""
    for line in read_lines(path):
        if isinstance(line, Fault):
            raise DataError(f"{line.where}: {line.reason}")
        yield line


def count_lines(path: Path) -> int:
    """How many lines `read_lines` gives."""
    with reading(path), open_regular(path) as file:
        return sum(1 for line in raw_lines(file) if line.strip(BLANK))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An `OSError`, or a name that no file can have, becomes `RunError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise RunError(f"cannot write to {path}: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    """In words; a `ValueError` that is not about a NUL in the name is none of ours, and goes on."""
    if isinstance(error, ValueError) and "null" not in str(error):
        raise error
    return str(getattr(error, "strerror", None) or error)


def escaped(text: str) -> str:
    """A text that UTF-8 can hold: half a surrogate pair becomes its escape, as in JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


def to_line(value: Any) -> bytes:
    """One line of JSON, with its end."""
    return escaped(json.dumps(value, ensure_ascii=False, allow_nan=False)).encode() + b"\n"


def write_whole(path: Path, content: bytes, *, sync_folder: bool = True) -> None:
    """A reader, or a crash, sees the old file or the new one, never a part. Folders above it are made."""
    with writing_whole(path, sync_folder=sync_folder) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """A JSON value for people to read: indented, whole or not at all."""
    write_whole(path, escaped(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)).encode() + b"\n")


@dataclass
class LineWriter:
    """Adds JSON lines to an open file."""

    file: IO[bytes]

    def write(self, value: Mapping[str, Any]) -> None:
        self.file.write(to_line(value))


@contextmanager
def writing_lines(path: Path) -> Iterator[LineWriter]:
    """A file of lines that appears under its name when all are written, and not where something is raised."""
    with writing_whole(path) as file:
        yield LineWriter(file)


@contextmanager
def writing_whole(path: Path, *, sync_folder: bool = True) -> Iterator[IO[bytes]]:
    """A file that appears under its name when the block is left, and not where something is raised."""
    with replacing(path, sync_folder=sync_folder) as temporary, temporary.open("xb") as file:
        yield file


@contextmanager
def replacing(path: Path, *, sync_folder: bool = True) -> Iterator[Path]:
    """A name, of nothing, for a file that is to be put in place of another when the block is left."""
    temporary = path.with_name(TEMPORARY + path.name)
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)  # of a killed process, or a link to elsewhere
            yield temporary
            _sync(temporary, os.O_RDWR)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError, ValueError):
                temporary.unlink()
            raise
        if sync_folder:
            sync(path.parent)


def sync(folder: Path) -> None:
    """Make renames in a folder outlive a power cut, where the system can (Windows opens no folders)."""
    if os.name != "nt":
        with writing(folder):
            _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, value: Mapping[str, Any]) -> tuple[int, int]:
    """One more line of JSON, on disk when this returns; where it starts, and its length in bytes.

    One that is not written whole, whatever the reason, is cut off again.
    """
    line = to_line(value)
    with writing(path), open(path, "ab", buffering=0, opener=_open_own) as file:  # no buffer that is written later
        size, rest = file.tell(), memoryview(line)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(size)
            raise
    return size, len(line)


def mend(path: Path) -> Path:
    """Cut off a torn last line, as a killed process leaves it, from a file that need not be there."""
    if path.exists():
        with writing(path), open(path, "rb+", opener=_open_own) as file:
            whole, end = 0, file.seek(0, os.SEEK_END)
            while end and not whole:  # backwards from the end, as a line may be of any length
                start = file.seek(max(0, end - 2**16))
                last = file.read(end - start).rfind(b"\n")
                whole, end = (start + last + 1 if last >= 0 else 0), start
            file.truncate(whole)
    return path


class FolderLock:
    """Holds a folder for this process alone until it is closed, or the process ends, however it ends.

    `name` is that of the lock file; what is held by itself within a folder has another one, which ends in `.lock` too.
    Raises `RunError`: another process holds it, or it cannot be written.
    """

    def __init__(self, folder: Path, *, name: str = LOCK, otherwise: str = "wait for it, or give another --out"):
        from filelock import FileLock, Timeout

        path = folder / name
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            os.close(_open_own(str(path), os.O_RDWR | os.O_CREAT))
            self._lock = FileLock(path, is_singleton=False)
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                with suppress(OSError):
                    owner = path.read_text("ascii").strip()
                raise RunError(f"{folder} is in use by process {owner or 'unknown'}: {otherwise}") from None
            with open(path, "w", opener=_open_own) as file:
                file.write(f"{os.getpid()}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the next process in."""
        self._lock.release()


def entries(folder: Path, *, option: str = "--out") -> set[str]:
    """The names in a folder, without locks and leftovers of killed processes; empty where there is no folder.

    Raises `RunError`: it cannot be read, or is none.
    """
    try:
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise RunError(f"cannot use {str(folder)!r} as a folder: {_reason(error)}; give another {option}") from None
    return {name for name in names if not name.endswith(LOCK) and not name.startswith(TEMPORARY)}


def check_new(folder: Path, *, option: str = "--out") -> None:
    """Refuse a folder that holds something. Raises `RunError`."""
    if entries(folder, option=option):
        raise RunError(f"{folder} is there already and not empty: give a new or empty folder as {option}")


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        leftover.unlink()
