"""A local endpoint that speaks OpenAI's chat protocol, as badly as it is told to."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

from PIL import Image
from tests.local_server import Request, Response, serving


@dataclass
class Reply:
    """What the endpoint does with one request; `echo` puts the request's key into the answer, `slow` waits first.

    With `sees` it looks: yes where the picture's colour is the one that the question names.
    """

    status: int = 200
    text: str | None = "yes"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    echo: bool = False
    sees: bool = False
    slow: float = 0.0
    logprobs: list[tuple[str, float]] | None = None
    tokens: list[Any] | None = None  # stands for what is made of `logprobs`


@dataclass
class Stub:
    """The endpoint: what it was asked, and what it does next (the last reply goes on forever)."""

    replies: list[Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, path: str, key: str, body: bytes) -> Reply:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.paths.append(path)
            self.keys.append(key)
            self.requests.append(json.loads(body) if body else {})
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def leave(self) -> None:
        with self._lock:
            self._at_once -= 1


def looked(request: dict[str, Any]) -> str:
    picture, words = request["messages"][0]["content"]
    data = base64.b64decode(picture["image_url"]["url"].split(",")[1])
    red, _, blue = Image.open(BytesIO(data)).convert("RGB").tobytes()[:3]
    return "yes" if ("red" if red > blue else "blue") in words["text"] else "no"


def content(reply: Reply, key: str, request: dict[str, Any]) -> bytes:
    if reply.body is not None:
        return reply.body
    if reply.sees:
        reply = replace(reply, text=looked(request))
    text = f"{reply.text} {key}" if reply.echo else reply.text
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
    if reply.logprobs is not None:
        top = [{"token": token, "logprob": logprob} for token, logprob in reply.logprobs]
        choice["logprobs"] = {"content": [{"token": top[0]["token"], "top_logprobs": top}]}
    if reply.tokens is not None:
        choice["logprobs"] = {"content": reply.tokens}
    return json.dumps({"choices": [choice]}).encode()


@contextmanager
def endpoint(*replies: Reply) -> Iterator[Stub]:
    """Serve these replies, one after the other."""
    stub = Stub(replies=list(replies))

    def answer(request: Request) -> Response:
        reply = stub.enter(request.path, request.key, request.body)
        time.sleep(reply.slow)
        stub.leave()  # before the answer, upon which the next request may come at once
        return Response(content(reply, request.key, stub.requests[-1]), reply.status, reply.headers)

    with serving(answer) as url:
        stub.url = f"{url}/v1"
        yield stub
