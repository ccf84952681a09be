"""The folder of a run: one process at a time, and whatever happens to that process, nothing is lost or doubled.

::

    run.json      what the run is: settings, model, prompts, versions
    traces.jsonl  one finished thought a line
    images/       the pictures of the thoughts
    errors.jsonl  what could not be done in the last run, and why
    index.html    the page

A thought enters in this order: its pictures (temporary file, fsync, rename, fsync of the folder), then its line
(append, fsync). So a line's pictures are always there, and a process that dies leaves at most temporary files and a
torn last line, which the next one clears away.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from twgi.errors import RunError
from twgi.trace import IMAGES, PAGE, RUN, TRACES, Trace, from_line, to_line

ERRORS, LOCK, TEMPORARY = "errors.jsonl", ".lock", ".tmp-"
IDENTITY = ("settings", "model", "prompts")  # what may not change between a run and its resumption
UNUSABLE = "unusable"  # stands in ``run.json`` for what may: nothing came of it


class RunFolder:
    """An open run folder, held for this process alone until it is closed.

    Args:
        path: the folder; made when it is not there.
        run: what the run is, written to ``run.json``. ``settings``, ``model`` and ``prompts`` are its identity.
        resume: continue the run that is there; without it the folder must be new or empty.

    Raises:
        RunError: it cannot be written, is in use, holds something else, or holds a run of another identity.
    """

    def __init__(self, path: Path, *, run: Mapping[str, Any], resume: bool = False) -> None:
        self.path = path
        check_folder(path, resume=resume)
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path)
        try:
            self._open(json.loads(json.dumps(run)), resume)
        except BaseException:
            self.close()
            raise

    def _open(self, run: dict[str, Any], resume: bool) -> None:
        stored = _read_run(self.path)
        if stored is not None and not resume:  # another process was faster
            check_folder(self.path, resume=False)
        with _writing(self.path):
            if stored is None:
                replace(self.path / RUN, json.dumps(run, indent=2, ensure_ascii=False).encode() + b"\n")
            else:
                _refuse_changes(self.path, stored, run)
            (self.path / IMAGES).mkdir(exist_ok=True)
            _clear(self.path)
            self._lines = _repair(self.path)
            (self.path / ERRORS).unlink(missing_ok=True)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the next process in."""
        self._lock.close()

    def traces(self) -> Iterator[Trace]:
        """The stored thoughts, without their pictures, in the order in which they were finished.

        Raises:
            TraceError: one is of another version.
        """
        return map(from_line, self._lines)

    def add(self, trace: Trace) -> None:
        """Store one thought whose pictures have file names (see `Trace.filed`): its pictures, then its line."""
        pictures, line = trace.files(), to_line(trace)
        with _writing(self.path):
            for name, content in pictures.items():
                replace(self.path / name, content, sync_folder=False)
            if pictures:
                _sync_folder(self.path / IMAGES)
            self._append(TRACES, line)
        self._lines.append(line)

    def put(self, name: str, content: bytes) -> Path:
        """Write one file, such as a picture of a thought that is not finished yet."""
        with _writing(self.path):
            replace(self.path / name, content)
        return self.path / name

    def fail(self, record: Mapping[str, Any]) -> None:
        """Note why something could not be done."""
        self.append(ERRORS, record)

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """One more line of JSON in a file, synced to disk."""
        with _writing(self.path):
            self._append(name, json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

    def mend(self, name: str) -> Path:
        """Take a torn last line away from a file of lines, which may be absent; returns its path."""
        path = self.path / name
        with _writing(self.path), open(path, "ab+") as file:
            file.seek(0)
            end = sum(len(line) for line in file if line.endswith(b"\n"))
            file.truncate(end)
        return path

    def write_page(self, page: str) -> Path:
        """Put ``index.html`` in place and return its path."""
        return self.put(PAGE, page.encode())

    def discard(self) -> None:
        """Take a run away that has no thought in it, so that all is as it was before."""
        assert not self._lines
        with suppress(OSError):
            for file in (*self.path.glob(f"{IMAGES}/*"), *(self.path / name for name in (RUN, TRACES, ERRORS, PAGE))):
                file.unlink(missing_ok=True)
            (self.path / IMAGES).rmdir()
            (self.path / LOCK).unlink()
            for folder in self._made:
                folder.rmdir()

    def _append(self, name: str, line: bytes) -> None:
        with open(self.path / name, "ab") as file:
            size = file.tell()
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path / name, size)  # a full disk leaves no torn line
                raise


def replace(path: Path, content: bytes, *, sync_folder: bool = True) -> None:
    """Put ``content`` at ``path`` so that a reader, or a crash, sees the old file or the new one, never a part."""
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if sync_folder:
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make renames in a folder outlive a power cut (where the system can: Windows opens no folders)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _writing:
    """Turn an ``OSError`` inside into the user's error, which says what became of the work."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise RunError(f"cannot write to {self.path}: {reason}; finished thoughts are kept there") from error


def check_folder(path: Path, *, resume: bool) -> None:
    """Whether a run may begin, or go on, in a folder; nothing is written yet.

    Raises:
        RunError: it holds a run and is not to be resumed, holds something else, or cannot be read.
    """
    try:
        names = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"cannot use {str(path)!r} as a run folder: {reason}; give another --out") from None
    if RUN in names and not resume:
        raise RunError(f"{path} holds a run already: continue it with --resume, or give another --out")
    if RUN not in names and any(name != LOCK and not name.startswith(TEMPORARY) for name in names):
        raise RunError(f"{path} is not empty and holds no run: give a new or empty folder as --out")


def fresh_folder(parent: Path, title: str) -> Path:
    """A path in `parent` where nothing is yet, named by the time and the title."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-")
    name = "-".join(part for part in (datetime.now().strftime("%Y%m%d-%H%M%S"), words) if part)
    candidates = (parent / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(path for path in candidates if not path.exists())


def _lock(path: Path) -> IO[str]:
    """Hold the folder. The lock belongs to the open file, so it ends with the process, however that ends."""
    import fcntl  # not on Windows

    with _writing(path):
        file = open(path / LOCK, "a+", encoding="ascii")  # noqa: SIM115 - stays open as long as the run
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise RunError(f"{path} is in use by process {owner}: wait for it, or give another --out") from None
    if os.fstat(file.fileno()).st_nlink == 0:  # the run before has just taken its folder away
        file.close()
        return _lock(path)
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _read_run(path: Path) -> dict[str, Any] | None:
    try:
        run = json.loads((path / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path / RUN} is damaged ({error}): give another --out") from None
    if not isinstance(run, dict):
        raise RunError(f"{path / RUN} does not describe a run: give another --out")
    return run


def _refuse_changes(path: Path, stored: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    changes = [text for key in IDENTITY for text in _differences(key, stored.get(key), run.get(key))]
    if changes:
        more = f" (and {len(changes) - 3} more)" if len(changes) > 3 else ""
        raise RunError(f"cannot resume {path}: {'; '.join(changes[:3])}{more}; give another --out for a new run")


def _differences(name: str, there: Any, now: Any) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*there, *now]):
            yield from _differences(f"{name}.{key}", there.get(key), now.get(key))
    elif there not in (now, UNUSABLE):
        yield f"{name} was {_short(there)}, is now {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _clear(path: Path) -> None:
    for folder in (path, path / IMAGES):
        for leftover in folder.glob(f"{TEMPORARY}*"):
            leftover.unlink()


def _repair(path: Path) -> list[bytes]:
    """The whole lines of ``traces.jsonl`` whose pictures are there; all else is taken out of the file."""
    file = path / TRACES
    content = file.read_bytes() if file.exists() else b""
    lines = [line for line in content.splitlines(keepends=True) if _is_whole(path, line)]
    if len(b"".join(lines)) != len(content):
        replace(file, b"".join(lines))
    return lines


def _is_whole(path: Path, line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        segments = json.loads(line)["segments"]
        return all((path / part["image"]).is_file() for part in segments if part.get("image"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
