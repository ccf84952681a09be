"""A local HTTP server whose answers a test makes up."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request; `key` is its bearer token, `kind` its content type."""

    path: str
    key: str
    kind: str
    body: bytes


@dataclass(frozen=True)
class Response:
    """What goes back."""

    content: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def serving(answer: Callable[[Request], Response]) -> Iterator[str]:
    """Serve until the block ends; gives the server's address. Each request is answered in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            response = answer(Request(self.path, key, self.headers.get("Content-Type", ""), body))
            try:
                self.send_response(response.status)
                for name, value in {**response.headers, "Content-Length": str(len(response.content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(response.content)
            except OSError:
                pass  # whoever asked has gone

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
