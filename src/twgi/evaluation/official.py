"""GenEval's own folder shape, written and read: `00012/metadata.jsonl`, `00012/samples/00000.png`.

GenEval's scorer takes every folder whose name is a number and every picture in it whose name is one.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from twgi.errors import ConfigError, PromptError, RunError
from twgi.evaluation.collection import Collection, Entry, Key, check_metadata
from twgi.evaluation.geneval import Item, read_items
from twgi.trace import write_file

OFFICIAL = "geneval"  # of a run folder: its last pictures in this shape
_PICTURE = re.compile(r"\d+\.png")


def export(collection: Collection) -> Path:
    """Lay the last picture of each thought into the folder `geneval` of its run; returns that folder.

    What is there of earlier pictures stays, so that a resumed run completes it. A thought without a whole last picture
    leaves a gap. Raises `RunError`.
    """
    root = collection.folder / OFFICIAL
    for item in collection.items:
        folder = root / f"{item.index:05d}"
        if not (folder / "metadata.jsonl").exists():
            write_file(folder / "metadata.jsonl", json.dumps(dict(item.record)).encode())
        for sample in range(collection.samples):
            entry = collection.entries.get((item.index, sample))
            if entry is not None and entry.pictures and entry.pictures[-1] is not None:
                link(collection.folder / entry.pictures[-1], folder / "samples" / f"{sample:05d}.png")
    return root


def link(source: Path, target: Path) -> None:
    """The same file under another name: a hard link, or a copy where there are none. Raises `RunError`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.samefile(source):
            return
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    except OSError as error:
        raise RunError(f"{target}: cannot be written ({error.strerror or error})") from None


def read_official(folder: Path, prompts: Path, *, samples: int = 4) -> Collection:
    """Pictures made elsewhere, held against the whole prompts file, so that nothing can be missing unnoticed.

    Raises:
        ConfigError: there are more pictures of a prompt than `samples`.
        PromptError: the prompts file cannot be read, or a folder is of another prompt than the file says.
        RunError: there is not one folder with a number for a name.
    """
    items = tuple(read_items(prompts))
    folders = {int(path.name): path for path in _folders(folder)}
    if not folders:
        raise RunError(f"{folder} holds no folders like 00000 with pictures in 00000/samples, and no run")
    beyond = sorted(set(folders) - {item.index for item in items})
    if beyond:
        raise PromptError(f"{folders[beyond[0]]} is of no prompt: {prompts} has {len(items)}")
    entries: dict[Key, Entry] = {}
    for item in items:
        if item.index in folders:
            entries |= _entries(item, folders[item.index], folder, samples)
    return Collection(
        folder=folder, items=items, samples=samples, entries=entries, whole=len(items), made={"made": "elsewhere"}
    )


def _folders(folder: Path) -> Iterator[Path]:
    try:
        return (path for path in sorted(folder.iterdir()) if path.name.isdecimal() and path.is_dir())
    except OSError as error:
        raise RunError(f"{folder} cannot be read ({error.strerror})") from None


def _entries(item: Item, folder: Path, root: Path, samples: int) -> Mapping[Key, Entry]:
    check_metadata(item, folder / "metadata.jsonl")
    found = sorted((folder / "samples").glob("*.png"), key=lambda path: (len(path.name), path.name))
    pictures = [path for path in found if _PICTURE.fullmatch(path.name)]
    if len(pictures) > samples:
        raise ConfigError(f"{folder} has {len(pictures)} pictures, not {samples}: say --samples {len(pictures)}")
    numbers = [int(path.stem) for path in pictures]
    if len(set(numbers)) < len(numbers):
        raise PromptError(f"{folder}: two pictures have the same number")
    if numbers and max(numbers) >= samples:  # counted from 1, or anyhow
        numbers = list(range(len(numbers)))
    files = (str(path.relative_to(root)) for path in pictures)
    return {(item.index, number): Entry(pictures=(file,)) for number, file in zip(numbers, files, strict=True)}
