"""A client of OpenAI-compatible endpoints, over httpx: one request there, one JSON value back, or why there is none.

What can pass is tried again: 429, 5xx, a broken connection, an answer that is no JSON or not what was asked for. What
cannot is not: a 400 leaves its request without an answer, a refused key or an unknown model is the user's error.
Redirects are never followed, since they would carry the key elsewhere. The key comes from an environment variable, and
is masked in whatever comes back. Replies come in one form, whichever of the usual ones a server writes.
"""

import asyncio
import ipaddress
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from twgi.errors import ConfigError, DataError
from twgi.files import parse_json
from twgi.replies import Unusable, code_of, complaint, in_one_form, masked

if TYPE_CHECKING:
    import ssl

    import httpx

T = TypeVar("T")
CHAT, GENERATE, EDIT = "chat/completions", "images/generations", "images/edits"
WORDS_LIMIT = 2**20  # bytes of an answer in words
SECRET_FROM = 8  # characters; a shorter key is a placeholder for a local server, and may be part of any answer
MAX_WAIT = 60.0  # seconds before a retry, whatever the server asks for
GRACE = 0.5  # seconds that requests on their way have left once nobody waits for more
FEW = 5  # `top_logprobs` that every server gives which gives any
_OURS = ("model", "messages", "prompt", "image", "image[]", "modalities", "stream", "n")  # fields nobody may set
_REFUSED = {401: "refuses the key", 403: "refuses the key", 404: "knows no such address or model"}
_PASSES = (408, 425, 429)  # HTTP 4xx that may pass
_UNKNOWN = re.compile("max_completion_tokens|(?i:unsupported|not supported|unknown|unrecogni[sz]ed|not permitted)")


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """How to ask an endpoint."""

    url: str  # its base, such as https://host/v1
    model: str  # the name it has there
    key_variable: str = ""  # environment variable that holds the key; where it is not set, none is sent
    concurrency: int = 8  # requests at a time
    attempts: int = 5  # how often a request is sent at most
    timeout: float = 60.0  # seconds for one attempt, from its start to the last byte
    parameters: dict[str, Any] = field(default_factory=dict)  # further fields of each request, such as `size`

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and (parts.hostname or "").encode("idna") and parts.port != 0
            good = good and self.url.isprintable() and " " not in self.url
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
        if self.concurrency < 1 or self.attempts < 1 or not 0 < self.timeout < math.inf:
            raise ConfigError("concurrency and attempts must be 1 or more, the timeout above 0 and finite")
        if not isinstance(self.parameters, dict):
            raise ConfigError("parameters must be key: value")
        for key in self.parameters:
            if key in _OURS or not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", key):
                raise ConfigError(f"parameters may not hold {key!r}")
        try:
            json.dumps(self.parameters, allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigError("parameters must be what JSON can hold: texts, numbers, true, false, lists") from None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request: a path below the base, its fields, pictures (PNG) to send as files, the most bytes of its answer.

    Fields in `optional` are left out where the model refuses them.
    """

    path: str
    fields: Mapping[str, Any]
    optional: tuple[str, ...] = ()
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
        return {"data": {key: text.encode(errors="replace").decode() for key, text in plain.items()}, "files": files}


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
        super().__init__(problem)
        self.attempts, self.usages = attempts, tuple(usages)


class _Left(Unusable):
    """A field was refused, and is not sent again."""


class Endpoint:
    """One model behind one address. Threads may share it; `sleep` and `seed` are for the pauses before retries.

    Raises `ConfigError` where httpx is not installed, the address or a proxy's is none, or the key is none that can be
    sent.
    """

    def __init__(
        self, options: EndpointOptions, *, sleep: Callable[[float], object] | None = None, seed: int = 0
    ) -> None:
        self._over, self._deadlines = threading.Event(), set[asyncio.Timeout]()
        self.options, self._random = options, random.Random(seed)
        self._sleep = self._over.wait if sleep is None else sleep
        self.name = f"{options.url.rstrip('/')}#{options.model}"
        self._key = os.environ.get(options.key_variable, "").strip()
        if not re.fullmatch("[!-~]*", self._key):
            raise ConfigError(f"{options.key_variable} holds no key: it has signs that none can have")
        self._secret = self._key if len(self._key) >= SECRET_FROM else ""
        if self._secret and self._secret in self.name + json.dumps(options.parameters):
            raise ConfigError(f"the key of {options.key_variable} belongs into no address, model or parameter")
        self._refused: tuple[str, ...] = ()
        self._places, self._loop = threading.BoundedSemaphore(options.concurrency), _loop()
        self._client()

    def stop(self) -> None:
        """Ask nothing more: pauses end now, what is on its way in `GRACE` seconds, with an answer or none."""
        self._over.set()
        self._loop.call_soon_threadsafe(self._hurry)

    def _hurry(self) -> None:
        for deadline in self._deadlines:
            deadline.reschedule(min(deadline.when() or math.inf, self._loop.time() + GRACE))

    def digest(self, call: Call) -> str:
        """The name of a request: equal for equal words and pictures to the same model."""
        pictures = "".join(f"\n{sha256(picture).hexdigest()}" for picture in call.pictures)
        return sha256(f"{self.name}\n{call.path}\n".encode() + call.words + pictures.encode()).hexdigest()

    def post(self, call: Call, read: Callable[[Any], T]) -> Reply[T]:
        """Ask until `read` can make use of the JSON that comes back. What `read` cannot use it may say by `Unusable`.

        Raises `NoAnswer` where it is not answered, or not usably, as often as may be asked, or `stop` was called, and
        `ConfigError` where the endpoint refuses the key, or knows no such model.
        """
        start, attempts, failures, usages = time.monotonic(), 0, 0, list[Mapping[str, Any]]()
        while True:
            try:
                with self._places:
                    if self._over.is_set():
                        raise NoAnswer("stopped", attempts, usages)
                    attempts += 1
                    value = self._once(call)
                usage = value.get("usage") if isinstance(value, dict) else None
                usages.append(usage if isinstance(usage, dict) else {})
                used, seconds = _read(value, read), time.monotonic() - start
                return Reply(value=used, usages=tuple(usages), attempts=attempts, seconds=seconds)
            except _Left:
                continue
            except Unusable as error:
                failures += 1
                if error.final or failures == self.options.attempts:
                    times = "" if error.final or failures == 1 else f", {failures} times"
                    raise NoAnswer(f"{error}{times}", attempts, usages) from None
                pause = 2.0 ** (failures - 1) if error.after is None else error.after
                self._sleep(min(MAX_WAIT, pause * (1 + self._random.random() / 2)))  # so that not all come at once

    def _once(self, call: Call) -> Any:
        import httpx

        refused = self._refused
        call = replace(call, fields=_without(call.fields, refused))
        try:
            status, content = asyncio.run_coroutine_threadsafe(self._send(call), self._loop).result()
        except TimeoutError:
            raise Unusable("too slow") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:  # its text may hold the key
            cause: BaseException = error
            while below := cause.__cause__ or cause.__context__:
                cause = below
            raise Unusable(f"no connection ({type(cause).__name__})") from None
        try:
            value = self._parsed(content)
        except Unusable:
            if status < 300:
                raise
            raise Unusable(f"HTTP {status}", final=True) from None
        said = complaint(value, failed=status >= 300)
        if status < 300:
            if said is None:
                return value
            code = code_of(value)
            raise Unusable(f"an error with HTTP 200 ({said})", final=400 <= code < 500 and code not in _PASSES)
        if status in (400, 422) and (field := _to_leave(call, said or "")) is not None:
            if refused == self._refused:  # else another thread has heard the same
                self._refused = (*refused, field)
            raise _Left("")
        raise Unusable(f"HTTP {status} ({said[:200]})" if said else f"HTTP {status}", final=True)

    async def _send(self, call: Call) -> tuple[int, bytes]:
        """The status and the answer's bytes, all of them there before the time is over. Runs in the common loop."""
        body = call.body()
        headers = {"Accept-Encoding": "identity", **body.pop("headers", {})}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        url, content = f"{self.options.url.rstrip('/')}/{call.path}", bytearray()
        async with asyncio.timeout(self.options.timeout) as deadline:
            self._deadlines.add(deadline)
            try:
                if self._over.is_set():
                    self._hurry()
                async with self._client() as client, client.stream("POST", url, headers=headers, **body) as response:
                    self._refuse(response.status_code, response.headers.get("Retry-After", ""))
                    async for piece in response.aiter_raw():
                        content += piece
                        if len(content) > call.limit:
                            if response.is_success:
                                raise Unusable("an answer without end")
                            break
            finally:
                self._deadlines.discard(deadline)
        return response.status_code, bytes(content)

    def _client(self) -> "httpx.AsyncClient":
        """A client without a limit for each step, as there is one for the whole. Nothing to this machine itself goes
        through a proxy."""
        trusted = _trusted()
        import httpx

        try:
            httpx.URL(self.options.url)
            outside = not _is_here(urlsplit(self.options.url).hostname or "")
            return httpx.AsyncClient(verify=trusted, timeout=None, trust_env=outside)
        except httpx.InvalidURL:
            raise ConfigError("an endpoint's address, or that of a proxy in the environment, is none") from None
        except (ValueError, ImportError):  # the proxy's address may hold a password
            raise ConfigError("the proxy that the environment names (http_proxy, all_proxy) cannot be used") from None

    def _parsed(self, content: bytes) -> Any:
        """The JSON value, in one form, without the key."""
        try:
            value = in_one_form(parse_json(content.decode(json.detect_encoding(content))))
            return masked(value, self._secret)
        except (ValueError, DataError, RecursionError):
            raise Unusable("an answer of another shape") from None

    def _refuse(self, status: int, after: str) -> None:
        """What an HTTP error means whose body is not read. Retry-After as a date counts as not said."""
        if status in _REFUSED:
            hint = f"see its model, and the variable {self.options.key_variable or '(key_variable is not given)'}"
            raise ConfigError(f"{self.name} {_REFUSED[status]} (HTTP {status}); {hint}")
        if status in _PASSES or status >= 500:
            raise Unusable(f"HTTP {status}", after=float(after) if after.strip().isdecimal() else None)
        if 300 <= status < 400:
            raise Unusable(f"HTTP {status}; a redirect is not followed", final=True)


def _to_leave(call: Call, said: str) -> str | None:
    """The field of a request that a complaint is about and that can be sent otherwise, or left out."""
    names = ("max_tokens", *call.optional) if _UNKNOWN.search(said) else call.optional
    return next((name for name in names if name in call.fields and re.search(rf"\b{name}\b", said)), None)


def _without(fields: Mapping[str, Any], refused: Sequence[str]) -> Mapping[str, Any]:
    """Fields of a request as the model takes them: one that it refused has its newer name, asks for less, or is left
    out."""
    for name in refused:
        if name not in fields:
            continue
        rest = {key: value for key, value in fields.items() if key != name}
        if name == "max_tokens":
            rest["max_completion_tokens"] = fields[name]
        elif name.endswith("logprobs"):
            rest = {key: value for key, value in fields.items() if not key.endswith("logprobs")}
            if isinstance(many := fields.get("top_logprobs"), int) and many > FEW:
                rest |= {"logprobs": True, "top_logprobs": FEW}
        fields = rest
    return fields


def _is_here(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost")
    return address.is_loopback or address.is_unspecified


class _Lookups(ThreadPoolExecutor):
    """Looks up names, each in a thread that holds nobody back at the end."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future = Future[Any]()

        def look() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(*args, **options))
                except BaseException as error:
                    future.set_exception(error)

        threading.Thread(target=look, daemon=True).start()
        return future


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Where all requests run: in a thread that holds nobody back at the end."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_Lookups())
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


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
        raise Unusable(f"an unusable answer ({error})", after=error.after, final=error.final) from None
    except (ArithmeticError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise Unusable("an answer of another shape") from None
