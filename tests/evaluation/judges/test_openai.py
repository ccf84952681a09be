"""The judge behind an endpoint; when the endpoint is asked again, and what stops it, is tested with its client."""

import base64
import math
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.evaluation.judges.stub import Reply, Stub, endpoint

from twgi.answers import AnswerBook
from twgi.errors import ConfigError, RunError
from twgi.evaluation.judges.answer import Answer, Picture, Query, keep
from twgi.evaluation.judges.named import judge_named
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


def token(name: str, *others: str, p: float = 0.9, **more: Any) -> dict[str, Any]:
    """A token as a server tells of it, with what else was likely."""
    rest = (1 - p) / max(1, len(others))
    top = [{"token": name, "logprob": math.log(p)}, *({"token": one, "logprob": math.log(rest)} for one in others)]
    return {"token": name, "logprob": math.log(p), "bytes": None, "top_logprobs": top, **more}


LETTERS = list(b" yes")


@pytest.mark.parametrize(
    ("said", "tokens", "p_yes"),
    [
        ("yes", [token("yes", "no")], 0.9),
        ("YES", [token("YES", "NO")], 0.9),
        ("yes", [token("\u0120yes", "\u0120no")], 0.9),
        ("yes", [token("\u2581Yes", "\u2581No")], 0.9),
        ("yes", [token("yes</w>", "no</w>")], 0.9),
        ("no", [token(" no", " yes")], 0.1),
        ("\nyes", [token("\n", "no"), token("yes", "no")], 0.9),
        ("\nyes", [token("\u010a", "no"), token("yes", "no")], 0.9),
        ("\nyes", [token("<0x0A>", "no"), token("yes", "no")], 0.9),
        ("yes", [token("yes", "no"), token("<|im_end|>")], 0.9),
        ("**Yes**", [token("**", "Yes"), token("Yes", "No"), token("**")], 0.9),
        ("Answer: yes", [token("Answer", "yes"), token(":", ","), token(" yes", " no")], 0.9),
        ("yes", [token("I", "no"), token("</think>"), token("yes", "no")], 0.9),
        ("yes", [token("yes", top_logprobs=[])], 0.9),
        ("yes", [token("y", "n", p=0.8), token("es", p=0.5)], 0.4),
        ("no", [token("no", p=0.99, top_logprobs=[])], 0.0),
        ("no", [token("no", "maybe", p=0.99)], 0.0),
        ("no", [token("no", "y", p=0.6)], None),  # the other is a beginning of yes
        ("no", [token("no", "", p=0.6)], None),
        ("no", [token("no", "token_id:9", p=0.6)], None),
        ("yes", [token("token_id:9891", "token_id:2201")], None),
        ("yes", [token("", "")], None),
        ("yes", [token("no", "yes")], None),  # not what was said
        ("yes", [token("<unk>", "yes")], None),
        ("yes", [{"token": "yes"}], None),
        ("yes", [{"token": "yes", "logprob": None}], None),
        ("yes", [{"token": "yes", "logprob": 0.9}], None),  # a probability, not its logarithm
        ("yes", [{"token": "yes", "logprob": "0"}], None),
        ("yes", [{"token": "yes", "logprob": 0, "bytes": "x"}], None),
        ("yes", [], None),
        ("yes", [7], None),
        ("yes", [{"token": "token_id:9", "bytes": LETTERS, "logprob": 0}], 1.0),
    ],
)
def test_a_token_has_many_names_and_what_was_not_understood_is_never_a_zero(
    said: str, tokens: list[Any], p_yes: float | None
) -> None:
    with endpoint(Reply(text=said, tokens=tokens)) as stub:
        (answer,) = ask(judge(stub, logprobs=True))
    assert answer.parsed == ("no" if said == "no" else "yes")
    assert answer.p_yes == (None if p_yes is None else pytest.approx(p_yes))


def test_a_word_of_several_tokens_has_the_probability_of_them_all() -> None:
    parts = [token("seven", "six", p=0.5), token("teen", p=0.5)]
    with endpoint(Reply(text="seventeen", tokens=parts), Reply(text="blue", tokens=[token("blue", "dal")])) as stub:
        (sure,) = ask(judge(stub, logprobs=True), expected="seventeen")
        (other,) = ask(judge(stub, logprobs=True), expected="dalmatian")
    assert (sure.parsed, other.parsed, other.p_yes) == ("yes", "no", None)
    assert sure.p_yes == pytest.approx(0.25)


def test_a_model_that_refuses_sampling_options_is_asked_without() -> None:
    named = ("max_tokens", "temperature", "logprobs", "logprobs")  # first as many as it gives, then none
    refusals = [Reply(status=400, body=f'{{"error": {{"message": "unsupported: {name}"}}}}'.encode()) for name in named]
    with endpoint(*refusals, Reply(text="yes")) as stub:
        answers = ask(judge(stub, logprobs=True, attempts=1, concurrency=1), 2)
    assert [answer.parsed for answer in answers] == ["yes", "yes"]
    assert len(stub.requests) == 6
    assert {*stub.requests[-1]} == {"model", "messages", "max_completion_tokens"}


def test_parameters_go_out_with_each_question_and_are_part_of_the_judge() -> None:
    parameters = {"max_tokens": 2048, "reasoning_effort": "low"}
    with endpoint(Reply(text="yes")) as stub:
        ask(asked := judge(stub, parameters=parameters))
        assert asked.version != judge(stub).version
        named = judge_named(f"openai:{stub.url}#eyes-1", parameters=["max_tokens=2048", "reasoning_effort=low"])
        assert (named.name, named.version) == (asked.name, asked.version)
    assert parameters.items() <= stub.requests[0].items()
    with pytest.raises(ConfigError, match="key=value"):
        judge_named(f"openai:{stub.url}#eyes-1", parameters=["max_tokens"])


def test_who_stops_asking_waits_for_no_answer() -> None:
    with endpoint(Reply(text="yes"), Reply(slow=2.0)) as stub:
        answers = judge(stub, concurrency=2).answer(Query(picture=PICTURE, question=f"Is it {n}?") for n in range(9))
        next(answers)
        start = time.monotonic()
        del answers
        while any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate()):
            assert time.monotonic() - start < 1.5
            time.sleep(0.01)


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
