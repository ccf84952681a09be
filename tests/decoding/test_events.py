"""Requests are plain data, and events tagged values that go to JSON."""

import json
from multiprocessing.reduction import ForkingPickler

from tests.decoding.worlds import request

from twgi.decoding.events import Failed, Finished, ImageAsked, ImageOpened, Token
from twgi.decoding.grammar import FinishReason


def test_every_event_is_its_tag_and_its_fields() -> None:
    events = [
        Token(3, 17, 5, True, -0.25),
        Token(3, 17, 6, False),
        ImageAsked(3, 0),
        ImageOpened(3, 0, "part", {"full": 2.0, "unconditional": -1.0}),
        Finished(3, FinishReason.STOP),
        Failed(3, "no numbers"),
    ]
    assert [json.loads(json.dumps(event.to_json())) for event in events] == [
        {"type": "token", "id": 3, "token": 17, "position": 5, "drawn": True, "logprob": -0.25},
        {"type": "token", "id": 3, "token": 17, "position": 6, "drawn": False, "logprob": None},
        {"type": "image_asked", "id": 3, "number": 0},
        {"type": "image_opened", "id": 3, "number": 0, "kind": "part", "weights": {"full": 2.0, "unconditional": -1.0}},
        {"type": "finished", "id": 3, "reason": "stop"},
        {"type": "failed", "id": 3, "problem": "no numbers"},
    ]


def test_a_request_can_be_sent_to_another_process() -> None:
    one = request(starts_with_image=True)
    assert ForkingPickler.loads(ForkingPickler.dumps(one)) == one
