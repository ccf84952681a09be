"""A client of OpenAI-compatible endpoints, over httpx: one request there, one JSON value back, or why there is none.

What can pass is tried again: 429, 5xx, a broken connection, an answer that is no JSON or not what was asked for. What
cannot is not: a 400 leaves its request without an answer, a refused key or an unknown model is the user's error.
Redirects are never followed, since they would carry the key elsewhere. The key comes from an environment variable, and
is masked in whatever comes back.
"""

import asyncio
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from twgi.errors import ConfigError

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")
CHAT, GENERATE, EDIT = "chat/completions", "images/generations", "images/edits"
WORDS_LIMIT = 2**20  # bytes of an answer in words
SECRET_FROM = 8  # characters; a shorter key is a placeholder for a local server, and may be part of any answer
MAX_WAIT = 60.0  # seconds before a retry, whatever the server asks for
_REFUSED = {401: "refuses the key", 403: "refuses the key", 404: "knows no such address or model"}


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """How to ask an endpoint."""

    url: str  # its base, such as https://host/v1
    model: str  # the name it has there
    key_variable: str = ""  # environment variable that holds the key; where it is not set, none is sent
    concurrency: int = 8  # requests at a time
    attempts: int = 5  # how often a request is sent at most
    timeout: float = 60.0  # seconds for one attempt, from its start to the last byte

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            raise ConfigError("an endpoint's address must be like https://host/v1; its host or port is none") from None
        if not good or parts.query or parts.fragment:
            raise ConfigError(f"an endpoint's address must be like https://host/v1, got {parts.hostname or self.url!r}")
        if parts.username or parts.password:
            raise ConfigError("put no password into an endpoint's address; put a key into an environment variable")
        if not self.model:
            raise ConfigError(f"say which model of {self.url} is meant")
        if not re.fullmatch(r"([A-Za-z_]\w*)?", self.key_variable, re.ASCII):  # it may be the key: not repeated
            raise ConfigError("key_variable must be the name of an environment variable, such as OPENAI_API_KEY")
        if self.concurrency < 1 or self.attempts < 1 or self.timeout <= 0:
            raise ConfigError("concurrency and attempts must be 1 or more, the timeout above 0")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request: a path below the base, its fields, pictures (PNG) to send as files, the most bytes of its answer."""

    path: str
    fields: Mapping[str, Any]
    pictures: tuple[bytes, ...] = field(default=(), repr=False)
    limit: int = WORDS_LIMIT

    @property
    def words(self) -> bytes:
        """The fields, as JSON."""
        return json.dumps(self.fields, sort_keys=True).encode()

    def body(self) -> dict[str, Any]:
        """What httpx is to send: JSON, or a form where there are files."""
        if not self.pictures:
            return {"content": self.words, "headers": {"Content-Type": "application/json"}}
        name = "image" if len(self.pictures) == 1 else "image[]"
        files = [(name, (f"{number}.png", picture, "image/png")) for number, picture in enumerate(self.pictures)]
        plain = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.fields.items()}
        return {"data": plain, "files": files}


@dataclass(frozen=True, kw_only=True)
class Reply(Generic[T]):
    """What came back and what it took. `usages`: what the endpoint told of each reply, also of those of no use."""

    value: T
    usages: tuple[Mapping[str, Any], ...]
    attempts: int
    seconds: float


class NoAnswer(Exception):
    """A request that nobody answered as it must be: why, after how many attempts, with which `usages`."""

    def __init__(self, problem: str, attempts: int, usages: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(problem if attempts == 1 else f"{problem}, {attempts} times")
        self.attempts, self.usages = attempts, tuple(usages)


class Unusable(Exception):
    """An answer that is not what was asked for. Unless it is `final`, the endpoint is asked again, `after` so many
    seconds if it says so."""

    def __init__(self, problem: str, *, after: float | None = None, final: bool = False) -> None:
        super().__init__(problem)
        self.after, self.final = after, final


class Endpoint:
    """One model behind one address. Threads may share it; `sleep` and `seed` are for the pauses before retries.

    Raises `ConfigError` where httpx is not installed, or the key is none that can be sent.
    """

    def __init__(
        self, options: EndpointOptions, *, sleep: Callable[[float], object] = time.sleep, seed: int = 0
    ) -> None:
        self.options, self._sleep, self._random = options, sleep, random.Random(seed)
        self.name = f"{options.url.rstrip('/')}#{options.model}"
        self._key = os.environ.get(options.key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(f"{options.key_variable} holds no key: it has signs that none can have")
        self._trusted = _trusted()
        self._places = threading.BoundedSemaphore(options.concurrency)

    def digest(self, call: Call) -> str:
        """The name of a request: equal for equal words and pictures to the same model."""
        pictures = "".join(f"\n{sha256(picture).hexdigest()}" for picture in call.pictures)
        return sha256(f"{self.name}\n{call.path}\n".encode() + call.words + pictures.encode()).hexdigest()

    def post(self, call: Call, read: Callable[[Any], T]) -> Reply[T]:
        """Ask until `read` can make use of the JSON that comes back. What `read` cannot use it may say by `Unusable`.

        Not to be called where an event loop runs. Raises `NoAnswer` where it is not answered, or not usably, as often
        as may be asked, and `ConfigError` where the endpoint refuses the key, or knows no such model.
        """
        start, attempts, usages = time.monotonic(), 0, list[Mapping[str, Any]]()
        while True:
            attempts += 1
            try:
                with self._places:
                    value = self._once(call)
                usage = value.get("usage") if isinstance(value, dict) else None
                usages.append(usage if isinstance(usage, dict) else {})
                used, seconds = _read(value, read), time.monotonic() - start
                return Reply(value=used, usages=tuple(usages), attempts=attempts, seconds=seconds)
            except Unusable as error:
                if error.final or attempts == self.options.attempts:
                    raise NoAnswer(str(error), attempts, usages) from None
                pause = 2.0 ** (attempts - 1) if error.after is None else error.after
                self._sleep(min(MAX_WAIT, pause * (1 + self._random.random() / 2)))  # so that not all come at once

    def _once(self, call: Call) -> Any:
        import httpx

        try:
            status, content = asyncio.run(self._send(call))
        except TimeoutError:
            raise Unusable("too slow") from None
        except (httpx.HTTPError, OSError) as error:  # its text may hold the key
            cause: BaseException = error
            while below := cause.__cause__ or cause.__context__:
                cause = below
            raise Unusable(f"no connection ({type(cause).__name__})") from None
        if status < 300:
            return self._parsed(content)
        try:
            message = str(self._parsed(content)["error"]["message"])
            said = f" ({' '.join(message.split())[:200]})"
        except (Unusable, KeyError, TypeError):
            said = ""
        raise Unusable(f"HTTP {status}{said}", final=True)

    async def _send(self, call: Call) -> tuple[int, bytes]:
        """The status and the answer's bytes, all of them there before the time is over.

        httpx has a limit for each step and none for the whole; asyncio has one, so each request is a loop of its own.
        """
        import httpx

        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        url, content = f"{self.options.url.rstrip('/')}/{call.path}", bytearray()
        async with (
            asyncio.timeout(self.options.timeout),
            httpx.AsyncClient(verify=self._trusted, timeout=None, headers=headers) as client,
            client.stream("POST", url, **call.body()) as response,
        ):
            self._refuse(response.status_code, response.headers.get("Retry-After", ""))
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > call.limit:
                    if response.is_success:
                        raise Unusable("an answer without end")
                    break
        return response.status_code, bytes(content)

    def _parsed(self, content: bytes) -> Any:
        """The JSON value, without the key."""
        try:
            value = json.loads(content)
            if len(self._key) < SECRET_FROM:
                return value
            text, key = json.dumps(value, ensure_ascii=False), json.dumps(self._key)[1:-1]
            return json.loads(text.replace(key, "[key]")) if key in text else value
        except (ValueError, RecursionError):
            raise Unusable("an answer of another shape") from None

    def _refuse(self, status: int, after: str) -> None:
        """What an HTTP error means whose body is not read. Retry-After as a date counts as not said."""
        if status in _REFUSED:
            hint = f"see its model, and the variable {self.options.key_variable or '(key_variable is not given)'}"
            raise ConfigError(f"{self.name} {_REFUSED[status]} (HTTP {status}); {hint}")
        if status == 429 or status >= 500:
            raise Unusable(f"HTTP {status}", after=float(after) if after.strip().isdecimal() else None)
        if 300 <= status < 400:
            raise Unusable(f"HTTP {status}; a redirect is not followed", final=True)


@cache
def _trusted() -> "ssl.SSLContext":
    try:
        import httpx
    except ImportError as error:
        raise ConfigError("asking an endpoint needs the package httpx: pip install 'twgi[eval]'") from error
    return httpx.create_ssl_context()


def _read(value: Any, read: Callable[[Any], T]) -> T:
    try:
        return read(value)
    except Unusable as error:
        raise Unusable(f"an unusable answer ({error})", after=error.after) from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise Unusable("an answer of another shape") from None
