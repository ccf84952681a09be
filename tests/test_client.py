"""The client of endpoints: patient with what passes, honest about what does not, and silent about the key."""

import json
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import pytest
from tests.data.factory.studio import Asked, Reply, Studio, studio

from twgi.client import CHAT, EDIT, GENERATE, Call, Endpoint, EndpointOptions, NoAnswer, _trusted
from twgi.client import Reply as Got
from twgi.errors import ConfigError
from twgi.replies import Unusable

SECRET = "sk-very-secret"
QUESTION = Call(path=CHAT, fields={"messages": [{"role": "user", "content": '"score"'}]})


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and no proxy on the way to this machine."""
    monkeypatch.setenv("STUDIO_KEY", SECRET)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Waits(list[float]):
    """Stands for time.sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def endpoint(served: Studio, waits: Waits | None = None, **options: Any) -> Endpoint:
    settings = {"key_variable": "STUDIO_KEY", "timeout": 5.0, **options}
    return Endpoint(
        EndpointOptions(url=served.url, model="m", **settings), sleep=waits if waits is not None else Waits()
    )


def words(reply: Any) -> str:
    return str(reply["choices"][0]["message"]["content"])


def first(*troubles: Reply) -> Callable[[Any, int], Reply | None]:
    """These in turn, then nothing."""
    return lambda asked, number: troubles[number] if number < len(troubles) else None


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(status=429),
        Reply(status=500),
        Reply(status=503, body=b"<html>"),
        Reply(body=b"garbage"),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'["a list"]'),
        Reply(body=b"[" * 100_000),
        Reply(body=b"x" * (2**20 + 1)),
    ],
)
def test_what_passes_is_tried_again_after_a_longer_and_longer_pause(trouble: Reply) -> None:
    with studio(trouble=first(trouble, trouble)) as served:
        waits = Waits()
        answer = endpoint(served, waits).post(QUESTION, words)
    assert ("Gladly" in answer.value, answer.attempts, len(served.asked)) == (True, 3, 3)
    assert [1 <= waits[0] <= 1.5, 2 <= waits[1] <= 3] == [True, True]


def test_an_answer_that_its_reader_cannot_use_is_asked_for_again() -> None:
    def read(reply: Any) -> str:
        raise Unusable("no JSON object")

    with studio() as served, pytest.raises(NoAnswer, match=r"an unusable answer \(no JSON object\), 2 times") as error:
        endpoint(served, attempts=2).post(QUESTION, read)
    assert (error.value.attempts, len(served.asked)) == (2, 2)


@pytest.mark.parametrize(
    ("trouble", "problem"),
    [
        (Reply(status=429), "HTTP 429, 3 times"),
        (Reply(status=500), "HTTP 500, 3 times"),
        (Reply(body=b"garbage"), "an answer of another shape, 3 times"),
        (Reply(slow=0.6), "too slow, 3 times"),
    ],
)
def test_what_does_not_pass_is_said(trouble: Reply, problem: str) -> None:
    with studio(trouble=lambda asked, number: trouble) as served, pytest.raises(NoAnswer) as error:
        endpoint(served, attempts=3, timeout=0.2 if trouble.slow else 5.0).post(QUESTION, words)
    assert str(error.value) == problem
    assert len(served.asked) == 3


@contextmanager
def dripping(head: bytes, piece: bytes = b"x", times: int = 200) -> Iterator[str]:
    """A server that sends this, and then a piece now and then for as long as anybody listens."""

    class Drip(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.recv(2**16)
                self.request.sendall(head)
                for _ in range(times):
                    self.request.sendall(piece)
                    time.sleep(0.02)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"H"),
        (OK + b"X-Slow: ", b"x"),
        (OK, b"X-Slow: x\r\n"),
        (OK + b"\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (OK + CHUNKED + b"1;", b"x"),
        (OK + CHUNKED, b"1\r\n \r\n"),
        (OK + CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-Slow: x\r\n"),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 60000\r\n\r\n", b" "),
    ],
)
def test_the_time_is_that_of_the_whole_answer_however_it_drips(head: bytes, piece: bytes) -> None:
    with dripping(head, piece) as url:
        asking, start = Endpoint(EndpointOptions(url=url, model="m", attempts=1, timeout=0.3)), time.monotonic()
        with pytest.raises(NoAnswer, match=r"^too slow$"):
            asking.post(QUESTION, words)
        assert time.monotonic() - start < 1.0


def test_the_time_is_also_that_of_a_name_that_nobody_looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looking = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: looking.wait(20) and [])
    asking, start = (
        Endpoint(EndpointOptions(url="http://host.example/v1", model="m", attempts=1, timeout=0.2)),
        time.time(),
    )
    with pytest.raises(NoAnswer, match=r"^too slow$"):
        asking.post(QUESTION, words)
    assert time.time() - start < 1.0
    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    looking.set()


def test_who_stops_waits_for_no_answer_and_no_pause() -> None:
    with dripping(OK + b"X-Slow: ") as url, ThreadPoolExecutor(4) as pool:
        asking = Endpoint(EndpointOptions(url=url, model="m", concurrency=2))
        waiting = [pool.submit(asking.post, QUESTION, words) for _ in range(3)]
        time.sleep(0.1)
        start = time.monotonic()
        asking.stop()
        waiting.append(pool.submit(asking.post, QUESTION, words))
        problems = [future.exception() for future in waiting]
    assert time.monotonic() - start < 1.5
    assert [type(problem) for problem in problems] == [NoAnswer] * 4
    assert sorted(problem.attempts for problem in problems if isinstance(problem, NoAnswer)) == [0, 0, 1, 1]


def test_what_is_on_its_way_when_somebody_stops_still_has_a_moment() -> None:
    with studio(trouble=lambda asked, number: Reply(slow=0.2)) as served, ThreadPoolExecutor(1) as pool:
        asking = endpoint(served)
        waiting = pool.submit(asking.post, QUESTION, words)
        while not served.asked:
            time.sleep(0.01)
        asking.stop()
        assert "Gladly" in waiting.result().value


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\xff"}',
        b"[" * 10**5,
    ],
)
def test_an_answer_is_strict_json(body: bytes) -> None:
    with studio(trouble=first(Reply(body=body))) as served, pytest.raises(NoAnswer, match="of another shape"):
        endpoint(served, attempts=1).post(QUESTION, lambda reply: reply)


def test_an_answer_that_is_shorter_than_announced_is_none() -> None:
    with dripping(OK + b"Content-Length: 50\r\n\r\n{}", times=0) as url:
        asking = Endpoint(EndpointOptions(url=url, model="m", attempts=1))
        with pytest.raises(NoAnswer, match="no connection"):
            asking.post(QUESTION, lambda reply: reply)


@pytest.mark.parametrize(
    ("error", "problem", "asked"),
    [
        ({"message": "overloaded", "code": 503}, "an error with HTTP 200 (overloaded), 2 times", 2),
        ({"message": "bad picture", "code": "400"}, "an error with HTTP 200 (bad picture)", 1),
        ("out of credit", "an error with HTTP 200 (out of credit), 2 times", 2),
    ],
)
def test_an_error_with_a_good_status_is_told(error: Any, problem: str, asked: int) -> None:
    reply = Reply(body=json.dumps({"error": error}).encode())
    with studio(trouble=lambda asked, number: reply) as served, pytest.raises(NoAnswer) as told:
        endpoint(served, attempts=2).post(QUESTION, words)
    assert (str(told.value), len(served.asked)) == (problem, asked)


def picky(asked: Asked, number: int) -> Reply | None:
    """A server of a model that takes no sampling options, knows `max_tokens` by its newer name, and few `logprobs`."""
    wrong = {
        "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
        "temperature": "Unsupported value: 'temperature' does not support 0 with this model.",
    }
    said = next((text for name, text in wrong.items() if name in asked.fields), "")
    if not said and asked.fields.get("top_logprobs", 0) > 5:
        said = "Invalid value for 'top_logprobs': must be less than or equal to 5."
    return Reply(status=400, body=json.dumps({"error": {"message": said}}).encode()) if said else None


def test_a_field_that_the_model_refuses_is_sent_otherwise_and_only_once_refused() -> None:
    fields = {**QUESTION.fields, "max_tokens": 8, "temperature": 0, "logprobs": True, "top_logprobs": 20}
    call = Call(path=CHAT, fields=fields, optional=("temperature", "logprobs", "top_logprobs"))
    with studio(trouble=picky) as served:
        asking = endpoint(served, attempts=1)
        assert [asking.post(call, words).attempts for _ in range(2)] == [4, 1]
    sent = {key: value for key, value in served.asked[-1].fields.items() if key != "messages"}
    assert sent == {"max_completion_tokens": 8, "logprobs": True, "top_logprobs": 5}


def test_a_field_that_somebody_asked_for_is_not_left_out() -> None:
    call = Call(path=CHAT, fields={**QUESTION.fields, "temperature": 1})
    with studio(trouble=picky) as served, pytest.raises(NoAnswer, match="'temperature' does not support"):
        endpoint(served).post(call, words)
    assert len(served.asked) == 1


def test_an_address_where_nobody_is_gives_no_answer() -> None:
    with studio() as served:
        gone = endpoint(served, attempts=1)
    with pytest.raises(NoAnswer, match=r"^no connection \(ConnectionRefusedError\)$"):
        gone.post(QUESTION, words)


def test_the_server_may_say_how_long_to_wait_up_to_a_minute() -> None:
    asked = ("7", "9999", "Wed, 21 Oct 2026 07:28:00 GMT")
    with studio(trouble=first(*(Reply(status=429, headers={"Retry-After": wait}) for wait in asked))) as served:
        waits = Waits()
        endpoint(served, waits).post(QUESTION, words)
    assert 7 <= waits[0] <= 10.5
    assert waits[1] == 60
    assert 4 <= waits[2] <= 6  # a date is no number of seconds: the usual pause


def test_a_bad_request_is_not_tried_again_and_its_message_is_told_without_the_key() -> None:
    body = json.dumps({"error": {"message": f"no such size\nfor {SECRET}"}}).encode()
    with studio(trouble=first(Reply(status=400, body=body))) as served, pytest.raises(NoAnswer) as error:
        endpoint(served).post(QUESTION, words)
    assert str(error.value) == "HTTP 400 (no such size for [key])"
    assert len(served.asked) == 1


def test_a_bad_request_with_a_message_without_end_is_not_tried_again() -> None:
    endless = first(Reply(status=400, body=b"x" * 2**21))
    with studio(trouble=endless) as served, pytest.raises(NoAnswer, match=r"^HTTP 400$"):
        endpoint(served).post(QUESTION, words)
    assert len(served.asked) == 1


@pytest.mark.parametrize(("status", "problem"), [(401, "refuses the key"), (403, "refuses the key"), (404, "no such")])
def test_a_refused_key_or_an_unknown_model_is_the_users_error(status: int, problem: str) -> None:
    trouble = first(Reply(status=status, body=SECRET.encode()))
    with studio(trouble=trouble) as served, pytest.raises(ConfigError, match=problem) as error:
        endpoint(served).post(QUESTION, words)
    assert SECRET not in str(error.value)


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    _trusted.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'twgi\[eval\]'"):
        Endpoint(EndpointOptions(url="http://host/v1", model="m"))


def test_what_an_answer_took_is_told_with_the_replies_that_could_not_be_used() -> None:
    refused = Reply(body=b'{"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 99}}')
    with studio(trouble=first(refused, Reply(status=500), Reply(body=b'{"choices": [], "usage": 1}'))) as served:
        answer: Got[str] = endpoint(served).post(QUESTION, words)
        served.trouble = lambda asked, number: refused
        with pytest.raises(NoAnswer) as error:
            endpoint(served, attempts=2).post(QUESTION, words)
    told = [{"prompt_tokens": 10, "completion_tokens": tokens} for tokens in (99, 5)]
    assert list(answer.usages) == [told[0], {}, told[1]]
    assert list(error.value.usages) == [told[0]] * 2
    assert 0 < answer.seconds < 5


@pytest.mark.parametrize("count", [1, 2])
def test_pictures_go_out_as_the_files_of_a_form(count: int) -> None:
    pictures = tuple(b"\x89PNG\r\n--" + bytes([number]) for number in range(count))
    call = Call(path=EDIT, fields={"prompt": 'a "red" cube\r\nä', "n": 1}, pictures=pictures)
    with studio() as served:
        endpoint(served).post(call, lambda reply: reply["data"])
    (asked,) = served.asked
    assert (asked.path, asked.words, asked.fields["n"]) == ("/v1/images/edits", 'a "red" cube\r\nä', "1")
    assert asked.pictures == pictures
    assert set(asked.fields["files"]) == {("image" if count == 1 else "image[]", "image/png")}


def test_requests_are_told_apart_by_everything_that_is_in_them() -> None:
    one = EndpointOptions(url="http://host/v1", model="m")
    others = [EndpointOptions(url="http://host/v2", model="m"), EndpointOptions(url="http://host/v1", model="n")]
    calls = [
        Call(path=path, fields={"prompt": prompt}, pictures=pictures)
        for path in (GENERATE, EDIT)
        for prompt in ("a", "b")
        for pictures in ((), (b"1",), (b"2",), (b"1", b"2"), (b"12",))
    ]
    digests = {Endpoint(options).digest(call) for options in (one, *others) for call in calls}
    assert len(digests) == 3 * len(calls)
    assert Endpoint(one).digest(Call(path=CHAT, fields={"a": 1, "b": 2})) == Endpoint(
        EndpointOptions(url="http://host/v1/", model="m", timeout=1.0)
    ).digest(Call(path=CHAT, fields={"b": 2, "a": 1}))


def test_no_more_requests_are_on_their_way_than_wanted() -> None:
    with studio(trouble=lambda asked, number: Reply(slow=0.03)) as served:
        asking = endpoint(served, concurrency=2)
        threads = [Thread(target=asking.post, args=(QUESTION, words)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(served.asked), served.most_at_once) == (8, 2)
