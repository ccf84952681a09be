"""What endpoints answered, by the hash of what they were asked: nothing is asked, or paid for, twice.

`answers.jsonl` has a line for each answer, and one with a `problem` for each request that had none: it is cache and
account in one. Pictures are files named by the hash of their bytes. Both are there before the next step begins.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.errors import RunError
from twgi.thinking.run_folder import RunFolder
from twgi.trace import IMAGES, png

ANSWERS = "answers.jsonl"


class Album:
    """The pictures of a build. Threads may share it."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._lock = folder, threading.Lock()

    def add(self, picture: Image.Image) -> str:
        """Keep a picture; returns its path in the folder."""
        return self._put(png(picture))

    def read(self, path: str) -> bytes:
        """The PNG of a picture that was kept."""
        return (self._folder.path / path).read_bytes()

    def borrow(self, path: str, build: Path) -> bool:
        """Have a picture of another build, or of this one; whether it could be found."""
        try:
            return self._put((build / path).read_bytes()) == path
        except OSError:
            return False

    def _put(self, content: bytes) -> str:
        name = f"{IMAGES}/{sha256(content).hexdigest()[:32]}.png"
        with self._lock:
            if not (self._folder.path / name).is_file():
                self._folder.put(name, content)
        return name


class Answers:
    """The answers of a build, and those of others that may be used too. Threads may share it.

    Args:
        folder: of this build.
        reuse: folders of other builds.

    Raises:
        RunError: one of them holds no answers.
    """

    def __init__(self, folder: RunFolder, reuse: Sequence[Path] = ()) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._at: dict[str, tuple[Path, int]] = {}
        for other in reuse:
            if not (other / ANSWERS).is_file():
                raise RunError(f"{other} holds no {ANSWERS}: give the folder of a build with answers")
            self._index(other / ANSWERS)
        self._path = folder.mend(ANSWERS)
        self._index(self._path)

    def _index(self, path: Path) -> None:
        start = 0
        with path.open("rb") as lines:
            for line in lines:
                entry = _parsed(line)
                if "key" in entry and "problem" not in entry:
                    self._at[entry["key"]] = (path, start)
                start += len(line)

    def get(self, key: str) -> tuple[dict[str, Any], Path] | None:
        """The answer to a request, and the folder of the build that it is from."""
        if key not in self._at:
            return None
        path, start = self._at[key]
        with path.open("rb") as file:
            file.seek(start)
            return _parsed(file.readline()), path.parent

    def add(self, entry: Mapping[str, Any]) -> None:
        """Keep an answer, or note that there was none."""
        with self._lock:
            start = self._path.stat().st_size
            self._folder.append(ANSWERS, entry)
            if "problem" not in entry:
                self._at[entry["key"]] = (self._path, start)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Everything this build was answered, or was not."""
        with self._path.open("rb") as lines:
            yield from map(_parsed, lines)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:  # another program's line, or a torn one of another build
        return {}
    return entry if isinstance(entry, dict) else {}
