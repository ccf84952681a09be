"""Events go to JSON and come back, and nothing else is taken for one."""

import json
from typing import Any

import pytest

from twgi.decoding.events import Event, Failed, Finished, ImageAsked, ImageOpened, Token, event_from_json
from twgi.decoding.grammar import FinishReason
from twgi.errors import TraceError

EVENTS: list[Event] = [
    Token(3, 17, 5, True, -0.25),
    Token(3, 17, 6, False),
    ImageAsked(3, 0),
    ImageOpened(3, 0, "part", {"full": 2.0, "unconditional": -1.0}),
    Finished(3, FinishReason.STOP),
    Failed(3, "no numbers"),
]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_comes_back_from_json(event: Event) -> None:
    read = event_from_json(json.loads(json.dumps(event.to_json())))
    assert read == event
    assert type(read) is type(event)


def test_the_tag_and_the_fields_are_plain() -> None:
    assert EVENTS[0].to_json() == {
        "type": "token", "id": 3, "token": 17, "position": 5, "drawn": True, "logprob": -0.25,
    }  # fmt: skip
    assert EVENTS[4].to_json() == {"type": "finished", "id": 3, "reason": "stop"}


TOKEN = EVENTS[0].to_json()
BAD: list[tuple[Any, str]] = [
    ([], "unknown type None"),
    ({}, "unknown type None"),
    ({"type": ["token"]}, "unknown type"),
    ({"type": "tokens"}, "unknown type 'tokens'"),
    ({**TOKEN, "more": 1}, "has the keys id, token, position, drawn, logprob, not"),
    ({key: value for key, value in TOKEN.items() if key != "drawn"}, "has the keys"),
    ({**TOKEN, "id": True}, "id cannot be True"),
    ({**TOKEN, "drawn": 1}, "drawn cannot be 1"),
    ({**TOKEN, "logprob": float("nan")}, "logprob cannot be nan"),
    ({"type": "finished", "id": 1, "reason": "bored"}, "reason cannot be 'bored'"),
    ({"type": "finished", "id": 1, "reason": []}, "reason cannot be"),
    ({"type": "image_opened", "id": 1, "number": 0, "kind": "part", "weights": {"odd": 1.0}}, "weights cannot be"),
    ({"type": "failed", "id": 1, "problem": None}, "problem cannot be None"),
]


@pytest.mark.parametrize(("value", "problem"), BAD)
def test_what_is_no_event_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(TraceError, match=problem):
        event_from_json(value)
