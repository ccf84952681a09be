"""The judge behind an endpoint: patient with what passes, honest about what does not, and silent about the key."""

import base64
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.evaluation.judges.stub import Reply, Stub, endpoint

from twgi.errors import ConfigError, RunError
from twgi.evaluation.judges.answer import Answer, Picture, Query
from twgi.evaluation.judges.cache import AnswerBook
from twgi.evaluation.judges.openai import KEY, JudgeOptions, OpenAIJudge

SECRET = "sk-very-secret"
PICTURE = Picture(image=Image.new("RGB", (4, 2), (200, 10, 10)))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and no proxy on the way to this machine."""
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Waits(list[float]):
    """Stands for time.sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def judge(stub: Stub, waits: Waits | None = None, **options: Any) -> OpenAIJudge:
    settings = JudgeOptions(url=stub.url, model="eyes-1", **{"timeout": 5.0, **options})
    return OpenAIJudge(settings, sleep=waits if waits is not None else Waits())


def ask(judge: OpenAIJudge, count: int = 1, **query: Any) -> list[Answer]:
    asked = [Query(picture=PICTURE, question=f"Is it {n}?", proposition=n, **query) for n in range(count)]
    return [answer for _, answer in sorted(judge.answer(asked), key=lambda pair: pair[0].proposition)]


def test_the_picture_and_the_question_go_out_as_the_protocol_wants_them() -> None:
    with endpoint(Reply(text="Yes.")) as stub:
        (answer,) = ask(judge(stub))
    assert (answer.parsed, answer.raw) == ("yes", "Yes.")
    (request,) = stub.requests
    picture, words = request["messages"][0]["content"]
    assert stub.paths == ["/v1/chat/completions"]
    assert words["text"] == "Is it 0?\nAnswer with a single word: yes or no."
    assert {key: request[key] for key in ("model", "temperature", "max_tokens")} == {
        "model": "eyes-1", "temperature": 0, "max_tokens": 8,
    }  # fmt: skip
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert Image.open(BytesIO(data)).tobytes() == PICTURE.image.tobytes()
    assert stub.keys == [SECRET]


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(status=429),
        Reply(status=500),
        Reply(status=503, body=b"<html>"),
        Reply(body=b"garbage"),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [{"message": {"content": null}}]}'),
        Reply(body=b'["a list"]'),
        Reply(body=b"x" * (2**20 + 1)),
    ],
)
def test_what_passes_is_tried_again(trouble: Reply) -> None:
    with endpoint(trouble, trouble, Reply(text="no")) as stub:
        waits = Waits()
        (answer,) = ask(judge(stub, waits))
    assert (answer.parsed, answer.problem) == ("no", None)
    assert len(stub.requests) == 3
    assert [1 <= waits[0] <= 1.5, 2 <= waits[1] <= 3] == [True, True]


@pytest.mark.parametrize(
    ("trouble", "problem"),
    [
        (Reply(status=429), "HTTP 429, 3 times"),
        (Reply(status=500), "HTTP 500, 3 times"),
        (Reply(body=b"garbage"), "an answer of another shape, 3 times"),
        (Reply(slow=0.6), "too slow, 3 times"),
    ],
)
def test_what_does_not_pass_is_invalid_and_never_a_no(trouble: Reply, problem: str) -> None:
    with endpoint(trouble) as stub:
        (answer,) = ask(judge(stub, attempts=3, timeout=0.2))
    assert (answer.parsed, answer.problem) == ("invalid", problem)
    assert len(stub.requests) == 3


def test_an_address_where_nobody_is_gives_no_answer() -> None:
    with endpoint(Reply()) as stub:
        gone = judge(stub, attempts=2)
    (answer,) = ask(gone)
    assert answer.problem == "no connection (ConnectionRefusedError), 2 times"


def test_the_server_may_say_how_long_to_wait_up_to_a_minute() -> None:
    asked = ("7", "9999", "Wed, 21 Oct 2026 07:28:00 GMT")
    with endpoint(*(Reply(status=429, headers={"Retry-After": wait}) for wait in asked), Reply()) as stub:
        waits = Waits()
        ask(judge(stub, waits))
    assert 7 <= waits[0] <= 10.5
    assert waits[1] == 60
    assert 4 <= waits[2] <= 6  # a date is no number of seconds: the usual pause


def test_a_bad_request_is_not_tried_again() -> None:
    with endpoint(Reply(status=400)) as stub:
        answers = ask(judge(stub), 3)
    assert [answer.problem for answer in answers] == ["HTTP 400"] * 3
    assert len(stub.requests) == 3


@pytest.mark.parametrize(("status", "problem"), [(401, "refuses the key"), (403, "refuses the key"), (404, "no such")])
def test_a_refused_key_or_an_unknown_model_stops_the_run(status: int, problem: str) -> None:
    with endpoint(Reply(status=status, echo=True)) as stub, pytest.raises(ConfigError, match=problem) as error:
        ask(judge(stub), 5)
    assert SECRET not in str(error.value)


def test_a_redirect_is_refused_and_the_key_stays_here() -> None:
    with endpoint(Reply()) as other, endpoint(Reply(status=302, headers={"Location": f"{other.url}/steal"})) as stub:
        (answer,) = ask(judge(stub))
    assert answer.problem == "HTTP 302; a redirect is not followed"
    assert other.requests == []


def test_an_endpoint_that_is_down_ends_the_run_after_a_while() -> None:
    with endpoint(Reply(status=400)) as stub, pytest.raises(RunError, match="50 questions in a row without an answer"):
        ask(judge(stub), 200)
    assert len(stub.requests) < 80


def test_no_more_questions_are_on_their_way_than_wanted() -> None:
    with endpoint(Reply(slow=0.02)) as stub:
        assert len(ask(judge(stub, concurrency=3), 12)) == 12
    assert 2 <= stub.most_at_once <= 3


def test_probabilities_are_those_of_the_first_token() -> None:
    top = [("Yes", -0.5), (" yes", -2.0), ("No", -1.5), ("yesterday", -3.0)]
    with endpoint(Reply(logprobs=top)) as stub:
        (answer,) = ask(judge(stub, logprobs=True))
        (without,) = ask(judge(stub))
    assert answer.p_yes == pytest.approx(0.6065306 + 0.1353353)
    assert stub.requests[0]["logprobs"] is True
    assert "logprobs" not in stub.requests[1]
    assert without.p_yes is not None


def test_a_number_is_asked_for_and_read_as_one() -> None:
    with endpoint(Reply(text="4"), Reply(text="Three."), Reply(text="many")) as stub:
        answers = [ask(judge(stub), expected="four")[0] for _ in range(3)]
    assert [answer.parsed for answer in answers] == ["yes", "no", "invalid"]
    assert stub.requests[0]["messages"][0]["content"][1]["text"].endswith("Answer in one word.")


def test_the_key_is_in_no_answer_no_cache_and_no_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with endpoint(Reply(text="yes", echo=True), Reply(status=500, echo=True), Reply(status=400, echo=True)) as stub:
        eyes = judge(stub, attempts=1, concurrency=1)
        with AnswerBook(tmp_path / "answers.jsonl") as book:
            asked = [Query(picture=PICTURE, question=f"Is it {n}?") for n in range(3)]
            answers = list(eyes.answer(asked))
            for query, answer in answers:
                book.add(query, eyes, answer)
    assert set(stub.keys) == {SECRET}
    told = "".join(f"{answer}" for _, answer in answers) + (tmp_path / "answers.jsonl").read_text()
    told += eyes.name + eyes.version + repr(eyes.options) + "".join(capfd.readouterr())
    assert SECRET not in told
    assert "yes [key]" in told


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY)
    with endpoint(Reply()) as stub:
        ask(judge(stub))
    assert stub.keys == [""]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://host/v1", "must be like"),
        ("file:///etc/passwd", "must be like"),
        ("http://me:hidden@host/v1", "no password"),
        ("http://host/v1?key=hidden", "must be like"),
        ("host", "must be like"),
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_a_secret(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        JudgeOptions(url=url, model="m")
    assert not re.search("hidden", str(error.value))


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"attempts": 0}, {"timeout": 0.0}, {"model": ""}])
def test_options_check_themselves(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        JudgeOptions(**{"url": "https://host/v1", "model": "m", **options})
