"""A client of OpenAI-compatible endpoints: one request there, one JSON answer back, or the reason why there is none.

What can pass is tried again: 429, 5xx, a broken connection, an answer that is no JSON or not what was asked for. What
cannot is not: a 400 leaves its request without an answer, a refused key or an unknown model is the user's error.
Redirects are never followed, since they would carry the key elsewhere. The key comes from an environment variable, and
is masked in whatever comes back.
"""

import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from http.client import HTTPException
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from twgi.errors import ConfigError

T = TypeVar("T")
CHAT, GENERATE, EDIT = "chat/completions", "images/generations", "images/edits"
WORDS_LIMIT = 2**20  # bytes of an answer in words
SECRET_FROM = 8  # characters; a shorter key is a placeholder for a local server, and may be part of any answer
MAX_WAIT = 60.0  # seconds before a retry, whatever the server asks for
_REFUSED = {401: "refuses the key", 403: "refuses the key", 404: "knows no such address or model"}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """How to ask an endpoint.

    Args:
        url: its base, such as ``https://host/v1``.
        model: the name it has there.
        key_variable: environment variable that holds the key; where it is not set, none is sent.
        concurrency: requests at a time.
        attempts: how often a request is sent at most.
        timeout: seconds for one attempt, from its start to the last byte.
    """

    url: str
    model: str
    key_variable: str = ""
    concurrency: int = 8
    attempts: int = 5
    timeout: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"an endpoint's address must be like https://host/v1, got {parts.hostname or self.url!r}")
        if parts.username or parts.password:
            raise ConfigError("put no password into an endpoint's address; put a key into an environment variable")
        if not self.model:
            raise ConfigError(f"say which model of {self.url} is meant")
        if self.key_variable and not _VARIABLE.fullmatch(self.key_variable):  # it may be the key itself: not repeated
            raise ConfigError("key_variable must be the name of an environment variable, such as OPENAI_API_KEY")
        if self.concurrency < 1 or self.attempts < 1 or self.timeout <= 0:
            raise ConfigError("concurrency and attempts must be 1 or more, the timeout above 0")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request: a path below the base, its fields, and pictures (PNG) to send as files; `limit`: bytes it may
    answer."""

    path: str
    fields: Mapping[str, Any]
    pictures: tuple[bytes, ...] = field(default=(), repr=False)
    limit: int = WORDS_LIMIT

    @cached_property
    def body(self) -> tuple[bytes, str]:
        """The bytes and their content type: JSON, or a form where there are files."""
        if not self.pictures:
            return json.dumps(self.fields, sort_keys=True).encode(), "application/json"
        name = "image" if len(self.pictures) == 1 else "image[]"
        parts = [_part(key, _plain(value).encode()) for key, value in sorted(self.fields.items())]
        parts += [_part(name, picture, f"{number}.png") for number, picture in enumerate(self.pictures)]
        line = sha256(b"".join(parts)).hexdigest()  # equal requests are equal bytes, and no field can know it
        content = b"".join(f"--{line}\r\n".encode() + part for part in parts) + f"--{line}--\r\n".encode()
        return content, f"multipart/form-data; boundary={line}"


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[T]):
    """What came back: its value, and what it took. `usages`: what the endpoint told of each reply, also of those that
    could not be used."""

    value: T
    usages: tuple[Mapping[str, Any], ...]
    attempts: int
    seconds: float


class NoAnswer(Exception):
    """A request that nobody answered as it must be: why, after how many attempts, with which `usages`."""

    def __init__(self, problem: str, attempts: int, usages: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(problem if attempts == 1 else f"{problem}, {attempts} times")
        self.attempts, self.usages = attempts, tuple(usages)


class Unusable(Exception):
    """An answer whose content is not what was asked for; the endpoint is asked again."""


class _Again(Exception):
    """Something that may pass; `after` is what the server asks to wait, in seconds."""

    def __init__(self, problem: str, after: float | None = None) -> None:
        super().__init__(problem)
        self.after = after


class _Never(Exception):
    """Something that will not."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the redirect itself is the answer, an error."""


class Endpoint:
    """One model behind one address. Threads may share it; `sleep` and `seed` are for the pauses before retries."""

    def __init__(
        self, options: EndpointOptions, *, sleep: Callable[[float], object] = time.sleep, seed: int = 0
    ) -> None:
        self.options, self._sleep, self._random = options, sleep, random.Random(seed)
        self.name = f"{options.url.rstrip('/')}#{options.model}"
        self._key = os.environ.get(options.key_variable, "") if options.key_variable else ""
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._places = threading.BoundedSemaphore(options.concurrency)

    def digest(self, call: Call) -> str:
        """The name of a request: equal for equal words and pictures to the same model."""
        content, _ = call.body
        return sha256(f"{self.name}\n{call.path}\n".encode() + content).hexdigest()

    def post(self, call: Call, read: Callable[[Any], T]) -> Answer[T]:
        """Ask until `read` can make use of the JSON that comes back. What `read` cannot use it may say by `Unusable`.

        Raises:
            NoAnswer: not answered, or not usably, as often as may be asked.
            ConfigError: the endpoint refuses the key, or knows no such model.
        """
        start, problem, after = time.monotonic(), "", None
        usages: list[Mapping[str, Any]] = []
        for attempt in range(1, self.options.attempts + 1):
            if attempt > 1:
                self._sleep(self._pause(attempt - 2, after))
            try:
                with self._places:
                    reply = self._once(call)
                usages.append(_usage(reply))
                value, seconds = _read(reply, read), time.monotonic() - start
                return Answer(value=value, usages=tuple(usages), attempts=attempt, seconds=seconds)
            except _Never as error:
                raise NoAnswer(str(error), attempt, usages) from None
            except _Again as again:
                problem, after = str(again), again.after
        raise NoAnswer(problem, self.options.attempts, usages)

    def _pause(self, attempt: int, after: float | None) -> float:
        """What the server asks for, else 1, 2, 4 ... seconds, with up to half as much again so that not all come at
        once."""
        return min(MAX_WAIT, (2.0**attempt if after is None else after) * (1 + self._random.random() / 2))

    def _once(self, call: Call) -> Any:
        try:
            return self._parsed(self._send(call))
        except urllib.error.HTTPError as error:
            with error:
                self._refuse(error)
        except (OSError, HTTPException) as error:
            raise _Again(_kind(error)) from None

    def _send(self, call: Call) -> bytes:
        """The answer's bytes, all of them there before the time is over."""
        content, kind = call.body
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        url = f"{self.options.url.rstrip('/')}/{call.path}"
        request = urllib.request.Request(url, content, headers, method="POST")
        end = time.monotonic() + self.options.timeout
        with self._opener.open(request, timeout=self.options.timeout) as response:
            pieces, size = [], 0
            while piece := response.read1(2**16):
                pieces.append(piece)
                size += len(piece)
                if size > call.limit:
                    raise _Again("an answer without end")
                if time.monotonic() > end:
                    raise TimeoutError
        return b"".join(pieces)

    def _parsed(self, content: bytes) -> Any:
        try:
            value = json.loads(content)
            if len(self._key) < SECRET_FROM:
                return value
            text = json.dumps(value, ensure_ascii=False)
            return json.loads(text.replace(self._key, "[key]")) if self._key in text else value
        except (ValueError, RecursionError):
            raise _Again("an answer of another shape") from None

    def _refuse(self, error: urllib.error.HTTPError) -> None:
        """What an HTTP error means. Of its body nothing is told but the message to a bad request, without the key."""
        if error.code in _REFUSED:
            hint = f"see its model, and the variable {self.options.key_variable or '(key_variable is not given)'}"
            raise ConfigError(f"{self.name} {_REFUSED[error.code]} (HTTP {error.code}); {hint}") from None
        if error.code == 429 or error.code >= 500:
            raise _Again(f"HTTP {error.code}", _seconds(error.headers.get("Retry-After"))) from None
        if 300 <= error.code < 400:
            raise _Never(f"HTTP {error.code}; a redirect is not followed") from None
        raise _Never(f"HTTP {error.code}{self._message(error)}") from None

    def _message(self, error: urllib.error.HTTPError) -> str:
        try:
            return f" ({' '.join(str(self._parsed(error.read(2**16))['error']['message']).split())[:200]})"
        except (_Again, OSError, HTTPException, KeyError, TypeError):
            return ""


def _read(reply: Any, read: Callable[[Any], T]) -> T:
    try:
        return read(reply)
    except Unusable as error:
        raise _Again(f"an unusable answer ({error})") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _Again("an answer of another shape") from None


def _usage(reply: Any) -> Mapping[str, Any]:
    usage = reply.get("usage") if isinstance(reply, dict) else None
    return usage if isinstance(usage, dict) else {}


def _part(name: str, content: bytes, file: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    head += f'; filename="{file}"\r\nContent-Type: image/png' if file else ""
    return f"{head}\r\n\r\n".encode() + content + b"\r\n"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kind(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(error, TimeoutError) or isinstance(reason, TimeoutError):
        return "too slow"
    return f"no connection ({type(reason).__name__})"


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; its other form, a date, counts as not said."""
    return float(value) if value and value.strip().isdecimal() else None
