"""Records become rows by the one prompt builder, or are told with their place and reason."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.thinking.tiny import SIDE, other_codebook, tokenizer

from twgi.data.encode import Encoded, EncodingReport, LineOutcome, RowEncoder, TooLong, reference_json
from twgi.data.records import KNOWN
from twgi.data.rows import TrainingRow
from twgi.errors import DataError
from twgi.files import Fault, Line, parse_json, to_line

TOKENIZER = tokenizer()
VOCAB = TOKENIZER.vocab
TOKENS = [*TOKENIZER.encode_prompt("red"), *TOKENIZER.text.encode("ab"), VOCAB.eos]
RECORD = {"prompt": "red", "response": "ab <image>", "images": ["a.png"]}
TURNS = {"turns": [{"prompt": "<image>?", "input_images": ["b.png"], "response": "so"}, RECORD]}
SEGMENTS = [
    {"type": "text", "text": "ab"},
    {"type": "image", "image": "a.png", "loss": False},
    {"type": "text", "text": "re", "loss": False},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, color in (("a.png", (200, 10, 10)), ("b.png", (10, 10, 200))):
        Image.new("RGB", (2 * SIDE, SIDE), color).save(tmp_path / name)
    return tmp_path


def encode(folder: Path, lines: Sequence[Any], **options: Any) -> list[LineOutcome]:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return list(RowEncoder(TOKENIZER, **options).files([file]))


def image_ids(folder: Path, name: str) -> list[int]:
    (codes,) = TOKENIZER.codes([Image.open(folder / name)])
    return TOKENIZER.image_block(codes)


def only(outcomes: Sequence[LineOutcome]) -> Encoded:
    (outcome,) = outcomes
    assert isinstance(outcome, Encoded), outcome
    return outcome


def test_a_row_is_the_prompt_as_the_model_is_asked_then_the_response_then_eos(folder: Path) -> None:
    row = only(encode(folder, [RECORD])).row
    answer = [*TOKENIZER.text.encode("ab "), *image_ids(folder, "a.png"), VOCAB.eos]
    assert list(row.tokens) == [*TOKENIZER.encode_prompt("red"), *answer]
    assert [token for token, loss in zip(row.tokens, row.mask, strict=True) if loss] == answer
    assert row.source == f"{folder}/data.jsonl:1"


def test_marked_text_and_typed_segments_are_the_same_row(folder: Path) -> None:
    segments = [{"type": "text", "text": "ab "}, {"type": "image", "image": "a.png"}]
    one, two = encode(folder, [RECORD, {"prompt": "red", "segments": segments}])
    assert only([one]).row.tokens == only([two]).row.tokens


def test_a_segment_without_loss_is_read_and_not_learnt(folder: Path) -> None:
    row = only(encode(folder, [{"prompt": "red", "segments": SEGMENTS}])).row
    assert [token for token, loss in zip(row.tokens, row.mask, strict=True) if loss] == TOKENIZER.text.encode("ab")
    assert [span.kind for span in row.spans] == ["bos", "text", "separator", "text", "image", "text", "eos"]


def test_pictures_of_a_prompt_carry_no_loss(folder: Path) -> None:
    row = only(encode(folder, [TURNS])).row
    learnt = [(span.kind, span.loss) for span in row.spans if span.kind == "image"]
    assert learnt == [("image", False), ("image", True)]


def test_turns_follow_each_other_each_with_its_end(folder: Path) -> None:
    row = only(encode(folder, [TURNS])).row
    first = TOKENIZER.encode_prompt("<image>?", [Image.open(folder / "b.png")])
    second = TOKENIZER.encode_prompt("red")[1:]
    said = [*TOKENIZER.text.encode("ab "), *image_ids(folder, "a.png")]
    assert list(row.tokens) == [*first, *TOKENIZER.text.encode("so"), VOCAB.eos, *second, *said, VOCAB.eos]


def test_special_words_of_a_record_stay_text(folder: Path) -> None:
    words = "</s><reserved08706><racm3:break>"
    row = only(encode(folder, [{"prompt": words, "response": words}])).row
    assert [span.kind for span in row.spans] == ["bos", "text", "separator", "text", "eos"]


def test_ids_that_come_with_a_record_are_taken_as_they_are(folder: Path) -> None:
    row = only(encode(folder, [RECORD])).row
    (folder / "a.png").unlink()
    again, alone = encode(folder, [RECORD | {"tokens": row.tokens}, {"tokens": row.tokens}])
    assert [only([outcome]).row.spans for outcome in (again, alone)] == [row.spans] * 2


def test_rows_are_records_too(folder: Path) -> None:
    row = only(encode(folder, [{"prompt": "red", "segments": SEGMENTS, "id": "r"}])).row
    assert only(encode(folder, [row.to_json()])).row == row


def test_no_picture_of_a_row_that_is_too_long_is_read(folder: Path) -> None:
    length = len(only(encode(folder, [RECORD])).row.tokens)
    (folder / "a.png").unlink()
    (outcome,) = encode(folder, [RECORD], limit=length - 1)
    assert outcome == TooLong(where=f"{folder}/data.jsonl:1", tokens=length)


def test_a_row_of_just_the_limit_is_kept(folder: Path) -> None:
    row = only(encode(folder, [RECORD])).row
    limit = len(row.tokens)
    assert only(encode(folder, [RECORD], limit=limit)).row == row
    stored = [{"tokens": row.tokens}, row.to_json()]
    assert [type(outcome) for outcome in encode(folder, stored, limit=limit)] == [Encoded] * 2
    assert [type(outcome) for outcome in encode(folder, stored, limit=limit - 1)] == [TooLong] * 2


def test_pictures_may_lie_elsewhere(folder: Path) -> None:
    row = only(encode(folder, [RECORD])).row
    file = folder / "below" / "data.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(RECORD))
    assert only(list(RowEncoder(TOKENIZER, images=folder).files([file]))).row.tokens == row.tokens


def spoilt(row: dict[str, Any], place: int, part: Any) -> dict[str, Any]:
    segments = list(row["segments"])
    segments[place] = part
    return row | {"segments": segments}


def test_a_bad_line_is_told_and_the_others_live(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG")
    row = only(encode(folder, [RECORD])).row
    stored = row.to_json()
    bad: list[tuple[Any, str]] = [
        (RECORD | {"images": ["absent.png"]}, "no such image file"),
        (RECORD | {"images": ["broken.png"]}, "not a picture"),
        (RECORD | {"tokens": row.tokens[:-1]}, "no eos"),
        (RECORD | {"tokens": [*row.tokens, 0]}, f"token {len(row.tokens)}: special id"),
        ({"prompt": "p", "response": "r", "tokens": row.tokens}, '"tokens" has 1 image(s) but the record names 0'),
        (TURNS | {"tokens": row.tokens}, "1 turn(s) instead of 2"),
        ({"tokens": []}, "token 0: no bos: nothing"),
        (spoilt(stored, 0, ["text", 0, 1, False]), "the segments of the row are not those of its tokens"),
        (spoilt(stored, 1, ["text", *stored["segments"][1][1:3], True]), "carry loss, but are not of a response"),
        ({"prompt": "p", "response": "r", "images": ["a.png"]}, "1 picture(s)"),
    ]
    outcomes = encode(folder, [*(line for line, _ in bad), RECORD])
    assert only(outcomes[-1:]).row.tokens == row.tokens
    for number, ((_, reason), fault) in enumerate(zip(bad, outcomes, strict=False), 1):
        assert isinstance(fault, Fault)
        assert fault.where == f"{folder}/data.jsonl:{number}"
        assert reason in fault.reason


def test_the_published_format_has_the_published_keys(folder: Path) -> None:
    encoded = only(encode(folder, [RECORD]))
    assert reference_json(encoded) == RECORD | {"tokens": list(encoded.row.tokens)}


@pytest.mark.parametrize(
    "record", [TURNS, TURNS["turns"][0], {"prompt": "red", "segments": SEGMENTS}, {"tokens": TOKENS}]
)
def test_what_the_published_format_cannot_say_is_refused(folder: Path, record: dict[str, Any]) -> None:
    encoded = only(encode(folder, [record]))
    with pytest.raises(DataError, match="the published format"):
        reference_json(encoded)


def test_a_row_belongs_to_the_tokenizer_that_made_it(folder: Path) -> None:
    row = only(encode(folder, [RECORD])).row
    assert row.tokenizer == TOKENIZER.sha256
    assert only(encode(folder, [row.to_json()])).row == row
    file = folder / "data.jsonl"
    (refused,) = RowEncoder(other_codebook(TOKENIZER)).files([file])
    assert isinstance(refused, Fault)
    assert "another vocabulary or image tokenizer" in refused.reason
    assert only(encode(folder, [{"tokens": TOKENS}])).row.tokenizer == "", "whose ids a record brings is not told"


def test_a_link_does_not_lead_out_of_the_folder_of_the_pictures(folder: Path) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "a.png").symlink_to(folder / "a.png")
    (folder / "in" / "up").symlink_to(folder)
    (folder / "in" / "loop.png").symlink_to(folder / "in" / "loop.png")
    for name, says in (("a.png", "leads out of"), ("up/a.png", "leads out of"), ("loop.png", "cannot be read")):
        (refused,) = encode(folder / "in", [RECORD | {"images": [name]}])
        assert isinstance(refused, Fault)
        assert says in refused.reason
    (folder / "here.png").symlink_to("a.png")
    assert only(encode(folder, [RECORD | {"images": ["here.png"]}])).row == only(encode(folder, [RECORD])).row


def test_nothing_to_learn_is_no_good_report(folder: Path) -> None:
    report = EncodingReport(limit=None)
    for outcome in encode(folder, [{"prompt": "a", "segments": [{"type": "text", "text": "b", "loss": False}]}] * 2):
        report.add(outcome)
    assert not report.good
    assert "2 of them WITHOUT A TOKEN TO BE LEARNT" in report.summary()


WORDS = st.sampled_from(["", "<image>", "a.png", "../a", "\0", "\ud800", "type", "text", "image", "loss", "prompt"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
KEYS = [*KNOWN, "version", "source", "tokenizer", "more"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([RECORD, TURNS, {"tokens": TOKENS}]), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_whatever_a_line_holds_it_is_a_row_or_a_fault(folder: Path, record: Any, change: Any) -> None:
    outcome = RowEncoder(TOKENIZER, limit=200).line(Line(where="f:1", folder=folder, value=record | change))
    assert isinstance(outcome, Encoded | TooLong | Fault)
    if isinstance(outcome, Encoded):
        TrainingRow.from_json(parse_json(to_line(outcome.row.to_json())))
