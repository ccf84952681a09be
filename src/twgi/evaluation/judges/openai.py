"""The judge behind an OpenAI-compatible endpoint (`/v1/chat/completions`): a picture and a question there, a word back.

What can pass is tried again: 429, 5xx, a broken connection, an answer that is no JSON. What cannot is not: a 400
leaves its question without an answer, a refused key or an unknown model stops the run. Redirects are never followed,
since they would carry the key elsewhere. The key comes from an environment variable and appears in no row, no message
and no cache.
"""

import base64
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from twgi.errors import ConfigError, RunError
from twgi.evaluation.judges.answer import Answer, Query, failed, instruction, spellings, understood
from twgi.trace import png

KEY = "TWGI_JUDGE_KEY"
MAX_ANSWER_BYTES = 2**20
MAX_WAIT = 60.0  # seconds before a retry, whatever the server asks for
STOP_AFTER = 50  # questions in a row without an answer: the endpoint is down, and --resume can go on later
_REFUSED = {401: "refuses the key", 403: "refuses the key", 404: "knows no such address or model"}


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """How to ask an endpoint.

    Args:
        url: its base, such as ``https://host/v1``.
        model: the name it has there.
        key_variable: environment variable that holds the key; where it is not set, none is sent.
        concurrency: questions at a time.
        attempts: how often a question is asked at most.
        timeout: seconds for one attempt, from its start to the last byte.
        logprobs: ask for probabilities as well (Soft-TIFA needs them; not every server has them).
    """

    url: str
    model: str
    key_variable: str = KEY
    concurrency: int = 8
    attempts: int = 5
    timeout: float = 60.0
    logprobs: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"the judge's address must be like https://host/v1, got {parts.hostname or self.url!r}")
        if parts.username or parts.password:
            raise ConfigError(f"put no password into the judge's address; set {self.key_variable} instead")
        if not self.model:
            raise ConfigError("say which model is the judge: openai:https://host/v1#MODEL")
        if self.concurrency < 1 or self.attempts < 1 or self.timeout <= 0:
            raise ConfigError("concurrency and attempts must be 1 or more, the timeout above 0")


class _Again(Exception):
    """Something that may pass; `after` is what the server asks to wait, in seconds."""

    def __init__(self, problem: str, after: float | None = None) -> None:
        super().__init__(problem)
        self.after = after


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the redirect itself is the answer, an error."""


class OpenAIJudge:
    """A vision-language model behind an endpoint; `sleep` and `seed` are for tests."""

    version = "1"  # of our words to it; what runs behind an address, nobody can tell
    needs_test = True

    def __init__(self, options: EndpointOptions, *, sleep: Callable[[float], None] = time.sleep, seed: int = 0) -> None:
        self.options, self._sleep, self._random = options, sleep, random.Random(seed)
        self.name = f"openai:{options.url.rstrip('/')}#{options.model}"
        self._key = os.environ.get(options.key_variable, "")
        self._opener = urllib.request.build_opener(_NoRedirects)

    def answer(self, queries: Iterable[Query]) -> Iterator[tuple[Query, Answer]]:
        """Up to `concurrency` questions at a time.

        Raises:
            ConfigError: the endpoint refuses the key, or knows no such model.
            RunError: nothing but failures for a long while.
        """
        lost = 0
        pool = ThreadPoolExecutor(self.options.concurrency)
        try:
            for query, answer in _in_flight(pool, self._ask, queries, self.options.concurrency):
                lost = 0 if answer.problem is None else lost + 1
                yield query, answer
                if lost >= STOP_AFTER:
                    raise RunError(f"{self.name}: {lost} questions in a row without an answer ({answer.problem})")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, query: Query) -> Answer:
        problem = "no attempt"
        for attempt in range(self.options.attempts):
            try:
                return self._once(query)
            except _Again as again:
                problem = str(again)
                if attempt + 1 < self.options.attempts:
                    self._sleep(self._pause(attempt, again.after))
        return failed(f"{problem}, {self.options.attempts} times")

    def _pause(self, attempt: int, after: float | None) -> float:
        """What the server asks for, else 1, 2, 4 ... seconds, with up to half as much again so that not all come at
        once."""
        return min(MAX_WAIT, (2.0**attempt if after is None else after) * (1 + self._random.random() / 2))

    def _once(self, query: Query) -> Answer:
        try:
            content = self._post(self._body(query))
        except urllib.error.HTTPError as error:
            return self._refusal(error)
        except (OSError, HTTPException) as error:
            raise _Again(_kind(error)) from None
        try:
            choice = json.loads(content)["choices"][0]
            raw = choice["message"]["content"]
            if not isinstance(raw, str):
                raise TypeError
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise _Again("an answer of another shape") from None
        return understood(self._masked(raw), expected=query.expected, p_yes=_probability(choice, query.expected))

    def _refusal(self, error: urllib.error.HTTPError) -> Answer:
        """What an HTTP error means. Its body is not read: it may repeat the key."""
        with error:
            if error.code in _REFUSED:
                raise ConfigError(
                    f"{self.name} {_REFUSED[error.code]} (HTTP {error.code}); see {self._hint()}"
                ) from None
            if error.code == 429 or error.code >= 500:
                raise _Again(f"HTTP {error.code}", _seconds(error.headers.get("Retry-After"))) from None
            redirected = "; a redirect is not followed" if 300 <= error.code < 400 else ""
            return failed(f"HTTP {error.code}{redirected}")

    def _hint(self) -> str:
        return f"the variable {self.options.key_variable} and the name after #"

    def _post(self, body: Mapping[str, Any]) -> bytes:
        """The answer's bytes, all of them there before the time is over."""
        url = f"{self.options.url.rstrip('/')}/chat/completions"
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        end = time.monotonic() + self.options.timeout
        with self._opener.open(request, timeout=self.options.timeout) as response:
            content = b""
            while part := response.read1(2**16):
                content += part
                if len(content) > MAX_ANSWER_BYTES:
                    raise _Again("an answer without end")
                if time.monotonic() > end:
                    raise TimeoutError
        return content

    def _body(self, query: Query) -> dict[str, Any]:
        assert query.picture is not None
        data = base64.b64encode(png(query.picture.image)).decode()
        parts = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
            {"type": "text", "text": f"{query.question}\n{instruction(query.expected)}"},
        ]
        asked = {"logprobs": True, "top_logprobs": 20} if self.options.logprobs else {}
        messages = [{"role": "user", "content": parts}]
        return {"model": self.options.model, "messages": messages, "temperature": 0, "max_tokens": 8, **asked}

    def _masked(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _in_flight(
    pool: ThreadPoolExecutor, ask: Callable[[Query], Answer], queries: Iterable[Query], limit: int
) -> Iterator[tuple[Query, Answer]]:
    """Never more than `limit` questions (and their pictures) on their way."""
    waiting: dict[Future[Answer], Query] = {}
    coming = iter(queries)
    while True:
        for query in coming:
            waiting[pool.submit(ask, query)] = query
            if len(waiting) >= limit:
                break
        if not waiting:
            return
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield waiting.pop(future), future.result()


def _kind(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(error, TimeoutError) or isinstance(reason, TimeoutError):
        return "too slow"
    return f"no connection ({type(reason).__name__})"


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; its other form, a date, counts as not said."""
    return float(value) if value and value.strip().isdecimal() else None


def _probability(choice: Mapping[str, Any], expected: str) -> float | None:
    """Of the wanted answer as the first token, where the server tells."""
    import math

    try:
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        wanted = set(spellings(expected))
        return min(1.0, sum(math.exp(entry["logprob"]) for entry in top if entry["token"] in wanted))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None
