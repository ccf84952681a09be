"""An evaluation in parts, on as many machines: each part is a run folder in the folder of the whole.

What a thought is depends on nothing but its prompt, seed and sample, so the merged parts hold the same thoughts as one
run would.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from twgi.errors import ConfigError, RunError
from twgi.files import writing
from twgi.thinking.run_folder import ERRORS
from twgi.trace import RUN, TRACES, to_line, write_file

_FOLDER = re.compile(r"shard-(\d+)-of-(\d+)")


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/4" -> (2, 4). Raises `ConfigError`."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard must be like 1/4 to 4/4, got {text!r}")
    return int(match[1]), int(match[2])


def shard_folder(out: Path, shard: tuple[int, int]) -> Path:
    """Where a shard's run is: in a folder of its own, or, where there is but one, in `out` itself."""
    return out if shard == (1, 1) else out / f"shard-{shard[0]}-of-{shard[1]}"


def shards_in(folder: Path) -> list[Path]:
    """The run folders of shards in a folder."""
    found = sorted(path for path in folder.glob("shard-*-of-*") if _FOLDER.fullmatch(path.name))
    return [path for path in found if (path / RUN).exists()]


def merge(folder: Path) -> None:
    """Make a run of the shards in a folder, as if one process had thought it all. Missing shards leave gaps.

    Pictures become hard links; the shards stay as they are, and merging again takes up what they have got since.

    Raises:
        RunError: there are no shards, or they are not parts of one run.
    """
    from twgi.evaluation.pictures import read_description, thoughts

    shards = shards_in(folder)
    if not shards:
        raise RunError(f"{folder} holds no shards")
    if (folder / RUN).exists() and "merged" not in read_description(folder):
        raise RunError(f"{folder} holds a run of its own beside shards: move one of them to another folder")
    described = [_whole(read_description(shard)) for shard in shards]
    for other, shard in zip(described[1:], shards[1:], strict=True):
        _refuse_other(described[0], other, shards[0], shard)
    for shard in shards:
        for picture in sorted((shard / "images").glob("*.png")):
            link(picture, folder / "images" / picture.name)
    found = {job: trace for shard in shards for job, trace in thoughts(shard, described[0]).items()}
    jobs = sorted(found)
    errors = b"".join((shard / ERRORS).read_bytes() for shard in shards if (shard / ERRORS).exists())
    write_file(folder / ERRORS, errors)
    write_file(folder / TRACES, b"".join(to_line(found[job]) for job in jobs))
    write_file(folder / RUN, (json.dumps(described[0], ensure_ascii=False, indent=2) + "\n").encode())


def _whole(described: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in described["settings"].items() if key != "shard"}
    return {**described, "settings": settings, "merged": True}


def _refuse_other(one: dict[str, Any], other: dict[str, Any], a: Path, b: Path) -> None:
    for key in ("settings", "model", "prompts", "benchmark"):
        if one.get(key) != other.get(key):
            raise RunError(f"{a} and {b} are not parts of one run: their {key} differ")


def link(source: Path, target: Path) -> None:
    """The same file under another name: a hard link, or a copy where there are none. Raises `RunError`."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.samefile(source):
            return
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
