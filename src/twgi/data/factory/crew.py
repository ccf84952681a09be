"""The models behind endpoints, by role: words or a picture asked of one, through the cache, noted in the account."""

import base64
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from zlib import crc32

from twgi.data.factory.answers import Album, Answers
from twgi.data.factory.recipe import BuildRecipe
from twgi.client import CHAT, EDIT, GENERATE, Call, Endpoint, NoAnswer, Unusable
from twgi.errors import ImageError
from twgi.tokenizer.image import MAX_BYTES, read_picture

T = TypeVar("T")
Kept = dict[str, Any]  # a line of the account
Keep = Callable[[Any], dict[str, str]]
PICTURE_LIMIT = 2 * MAX_BYTES  # of an answer with a picture in base64
MODALITIES = ["image", "text"]


class Unanswered(Exception):
    """A role that did not give what was asked for."""

    def __init__(self, role: str, problem: str) -> None:
        super().__init__(problem)
        self.role = role


class Crew:
    """Who is asked. Threads may share it; after `dismiss` nobody asks or waits any more."""

    def __init__(self, recipe: BuildRecipe, album: Album, answers: Answers) -> None:
        self._recipe, self.album, self._answers = recipe, album, answers
        self._over = threading.Event()
        self._endpoints = {name: Endpoint(s, sleep=self._wait) for name, s in recipe.endpoints.items()}

    def dismiss(self) -> None:
        """Let pauses end at once, and nothing more be asked."""
        self._over.set()

    def _wait(self, seconds: float) -> None:
        if self._over.wait(seconds):
            raise Unanswered("", "stopped")

    def ask(self, role: str, words: str, read: Callable[[str], T], pictures: Sequence[str] = ()) -> T:
        """What `read` makes of the words that the role answers; it raises `Unusable` at those it cannot use.

        Raises:
            Unanswered: the role gave nothing usable.
        """
        name = self._turn(role, words)
        call = Call(path=CHAT, fields=self._chat(name, words, pictures))
        return self._answer(role, name, call, lambda reply: {"text": _words(reply)}, lambda kept: read(kept["text"]))

    def paint(self, role: str, words: str, pictures: Sequence[str] = ()) -> str:
        """A picture (its path in the build's folder) by these words, and from pictures if there are any.

        Raises:
            Unanswered: the role gave no picture.
        """
        name = self._turn(role, words)
        station = self._recipe.endpoints[name]
        if station.pictures == "chat":
            call = Call(
                path=CHAT, fields={**self._chat(name, words, pictures), "modalities": MODALITIES}, limit=PICTURE_LIMIT
            )
        else:
            fields = {**station.parameters, "model": station.model, "prompt": words, "n": 1}
            files = tuple(self.album.read(path) for path in pictures)
            call = Call(path=EDIT if files else GENERATE, fields=fields, pictures=files, limit=PICTURE_LIMIT)
        return self._answer(role, name, call, self._hung, lambda kept: str(kept["picture"]))

    def _turn(self, role: str, words: str) -> str:
        """Endpoints of a role take turns, by what is asked and not by when."""
        names = self._recipe.roles[role]
        return names[crc32(words.encode("utf-8", "replace")) % len(names)]

    def _chat(self, name: str, words: str, pictures: Sequence[str]) -> dict[str, Any]:
        station = self._recipe.endpoints[name]
        shown = [{"type": "image_url", "image_url": {"url": _data_uri(self.album.read(path))}} for path in pictures]
        content = [*shown, {"type": "text", "text": words}] if shown else words
        return {**station.parameters, "model": station.model, "messages": [{"role": "user", "content": content}]}

    def _answer(self, role: str, name: str, call: Call, keep: Keep, use: Callable[[Kept], T]) -> T:
        """`keep`: what of a reply is kept; `use`: what is made of that."""
        endpoint = self._endpoints[name]
        entry: Kept = {"key": endpoint.digest(call), "role": role, "endpoint": name}
        with suppress(Unusable):
            return self._kept(entry["key"], use)
        self._wait(0)
        try:
            answer = endpoint.post(call, lambda reply: (kept := keep(reply), use(kept)))
        except NoAnswer as error:
            self._answers.add({**entry, "problem": str(error), "attempts": error.attempts, "usages": error.usages})
            raise Unanswered(role, str(error)) from None
        kept, made = answer.value
        took = {"attempts": answer.attempts, "usages": answer.usages, "seconds": round(answer.seconds, 3)}
        self._answers.add({**entry, **kept, **took})
        return made

    def _kept(self, key: str, use: Callable[[Kept], T]) -> T:
        found = self._answers.get(key)
        if found is None:
            raise Unusable("not asked yet")
        kept, build = found
        if "picture" in kept and not self.album.borrow(kept["picture"], build):
            raise Unusable("its picture is gone")
        return use(kept)

    def _hung(self, reply: Any) -> dict[str, str]:
        """The picture of a reply, in the album."""
        try:
            return {"picture": self.album.add(read_picture(_picture(reply), name="the picture"))}
        except ImageError as error:
            raise Unusable(str(error)) from None


def _words(reply: Any) -> str:
    text = reply["choices"][0]["message"]["content"]
    if not isinstance(text, str) or not text.strip():
        raise Unusable("no words")
    return text


def _picture(reply: Any) -> bytes:
    """The file of a reply's first picture, as either service sends it."""
    if "data" in reply:
        first = reply["data"][0]
        if "b64_json" not in first and "url" in first:
            raise Unusable("an address instead of a picture: set response_format: b64_json under parameters")
        return base64.b64decode(first["b64_json"], validate=True)
    message = reply["choices"][0]["message"]
    parts = [*(message.get("images") or ()), *(message["content"] if isinstance(message.get("content"), list) else ())]
    urls = [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]
    if not urls:
        raise Unusable("no picture")
    head, _, data = urls[0].partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        raise Unusable("an address instead of a picture")
    return base64.b64decode(data, validate=True)


def _data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
