"""A run in parts, on as many machines: each part is a run folder in the folder of the whole.

What a thought is depends on nothing but its prompt, seed and sample, so the merged parts hold the same thoughts as one
run would.
"""

import os
import re
import shutil
from pathlib import Path

from twgi.errors import ConfigError, RunError
from twgi.files import inside, read_bytes, write_json, write_whole, writing, writing_whole
from twgi.runs.folder import ERRORS, IDENTITY, read_run, read_thoughts
from twgi.trace import IMAGES, RUN, TRACES, to_line

MERGED = "merged"


def parse_part(text: str) -> tuple[int, int]:
    """ "2/4" -> (2, 4). Raises `ConfigError`."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard must be like 1/4 to 4/4, got {text!r}")
    return int(match[1]), int(match[2])


def part_folder(out: Path, part: tuple[int, int]) -> Path:
    """Where a part's run is: in a folder of its own, or, where there is but one, in `out` itself. Raises `RunError`."""
    return out if part == (1, 1) else inside(out, f"shard-{part[0]}-of-{part[1]}", RunError)


def parts_in(folder: Path) -> list[Path]:
    """The run folders of parts in a folder."""
    found = (path for path in folder.glob("shard-*-of-*") if re.fullmatch(r"shard-\d+-of-\d+", path.name))
    return sorted(path for path in found if (path / RUN).exists())


def merge(folder: Path) -> None:
    """Make a run of the parts in a folder, as if one process had thought it all. Missing parts leave gaps.

    Pictures become hard links; the parts stay as they are, and merging again takes up what they have got since. Raises
    `RunError`: there are no parts, or they are not parts of one run.
    """
    parts = parts_in(folder)
    if not parts:
        raise RunError(f"{folder} holds no parts of a run")
    if (folder / RUN).exists() and MERGED not in read_run(folder).about:
        raise RunError(f"{folder} holds a run of its own beside parts: move one of them to another folder")
    first = read_run(parts[0]).to_json()
    for part in parts[1:]:
        other = read_run(part).to_json()
        for key in (*IDENTITY, "benchmark"):
            if key != "part" and first.get(key) != other.get(key):
                raise RunError(f"{parts[0]} and {part} are not parts of one run: their {key} differ")
    for part in parts:
        for picture in sorted((part / IMAGES).glob("*.png")):
            link(inside(folder, str(picture.relative_to(folder)), RunError), folder, f"{IMAGES}/{picture.name}")
    write_whole(folder / ERRORS, b"".join(read_bytes(p / ERRORS) for p in parts if (p / ERRORS).exists()))
    where = {trace.id: part for part in parts for trace in read_thoughts(part)}
    with writing_whole(folder / TRACES) as lines:
        for part in parts:
            lines.writelines(to_line(trace) for trace in read_thoughts(part) if where[trace.id] is part)
    write_json(folder / RUN, {**first, "part": [1, 1], MERGED: len(parts)})


def link(source: Path, folder: Path, name: str) -> None:
    """A second name, below a folder, for a picture; a copy where there are no hard links. Raises `RunError`."""
    target = inside(folder, name, RunError)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
