"""The record format: what may stand in a line, and that every fault is told with its place."""

from pathlib import Path
from typing import Any

import pytest

from twgi.data.records import Part, TrainingRecord, Turn, parse_record
from twgi.errors import DataError

TEXT = {"type": "text", "text": "so"}
PICTURE = {"type": "image", "image": "a.png"}


def parsed(value: dict[str, Any]) -> TrainingRecord:
    return parse_record(value, where="f:1", folder=Path("pictures"))


def test_the_published_form_is_text_with_a_mark_for_each_picture() -> None:
    record = parsed({"prompt": "p", "response": "<image>one<image>", "images": ["./a.png", "imgs/b.png"]})
    response = (Part("image", "./a.png"), Part("text", "one"), Part("image", "imgs/b.png"))
    assert record.turns == (Turn(prompt="p", response=response),)
    assert (record.turns[0].text, record.turns[0].images) == ("<image>one<image>", ("./a.png", "imgs/b.png"))
    assert (record.folder, record.where, record.tokens) == (Path("pictures"), "f:1", None)


def test_typed_segments_say_what_is_learnt() -> None:
    record = parsed({"prompt": "p", "segments": [TEXT, PICTURE | {"loss": False}, TEXT | {"loss": True}]})
    assert [part.loss for part in record.turns[0].response] == [True, False, True]


def test_pictures_of_a_prompt_have_a_list_of_their_own() -> None:
    record = parsed({"prompt": "<image>?", "input_images": ["q.png"], "response": "<image>", "images": ["r.png"]})
    assert record.turns[0].input_images == ("q.png",)
    assert record.turns[0].images == ("r.png",)


def test_several_turns_are_read_in_order() -> None:
    turns = [{"prompt": "one", "response": "1"}, {"prompt": "two", "segments": [TEXT]}]
    record = parsed({"id": "r7", "turns": turns})
    assert [turn.prompt for turn in record.turns] == ["one", "two"]
    assert record.id == "r7"


def test_a_record_may_be_tokens_alone() -> None:
    assert parsed({"tokens": [0, 5, 2]}) == TrainingRecord(
        where="f:1", folder=Path("pictures"), turns=(), tokens=(0, 5, 2)
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, 'no text under "prompt"'),
        ({"prompt": 3, "response": ""}, '"prompt" must be a text'),
        ({"prompt": " \n", "response": "r"}, '"prompt" is empty'),
        ({"prompt": "p"}, 'no text under "response"'),
        ({"prompt": "p", "response": ""}, "the response is empty"),
        ({"prompt": "p", "segments": []}, "the response is empty"),
        ({"prompt": "p\ud800", "response": "r"}, '"prompt" is not valid Unicode at character 1'),
        ({"prompt": "p", "response": "r", "image": ["a.png"]}, 'unknown key "image" in a record; known are'),
        ({"prompt": "p", "response": "<image>"}, '"response" has 1 <image> mark(s) but "images" has 0 picture(s)'),
        ({"prompt": "p", "response": "r", "images": ["a.png"]}, '"response" has 0 <image> mark(s) but "images" has 1'),
        ({"prompt": "p<image>", "response": "<image>", "images": ["a.png"]}, '"input_images" has 0 picture(s)'),
        ({"prompt": "p", "input_images": ["a.png"], "response": "r"}, '"prompt" has 0 <image> mark(s)'),
        ({"prompt": "p", "response": "r", "images": "a.png"}, '"images" must be a list of paths'),
        ({"prompt": "p", "response": "<image>", "images": [""]}, "path of a picture must be a text"),
        ({"prompt": "p", "response": "<image>", "images": ["/etc/passwd"]}, "must be relative and stay in its folder"),
        ({"prompt": "p", "response": "<image>", "images": ["a/../../b.png"]}, "must be relative and stay"),
        ({"prompt": "p", "response": "<image>", "images": ["C:\\a.png"]}, "must be relative and stay"),
        ({"prompt": "p", "response": "<image>", "images": ["a\0.png"]}, "must be relative and stay"),
        ({"prompt": "p", "segments": [TEXT], "response": "r"}, 'give "segments" or "response", not both'),
        ({"prompt": "p", "segments": "so"}, '"segments" must be a list'),
        ({"prompt": "p", "segments": [TEXT, "so"]}, 'segment 2: "type" must be "text" or "image", got None'),
        (
            {"prompt": "p", "segments": [{"type": "sound"}]},
            'segment 1: "type" must be "text" or "image", got \'sound\'',
        ),
        ({"prompt": "p", "segments": [TEXT | {"los": True}]}, 'segment 1: unknown key "los" in a text segment'),
        ({"prompt": "p", "segments": [TEXT | {"loss": 1}]}, 'segment 1: "loss" must be true or false, got 1'),
        ({"prompt": "p", "segments": [TEXT | {"text": ""}]}, 'segment 1: "text" is empty'),
        ({"prompt": "p", "segments": [TEXT | {"text": "<image>"}]}, "segment 1: <image> in a text segment"),
        ({"prompt": "p", "segments": [{"type": "image"}]}, "segment 1: the path of a picture must be a text, got None"),
        ({"turns": []}, '"turns" must be a list of at least one turn'),
        ({"turns": [{"prompt": "p", "response": "r"}, 3]}, "turn 2: expected an object, got 3"),
        ({"turns": [{"prompt": "p", "response": "r", "id": "x"}]}, 'turn 1: unknown key "id" in a turn'),
        ({"turns": [{"prompt": "p", "response": "r"}], "prompt": "p"}, 'with "turns", "prompt" belongs into a turn'),
        ({"tokens": [0, 1.5]}, '"tokens" must be a list of whole numbers'),
        ({"tokens": [0, True]}, '"tokens" must be a list of whole numbers'),
        ({"prompt": "p", "response": "r", "id": 7}, '"id" must be a text, got 7'),
    ],
)
def test_every_fault_has_its_reason(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError) as error:
        parsed(value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
