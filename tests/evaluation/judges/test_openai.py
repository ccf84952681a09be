"""The judge behind an endpoint; when the endpoint is asked again, and what stops it, is tested with its client."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.evaluation.judges.stub import Reply, Stub, endpoint

from twgi.answers import AnswerBook
from twgi.errors import ConfigError, RunError
from twgi.evaluation.judges.answer import Answer, Picture, Query, keep
from twgi.evaluation.judges.openai import KEY, JudgeOptions, OpenAIJudge

SECRET = "sk-very-secret"
PICTURE = Picture(image=Image.new("RGB", (4, 2), (200, 10, 10)))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and no proxy on the way to this machine."""
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def judge(stub: Stub, **options: Any) -> OpenAIJudge:
    settings = JudgeOptions(url=stub.url, model="eyes-1", **{"timeout": 5.0, **options})
    return OpenAIJudge(settings, sleep=lambda seconds: None)


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


@pytest.mark.parametrize("body", [b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b'["a list"]'])
def test_a_reply_without_words_is_asked_for_again(body: bytes) -> None:
    with endpoint(Reply(body=body), Reply(text="no")) as stub:
        (answer,) = ask(judge(stub))
    assert (answer.parsed, answer.problem) == ("no", None)
    assert len(stub.requests) == 2


@pytest.mark.parametrize(
    ("trouble", "problem"), [(Reply(status=500), "HTTP 500, 3 times"), (Reply(status=400), "HTTP 400")]
)
def test_what_is_not_answered_is_invalid_and_never_a_no(trouble: Reply, problem: str) -> None:
    with endpoint(trouble) as stub:
        (answer,) = ask(judge(stub, attempts=3))
    assert (answer.parsed, answer.problem) == ("invalid", problem)


def test_a_refused_key_stops_the_run() -> None:
    with endpoint(Reply(status=401, echo=True)) as stub, pytest.raises(ConfigError, match="refuses the key") as error:
        ask(judge(stub), 5)
    assert SECRET not in str(error.value)


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
                keep(book, query, eyes, answer)
    assert set(stub.keys) == {SECRET}
    told = "".join(f"{answer}" for _, answer in answers) + (tmp_path / "answers.jsonl").read_text()
    told += eyes.name + eyes.version + repr(eyes.options) + "".join(capfd.readouterr())
    assert SECRET not in told
    assert "yes [key]" in told
