"""The pictures of a build: files named by the hash of their bytes."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from PIL import Image

from twgi.files import write_whole
from twgi.trace import IMAGES, png


class PictureStore:
    """The pictures in a folder; those of `others`, whose answers are reused, are copied from there. Threads may share
    it."""

    def __init__(self, folder: Path, others: Sequence[Path] = ()) -> None:
        self._folder, self._others, self._lock = folder, others, threading.Lock()

    def add(self, picture: Image.Image) -> str:
        """Keep a picture; returns its path in the folder."""
        content = png(picture)
        return self._put(_name(content), content)

    def read(self, path: str) -> bytes:
        """The PNG of a picture that was kept."""
        return (self._folder / path).read_bytes()

    def has(self, path: str) -> bool:
        """Whether a picture is there, as it was, or is now, since another build has it."""
        for folder in (self._folder, *self._others):
            with suppress(OSError):
                content = (folder / path).read_bytes()
                if _name(content) == path and self._put(path, content):
                    return True
        return False

    def _put(self, path: str, content: bytes) -> str:
        file = self._folder / path
        with self._lock:
            if not file.is_file() or file.read_bytes() != content:
                write_whole(file, content)
        return path


def _name(content: bytes) -> str:
    return f"{IMAGES}/{sha256(content).hexdigest()[:32]}.png"
