"""The models behind endpoints, by role: words or a picture asked of one, and every answer written into the book."""

import base64
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar
from zlib import crc32

from PIL import Image

from twgi.answers import AnswerBook
from twgi.client import CHAT, EDIT, GENERATE, Call, Endpoint, NoAnswer
from twgi.data.factory.recipe import BuildRecipe
from twgi.data.factory.words import WORDS
from twgi.errors import DataError, ImageError
from twgi.files import Object, read_bytes, write_whole
from twgi.replies import Unusable, picture, words
from twgi.tokenizer.image import MAX_BYTES, read_picture
from twgi.trace import IMAGES, png

T = TypeVar("T")
PICTURE_LIMIT = 2 * MAX_BYTES  # of an answer with a picture in base64


class PictureStore:
    """The pictures in a build's folder, named by the hash of their bytes; those of `others`, whose answers are reused,
    are copied from there. Threads may share it."""

    def __init__(self, folder: Path, others: Sequence[Path] = ()) -> None:
        self._folder, self._others, self._lock = folder, others, threading.Lock()

    def add(self, picture: Image.Image) -> str:
        """Keep a picture; returns its path in the folder."""
        content = png(picture)
        self._put(path := _name(content), content)
        return path

    def read(self, path: str) -> bytes:
        """The PNG of a picture that was kept."""
        return (self._folder / path).read_bytes()

    def has(self, path: str) -> bool:
        """Whether a picture is there, as it was, or is now, since another build has it."""
        for folder in (self._folder, *self._others):
            with suppress(DataError):
                if _name(content := read_bytes(folder / path)) == path:
                    self._put(path, content)
                    return True
        return False

    def _put(self, path: str, content: bytes) -> None:
        file = self._folder / path
        with self._lock:
            if not file.is_file() or file.read_bytes() != content:
                write_whole(file, content)


def _name(content: bytes) -> str:
    return f"{IMAGES}/{sha256(content).hexdigest()[:32]}.png"


class NotMade(Exception):
    """A chain that came to no end: dropped, or failed because a role did not do its part; `step` is where."""

    def __init__(self, status: Literal["dropped", "failed"], step: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.step = status, step


class Teachers:
    """Who is asked. Threads may share it; after `dismiss` nobody asks or waits any more."""

    def __init__(self, recipe: BuildRecipe, pictures: PictureStore, book: AnswerBook) -> None:
        self._recipe, self._pictures, self._book = recipe, pictures, book
        self._endpoints = {name: Endpoint(settings) for name, settings in recipe.endpoints.items()}

    def dismiss(self) -> None:
        """Let pauses end at once, what is on its way soon, and nothing more be asked."""
        for endpoint in self._endpoints.values():
            endpoint.stop()

    def ask(
        self, role: str, wanted: str, read: Callable[[str], T], pictures: Sequence[str] = (), **about: str | int
    ) -> T:
        """What `read` makes of the words that the role answers to one of `WORDS`; it raises `Unusable` at those it
        cannot use. Raises `NotMade` where the role gave nothing usable."""
        question = WORDS[wanted].format(**about)
        name = self._turn(role, question)
        call = Call(path=CHAT, fields=self._chat(name, question, pictures))
        return self._answer(role, name, call, lambda value: {"text": words(value)}, lambda kept: read(kept["text"]))

    def paint(self, role: str, wanted: str, pictures: Sequence[str] = (), **about: str) -> str:
        """A picture (its path in the build's folder) by one of `WORDS`, and from pictures if there are any.

        Raises `NotMade` where the role gave no picture.
        """
        wish = WORDS[wanted].format(**about)
        name = self._turn(role, wish)
        options = self._recipe.endpoints[name]
        if options.pictures == "chat":
            fields = {**self._chat(name, wish, pictures), "modalities": ["image", "text"]}
            call = Call(path=CHAT, fields=fields, limit=PICTURE_LIMIT)
        else:
            fields = {**options.parameters, "model": options.model, "prompt": wish, "n": 1}
            files = tuple(self._pictures.read(path) for path in pictures)
            call = Call(path=EDIT if files else GENERATE, fields=fields, pictures=files, limit=PICTURE_LIMIT)
        return self._answer(role, name, call, self._kept_picture, self._path)

    def _turn(self, role: str, text: str) -> str:
        """Endpoints of a role take turns, by what is asked and not by when."""
        names = self._recipe.roles[role]
        return names[crc32(text.encode("utf-8", "replace")) % len(names)]

    def _chat(self, name: str, text: str, pictures: Sequence[str]) -> Object:
        options = self._recipe.endpoints[name]
        files = (base64.b64encode(self._pictures.read(path)).decode() for path in pictures)
        shown = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{file}"}} for file in files]
        content = [*shown, {"type": "text", "text": text}] if shown else text
        return {**options.parameters, "model": options.model, "messages": [{"role": "user", "content": content}]}

    def _answer(self, role: str, name: str, call: Call, keep: Callable[[Any], Object], use: Callable[[Object], T]) -> T:
        """`keep`: what of a reply goes into the book; `use`: what is made of that."""
        endpoint = self._endpoints[name]
        entry: Object = {"key": endpoint.digest(call), "role": role, "endpoint": name}
        with suppress(Unusable, KeyError, TypeError, AttributeError):
            if (found := self._book.get(entry["key"])) is not None:
                return use(found)
        try:
            reply = endpoint.post(call, lambda value: (kept := keep(value), use(kept)))
        except NoAnswer as error:
            if error.attempts:
                self._book.add({**entry, "problem": str(error), "attempts": error.attempts, "usages": error.usages})
            raise NotMade("failed", role, str(error)) from None
        kept, made = reply.value
        took = {"attempts": reply.attempts, "usages": reply.usages, "seconds": round(reply.seconds, 3)}
        self._book.add({**entry, **kept, **took})
        return made

    def _kept_picture(self, value: Any) -> Object:
        try:
            return {"picture": self._pictures.add(read_picture(picture(value), name="the picture"))}
        except ImageError as error:
            raise Unusable(str(error)) from None

    def _path(self, kept: Object) -> str:
        if not self._pictures.has(kept["picture"]):
            raise Unusable("its picture is gone")
        return str(kept["picture"])
