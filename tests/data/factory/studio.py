"""A local endpoint that speaks OpenAI's protocol for words and pictures, plays every role, and fails as told."""

import base64
import email
import email.policy
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from typing import Any

from PIL import Image
from tests.local_server import Request, Response, serving

PROMPTS = ("a red cube and a blue ball", "a red cube, and a blue ball!", "a cat beside a dog", "a bird above a tree")


@dataclass
class Reply:
    """What the studio does with one request: `slow` waits first, `body` stands for the real answer, `echo` adds the
    request's key to it."""

    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    slow: float = 0.0
    echo: bool = False


@dataclass(frozen=True)
class Asked:
    """One request: its path, the key it came with, its words, its other fields, and the pictures in it."""

    path: str
    key: str
    words: str
    fields: dict[str, Any]
    pictures: tuple[bytes, ...]


Trouble = Callable[[Asked, int], Reply | None]
"""(the request, how many came before it) -> what goes wrong; None: nothing."""


@dataclass
class Studio:
    """The endpoint, what it was asked, and what goes wrong with it."""

    trouble: Trouble = lambda asked, number: None
    score: Callable[[str], float] = lambda words: 9
    matches: bool = False
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, words: str) -> int:
        """How many requests had these words in them."""
        return sum(words in asked.words for asked in self.asked)

    def enter(self, asked: Asked) -> Reply:
        with self._lock:
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)
            self.asked.append(asked)
            number = len(self.asked) - 1
        return self.trouble(asked, number) or Reply()

    def leave(self) -> None:
        with self._lock:
            self._busy -= 1

    def answer(self, asked: Asked) -> dict[str, Any]:
        """What a good model would say, or draw."""
        if asked.path.startswith("/v1/images/"):
            usage = {"input_tokens": 7, "output_tokens": 100}
            return {"created": 0, "data": [{"b64_json": base64.b64encode(painted(asked)).decode()}], "usage": usage}
        if "modalities" in asked.fields:
            url = f"data:image/png;base64,{base64.b64encode(painted(asked)).decode()}"
            message = {"content": "Here it is.", "images": [{"type": "image_url", "image_url": {"url": url}}]}
        else:
            message = {"content": f"Gladly.\n```json\n{json.dumps(self.say(asked))}\n```"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        return {"choices": [{"index": 0, "message": {"role": "assistant", **message}}], "usage": usage}

    def say(self, asked: Asked) -> dict[str, Any]:
        words = asked.words
        if '"prompts"' in words:
            return {"prompts": list(PROMPTS)}
        if '"parts"' in words:
            return {"parts": re.split(r" and | beside | above ", words.split("\n")[0].split(": ")[1])}
        if '"steps"' in words:
            parts = [f"Now comes part {number}." for number in range(1, len(asked.pictures))]
            return {"steps": [*parts, "Now the whole picture."]}
        if '"matches"' in words:
            faults = {"faults": "", "change": ""} if self.matches else {"faults": "No ball.", "change": "Add a ball."}
            return {"matches": self.matches, "fits": "The cube is red.", **faults}
        assert '"score"' in words
        return {"score": self.score(words), "reason": "All of it is there."}


def painted(asked: Asked) -> bytes:
    """A plain picture whose colour hangs on the request."""
    color = tuple(sha256(asked.words.encode() + b"".join(asked.pictures)).digest()[:3])
    buffer = BytesIO()
    Image.new("RGB", (24, 16), color).save(buffer, "PNG")
    return buffer.getvalue()


def _asked(path: str, key: str, kind: str, body: bytes) -> Asked:
    if kind.startswith("multipart/form-data"):
        return _form(path, key, kind, body)
    fields = json.loads(body)
    if "messages" not in fields:
        return Asked(path, key, fields["prompt"], fields, ())
    content = fields["messages"][0]["content"]
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    words = "".join(part["text"] for part in parts if part["type"] == "text")
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return Asked(path, key, words, fields, tuple(base64.b64decode(url.split(",")[1]) for url in urls))


def _form(path: str, key: str, kind: str, body: bytes) -> Asked:
    """A form, read by the standard library's reader of mail."""
    mail = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body, policy=email.policy.HTTP)
    fields: dict[str, Any] = {}
    pictures: list[bytes] = []
    for part in mail.iter_parts():
        name, content = str(part.get_param("name", header="content-disposition")), part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename():
            pictures.append(content)
            fields.setdefault("files", []).append((name, part.get_content_type()))
        else:
            fields[name] = content.decode()
    return Asked(path, key, fields["prompt"], fields, tuple(pictures))


@contextmanager
def studio(**behaviour: Any) -> Iterator[Studio]:
    """Have one running."""
    served = Studio(**behaviour)

    def answer(request: Request) -> Response:
        asked = _asked(request.path, request.key, request.kind, request.body)
        reply = served.enter(asked)
        time.sleep(reply.slow)
        data = reply.body if reply.body is not None else json.dumps(served.answer(asked)).encode()
        served.leave()
        data = data.replace(b"Gladly.", request.key.encode()) if reply.echo else data
        return Response(data, reply.status, reply.headers)

    with serving(answer) as url:
        served.url = f"{url}/v1"
        yield served
