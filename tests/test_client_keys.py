"""Keys, addresses and proxies of endpoints: nothing secret is ever repeated, nothing goes where it should not."""

import json
from typing import Any

import pytest
from tests.data.factory.studio import Asked, Reply, studio
from tests.test_client import QUESTION, SECRET, endpoint, environment, first, words

from twgi.client import Endpoint, EndpointOptions, NoAnswer
from twgi.errors import ConfigError

__all__ = ["environment"]  # the fixture


def test_a_redirect_is_refused_and_the_key_stays_here() -> None:
    with studio() as other:
        trouble = first(Reply(status=302, headers={"Location": f"{other.url}/steal"}))
        with studio(trouble=trouble) as served, pytest.raises(NoAnswer, match="a redirect is not followed"):
            endpoint(served).post(QUESTION, words)
    assert other.asked == []


@pytest.mark.parametrize("key", ["sk-'quoted\"\\key/9", "sk-{}%s<&>"])
@pytest.mark.parametrize("ends", ["", "\n", "\r\n", " \t"])
def test_a_key_of_any_signs_is_sent_and_never_repeated(monkeypatch: pytest.MonkeyPatch, key: str, ends: str) -> None:
    monkeypatch.setenv("STUDIO_KEY", key + ends)

    def echo(asked: Asked, number: int) -> Reply:
        parts = [{"type": "text", "text": text} for text in (asked.key[:5], asked.key[5:], f" {asked.key}")]
        choice = {"message": {"content": parts, asked.key: asked.key}}
        return Reply(body=json.dumps({"choices": [choice], "usage": {"key": asked.key}}).encode())

    with studio(trouble=echo) as served:
        answer = endpoint(served).post(QUESTION, lambda reply: reply)
    assert served.asked[0].key == key
    choice = {"message": {"content": "[key] [key]", "images": [], "[key]": "[key]"}}
    assert answer.value == {"choices": [choice], "usage": {"key": "[key]"}}
    assert answer.usages == ({"key": "[key]"},)


def test_a_key_has_no_place_in_an_address_a_model_or_a_parameter() -> None:
    for options in ({"url": f"http://host/{SECRET}"}, {"model": SECRET}, {"parameters": {"key": [SECRET]}}):
        settings: dict[str, Any] = {"url": "http://host/v1", "model": "m", "key_variable": "STUDIO_KEY", **options}
        with pytest.raises(ConfigError, match="the key of STUDIO_KEY") as error:
            Endpoint(EndpointOptions(**settings))
        assert SECRET not in str(error.value)


def test_a_proxy_is_asked_for_other_machines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    with studio() as served, studio() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        for url in (served.url, served.url.replace("127.0.0.1", "localhost")):
            Endpoint(EndpointOptions(url=url, model="m", attempts=1)).post(QUESTION, words)
        assert (len(served.asked), proxy.asked) == (2, [])
        Endpoint(EndpointOptions(url="http://host.example/v1", model="m")).post(QUESTION, words)
    assert [asked.path for asked in proxy.asked] == ["http://host.example/v1/chat/completions"]


@pytest.mark.parametrize("proxy", ["foo://me:hidden@host:1", "http://hidden\x7f"])
def test_a_proxy_that_is_none_is_the_users_error(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigError, match="proxy") as error:
        Endpoint(EndpointOptions(url="http://host.example/v1", model="m"))
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("spelt", [SECRET, "".join(f"\\u{ord(sign):04x}" for sign in SECRET)])
def test_the_key_is_masked_in_what_comes_back(spelt: str) -> None:
    body = f'{{"choices": [{{"message": {{"content": "your key is {spelt}!"}}}}]}}'.encode()
    with studio(trouble=first(Reply(body=body))) as served:
        asking = endpoint(served)
        assert asking.post(QUESTION, words).value == "your key is [key]!"
    assert served.asked[0].key == SECRET
    assert SECRET not in repr(asking.options) + asking.name + asking.digest(QUESTION)


def test_a_placeholder_for_a_key_is_left_in_what_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_KEY", "l")
    with studio() as served:
        assert "Gladly" in endpoint(served).post(QUESTION, words).value
    assert served.asked[0].key == "l"


@pytest.mark.parametrize("key", ["sk-hidden\nX-Other: 1", "sk-hidden-ä", "sk-hidden’", "sk-hidden\x07", "sk hidden"])
def test_a_key_that_cannot_be_sent_is_the_users_error(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("STUDIO_KEY", key)
    with pytest.raises(ConfigError, match="STUDIO_KEY holds no key") as error:
        Endpoint(EndpointOptions(url="http://host/v1", model="m", key_variable="STUDIO_KEY"))
    assert "hidden" not in str(error.value)


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUDIO_KEY")
    with studio() as served:
        endpoint(served).post(QUESTION, words)
        endpoint(served, key_variable="").post(QUESTION, words)
    assert [asked.key for asked in served.asked] == ["", ""]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "ftp://host/v1"}, "must be like"),
        ({"url": "file:///etc/passwd"}, "must be like"),
        ({"url": "http://me:hidden@host/v1"}, "no password"),
        ({"url": "http://host/v1?key=hidden"}, "must be like"),
        ({"url": "host"}, "must be like"),
        ({"url": "http://hidden:99999/v1"}, "must be like"),
        ({"url": "http://[hidden/v1"}, "must be like"),
        ({"url": "http://[::1"}, "must be like"),
        ({"url": "http://a..b/v1"}, "must be like"),
        ({"url": "http://" + "a" * 64 + "/v1"}, "must be like"),
        ({"url": "http://host/v1\x7f"}, "must be like"),
        ({"url": "http://ho st/v1"}, "must be like"),
        ({"url": "http://host/\udcff"}, "must be like"),
        ({"key_variable": "sk-hidden"}, "the name of an environment variable"),
        ({"concurrency": 0}, "1 or more"),
        ({"attempts": 0}, "1 or more"),
        ({"timeout": 0.0}, "above 0"),
        ({"timeout": float("nan")}, "above 0"),
        ({"timeout": float("inf")}, "finite"),
        ({"parameters": ["hidden"]}, "key: value"),
        ({"parameters": {"model": "hidden"}}, "may not hold 'model'"),
        ({"parameters": {1: "hidden"}}, "may not hold 1"),
        ({"parameters": {"a": float("nan")}}, "what JSON can hold"),
        ({"parameters": {"a": {2}}}, "what JSON can hold"),
        ({"model": ""}, "which model"),
    ],
)
def test_options_check_themselves_without_repeating_a_secret(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        EndpointOptions(**{"url": "https://host/v1", "model": "m", **options})
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://é", "http://\u2603/v1", "http://xn--/v1", "http://1.2.3.4.5/v1", "http://[::1]/v1"]
)
def test_an_odd_address_is_refused_or_nobody_is_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises((ConfigError, NoAnswer)):
        Endpoint(EndpointOptions(url=url, model="m", attempts=1)).post(QUESTION, words)
