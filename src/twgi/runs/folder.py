"""The folder of a run: one process at a time, and whatever happens to that process, nothing is lost or doubled.

::

    run.json      what the run is: settings, model, prompts, versions
    traces.jsonl  one finished thought a line
    images/       the pictures of the thoughts
    errors.jsonl  what could not be done in the last run, and why
    index.html    the page

A thought enters in this order: its pictures (each whole, then the folder synced), then its line (append, sync). So a
line's pictures are always there, and a process that dies leaves at most temporary files and a torn last line, which the
next one clears away. Of stored thoughts only their ids and places are in memory.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, count
from pathlib import Path
from typing import Any

from twgi.errors import ConfigError, DataError, RunError
from twgi.files import (
    LOCK,
    MAX_LINE,
    FolderLock,
    Object,
    append_line,
    checked,
    clear_leftovers,
    entries,
    inside,
    mend,
    open_regular,
    parse_object,
    raw_lines,
    read_json,
    reading,
    short,
    sync,
    write_json,
    write_whole,
    writing,
    writing_whole,
)
from twgi.render import Record, page
from twgi.thinking.settings import Settings
from twgi.trace import IMAGES, PAGE, RUN, TRACES, Failure, ModelId, Trace, from_line, read_traces

VERSION = 2
ERRORS = "errors.jsonl"
UNUSABLE = "unusable"  # a stored value that may differ from what it is now: nothing came of it
IDENTITY = ("settings", "seed", "samples", "part", "model", "prompts")  # the same in a run and its resumption


@dataclass(frozen=True, kw_only=True)
class Description:
    """What `run.json` says of a run."""

    settings: Settings  # resolved for its model; the mode and the seed of a prompt may be its own
    seed: int = 0
    samples: int = 1
    part: tuple[int, int] = (1, 1)
    model: ModelId
    prompts: Mapping[str, str] = field(default_factory=dict)  # number -> digest of each prompt of the whole run
    versions: Mapping[str, str] = field(default_factory=dict)  # of the programs that made it
    started: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)  # what else was said, such as the benchmark it is about

    @property
    def made(self) -> dict[str, Any]:
        """With what its pictures were made: model, settings, versions."""
        return {key: value for key, value in self.to_json().items() if key in ("model", "settings", "versions")}

    def to_json(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name != "about"}
        plain = {"settings": self.settings.to_json(), "part": list(self.part), "model": self.model.to_json()}
        return {"version": VERSION, **own, **plain, **self.about}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Description":
        """Read `to_json` back, or what version 1 wrote. Raises `RunError`."""
        try:
            keys = dict(_of_today(value))
            if (version := keys.pop("version")) != VERSION:
                raise RunError(f"a run of version {short(version)}; this program reads versions 1 and {VERSION}")
            own = checked({key: keys.pop(key) for key in _FIELDS}, "it", _FIELDS)
            which, of = (int(number) for number in own["part"])
            model = ModelId(**checked(own["model"], "model", {"name": str, "sha256": str}))
            own |= {"settings": Settings.from_json(own["settings"]), "model": model, "part": (which, of)}
            return cls(**own, about=keys)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ConfigError, DataError) as error:
            raise RunError(f"this does not describe a run: {type(error).__name__} {error}") from None


_FIELDS: Mapping[str, Any] = {
    **dict.fromkeys(("settings", "model", "prompts", "versions"), dict),
    **{"seed": int, "samples": int, "part": list, "started": str},
}


def _of_today(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A description of version 1 as version 2 has it."""
    if value.get("version") != 1:
        return value
    settings: Object = {"compat": [], "scales": {}, "negative_prompt": Settings().negative_prompt, **value["settings"]}
    settings["guidance"] = {key: said for key, said in settings["guidance"].items() if key != "changed"}
    seed, samples, part = (settings.pop(key, one) for key, one in (("seed", 0), ("samples", 1), ("shard", [1, 1])))
    return {**value, "version": VERSION, "settings": settings, "seed": seed, "samples": samples, "part": part}


def read_run(folder: Path) -> Description:
    """What the run of a folder is. Raises `RunError`."""
    try:
        return Description.from_json(_stored(folder))
    except (DataError, RunError) as error:
        raise RunError(f"{folder} holds no run that can be read: {error}") from None


def read_thoughts(folder: Path) -> Iterator[Trace]:
    """The stored thoughts of a run, without their pictures; none where none was finished yet. Raises `TraceError`."""
    return read_traces(folder) if (folder / TRACES).exists() else iter(())


class RunFolder(FolderLock):
    """An open run folder, made when it is not there and held for this process alone until it is closed.

    Args:
        run: what the run is, written to ``run.json``.
        resume: continue the run that is there; without it the folder must be new or empty.
        identity: keys of ``run`` that must be the same when it is resumed.

    Raises `RunError`: it cannot be written, is in use, holds something else, or holds a run of another identity.
    """

    def __init__(
        self, path: Path, *, run: Mapping[str, Any], resume: bool = False, identity: Iterable[str] = IDENTITY
    ) -> None:
        check_folder(path, resume=resume)
        with writing(path):
            self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        super().__init__(path)
        self.path, self._places = path, dict[str, tuple[int, int]]()
        try:
            check_folder(path, resume=resume)  # again: another process may have been faster
            self._open(json.loads(json.dumps(run)), identity)
        except BaseException:
            self.close()
            raise

    def _open(self, run: Object, identity: Iterable[str]) -> None:
        with writing(self.path):
            if (self.path / RUN).exists():
                try:
                    refuse_changes(self.path, _stored(self.path), run, identity)
                except DataError as error:
                    raise RunError(f"{self.path / RUN} is damaged ({error}): give another --out") from None
            else:
                write_json(self.path / RUN, run)
            inside(self.path, IMAGES, RunError).mkdir(exist_ok=True)
            clear_leftovers(self.path)
            clear_leftovers(self.path / IMAGES)
            (self.path / ERRORS).unlink(missing_ok=True)
        self.refresh()

    def refresh(self) -> None:
        """Read anew which thoughts are stored; of what is none, the lines are taken out."""
        self._places = _whole_lines(self.path)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id: str) -> bool:
        """Whether the thought of this id is stored."""
        return id in self._places

    def thought(self, id: str) -> Trace:
        """A stored thought, without its pictures. Raises `TraceError` where it cannot be read."""
        (start, length), path = self._places[id], self.path / TRACES
        with reading(path), open_regular(path) as file:
            file.seek(start)
            return from_line(file.read(length))

    def thoughts(self) -> Iterator[Trace]:
        """All of them, in the order of their ids."""
        return map(self.thought, sorted(self._places, key=_natural))

    def add(self, trace: Trace) -> None:
        """Store one thought that has an id (see `Trace.filed`): its pictures, then its line."""
        assert trace.id, "a stored thought has an id"
        pictures, line = trace.files(), trace.to_json()
        try:
            for name, content in pictures.items():
                write_whole(self.path / name, content, sync_folder=False)
            if pictures:
                sync(self.path / IMAGES)
            self._places[trace.id] = append_line(self.path / TRACES, line)
        except RunError as error:
            raise RunError(f"{error}; finished thoughts are kept in {self.path}") from error

    def put(self, name: str, content: bytes) -> Path:
        """Write a picture of a thought that is not finished yet; its path."""
        write_whole(self.path / IMAGES / name, content)
        return self.path / IMAGES / name

    def fail(self, record: Mapping[str, Any]) -> None:
        """Note why something could not be done."""
        append_line(self.path / ERRORS, record)

    def write_page(self, failures: Mapping[str, Failure] | None = None, *, title: str | None = None) -> Path:
        """Put ``index.html`` in place, thoughts and failures (by id) in the order of their ids; returns its path.

        Thoughts are read, and the page is written, one after the other: memory does not grow with the run.
        """
        failed = failures or {}
        order = sorted({*self._places, *failed}, key=_natural)

        def records() -> Iterator[Record]:
            return (self.thought(id) if id in self._places else failed[id] for id in order)

        with writing_whole(self.path / PAGE) as file:
            for piece in page(records, len(order), folder=self.path, title=title):
                file.write(piece.encode())
        return self.path / PAGE

    def discard(self) -> None:
        """Take a run away that has no thought in it, so that all is as it was before."""
        assert not self._places
        with suppress(OSError):
            _remove_run(self.path)
            (self.path / LOCK).unlink()
            for folder in self._made:
                folder.rmdir()


def _remove_run(path: Path) -> None:
    inside(path, IMAGES, RunError)
    for file in (*path.glob(f"{IMAGES}/*"), *(path / name for name in (RUN, TRACES, ERRORS, PAGE))):
        file.unlink(missing_ok=True)
    if (path / IMAGES).exists():
        (path / IMAGES).rmdir()


def _natural(id: str) -> list[tuple[int, str]]:
    """The order of ids: numbers in them count as numbers."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", id)]


def check_folder(path: Path, *, resume: bool) -> None:
    """Whether a run may begin, or go on, in a folder; nothing is written yet.

    Raises `RunError`: it holds a run and is not to be resumed, holds something else, or cannot be read.
    """
    names = entries(path)
    if RUN in names and not resume:
        raise RunError(f"{path} holds a run already: continue it with --resume, or give another --out")
    if names and RUN not in names:
        raise RunError(f"{path} is not empty and holds no run: give a new or empty folder as --out")


def _stored(path: Path) -> Object:
    run = read_json(path / RUN)
    if not isinstance(run, dict):
        raise DataError(f"{path / RUN}: not a JSON object")
    return run


def _whole_lines(path: Path) -> dict[str, tuple[int, int]]:
    """Id -> (start, length) of each whole line of ``traces.jsonl`` whose pictures are there; others are taken out."""
    file = mend(path / TRACES)
    if not file.exists():
        return {}
    with writing(file), file.open("rb") as lines:
        found = [(_id_of(path, line), len(line)) for line in raw_lines(lines)]
    whole = [(id, length) for id, length in found if id is not None]
    if len(whole) < len(found):
        with file.open("rb") as lines, writing_whole(file) as kept:
            kept.writelines(line for line, (id, _) in zip(raw_lines(lines), found, strict=True) if id is not None)
    ends = accumulate(length for _, length in whole)
    return {id: (end - length, length) for (id, length), end in zip(whole, ends, strict=True)}


def _id_of(path: Path, line: bytes) -> str | None:
    """The id of a whole thought; None where it is none. One of another version is not dropped, but refused."""
    try:
        value = parse_object(line[: MAX_LINE + 1])
        pictures = [inside(path, part["image"]) for part in value["segments"] if part.get("image")]
    except (DataError, KeyError, TypeError, AttributeError):
        return None
    return Trace.from_json(value).id if all(map(os.path.isfile, pictures)) else None


def save_trace(trace: Trace, folder: Path, *, overwrite: bool = False) -> Path:
    """A run folder that holds one thought; returns the path of its page. Raises `RunError`."""
    if overwrite:
        with writing(folder):
            _remove_run(folder)
    elif (folder / TRACES).exists():
        raise RunError(f"{folder} holds a run already; give another folder, or overwrite=True")
    run = Description(settings=Settings(), seed=trace.seed, model=trace.model).to_json()
    try:
        run["settings"] = Settings.of_trace(trace).to_json()
    except ConfigError:  # a trace that no run of ours made
        run["settings"] = dict(trace.settings)
    with RunFolder(folder, run=run) as opened:
        opened.add(trace.filed(trace.id or f"00000-{trace.sample}"))
        return opened.write_page()


def fresh_folder(parent: Path, title: str) -> Path:
    """A path in `parent` where nothing is yet, named by the time and the title."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-")
    name = "-".join(part for part in (datetime.now().strftime("%Y%m%d-%H%M%S"), words) if part)
    candidates = (parent / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(path for path in candidates if not path.exists())


def refuse_changes(
    folder: Path,
    stored: Mapping[str, Any],
    now: Mapping[str, Any],
    keys: Iterable[str],
    *,
    otherwise: str = "give another --out for a new run",
) -> None:
    """Raises `RunError` where what is stored in a folder is not what is asked for now, under these keys; says what."""
    changes = [text for key in keys for text in _differences(key, stored.get(key), now.get(key))]
    if changes:
        more = f" (and {len(changes) - 3} more)" if len(changes) > 3 else ""
        raise RunError(f"cannot resume {folder}: {'; '.join(changes[:3])}{more}; {otherwise}")


def _differences(name: str, there: Any, now: Any) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*there, *now]):
            yield from _differences(f"{name}.{key}", there.get(key), now.get(key))
    elif there not in (now, UNUSABLE):
        yield f"{name} was {short(there)}, is now {short(now)}"
