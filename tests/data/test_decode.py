"""Token lists are read whatever they are: pictures drawn, words kept, what is malformed listed by its place."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.thinking.tiny import thinker, tokenizer

from twgi.data.decode import Decoded, TokenDecoder, mode_of, unpack
from twgi.data.rows import TrainingRow, pieces_of
from twgi.errors import RunError
from twgi.files import Fault, Line
from twgi.thinking.modes import KINDS, MODES
from twgi.trace import ImageSegment, ModelId, TextSegment

TOKENIZER = tokenizer()
VOCAB = TOKENIZER.vocab
CODES = list(range(VOCAB.tokens_per_image))
IMAGE = TOKENIZER.image_block(CODES)
AB = TOKENIZER.text.encode("ab")
PROMPT = TOKENIZER.encode_prompt("red")
ROW = [*PROMPT, *AB, *IMAGE, VOCAB.eos]
MODEL = ModelId(name="tiny", sha256="")


def decode(folder: Path, lines: Sequence[Any], *, reference: bool = False) -> list[Decoded | Fault]:
    file = folder / "tokens.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return list(TokenDecoder(tokenizer=TOKENIZER, model=MODEL, reference=reference).decode_file(file))


def only(entries: Sequence[Decoded | Fault]) -> Decoded:
    (entry,) = entries
    assert isinstance(entry, Decoded), entry
    return entry


def shape(decoded: Decoded) -> list[str]:
    """Words, and roles of pictures (in capitals where there is none)."""
    segments = decoded.trace.segments
    parts = [s.text if isinstance(s, TextSegment) else s.role if s.picture else s.role.upper() for s in segments]
    return [part for part in parts if part]


@pytest.mark.parametrize(
    "line",
    [
        {"tokens": ROW},
        {"prompt": "red", "response": ROW},
        {"prompt": "red", "response": ROW[1:]},  # as the published code asks, without bos
        TrainingRow.of(pieces_of(ROW, VOCAB), source="f:1").to_json(),
    ],
)
def test_every_kind_of_row_is_prompt_words_and_pictures(tmp_path: Path, line: dict[str, Any]) -> None:
    decoded = only(decode(tmp_path, [line]))
    assert decoded.trace.prompt == decoded.line["prompt"] == "red"
    assert shape(decoded) == ["ab", "final"]
    assert decoded.trace.anomalies == ()
    assert decoded.trace.images[0].picture is not None
    assert decoded.trace.images[0].picture.tobytes() == TOKENIZER.picture(CODES).tobytes()
    assert [token for segment in decoded.trace.segments for token in segment.tokens] == ROW[len(PROMPT) :]


def test_a_trace_is_read_as_it_was_thought(tmp_path: Path) -> None:
    trace = thinker().think("red", mode="subgoal", seed=1)
    decoded = only(decode(tmp_path, [trace.to_json()]))
    assert decoded.trace.filed("x") == trace.filed("x")
    drawn = [segment.picture for segment in decoded.trace.images if segment.picture]
    assert [picture.tobytes() for picture in drawn] == [s.picture.tobytes() for s in trace.images if s.picture]


def test_input_pictures_of_a_trace_come_from_its_folder(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8), "red")
    trace = thinker().think("what is it?<image>", pictures=[picture], mode="general").filed("t")
    (tmp_path / "images").mkdir()
    for name, content in trace.files().items():
        (tmp_path / name).write_bytes(content)
    decoded = only(decode(tmp_path, [trace.to_json()]))
    first = decoded.trace.segments[0]
    assert isinstance(first, ImageSegment)
    assert first.role == "input"
    assert first.picture is not None
    assert first.picture.tobytes() == picture.tobytes()


def test_pictures_of_a_prompt_are_shown_as_its_input(tmp_path: Path) -> None:
    asked = TOKENIZER.encode_prompt("red <image>", [CODES])
    decoded = only(decode(tmp_path, [{"tokens": [*asked, *AB, VOCAB.eos]}]))
    assert decoded.trace.prompt == "red <image>"
    assert shape(decoded) == ["input", "ab"]


def test_further_turns_follow_as_segments(tmp_path: Path) -> None:
    row = [*ROW, *PROMPT[1:], *AB, VOCAB.eos]
    decoded = only(decode(tmp_path, [{"tokens": row}]))
    assert shape(decoded) == ["ab", "final", "red", "ab"]
    assert decoded.trace.anomalies == ()


@pytest.mark.parametrize(
    ("mode", "words", "kinds"),
    [
        ("subgoal", "ab", ["part", "part"]),
        ("subgoal", "Now the whole picture.", ["part", "whole"]),
        ("critique", "ab", ["draft", "redraw"]),
    ],
)
def test_the_mode_is_known_by_its_template(tmp_path: Path, mode: str, words: str, kinds: list[str]) -> None:
    asked = TOKENIZER.encode_prompt(MODES[mode].prompt_text("red"))
    decoded = only(decode(tmp_path, [{"tokens": [*asked, *IMAGE, *TOKENIZER.text.encode(words), *IMAGE, VOCAB.eos]}]))
    assert (decoded.trace.mode, decoded.trace.prompt) == (mode, "red")
    assert shape(decoded) == [KINDS[kinds[0]].role, words, "final"]
    assert [image.kind for image in decoded.trace.images] == kinds
    assert mode_of("red") == (MODES["general"], "red")


@pytest.mark.parametrize(
    ("answer", "kinds", "shown"),
    [
        ([*AB, *IMAGE[:-2], IMAGE[-1], *AB], [("short_image", 1)], ["ab", "FINAL", "ab"]),
        ([*AB, *IMAGE[:4], *IMAGE], [("short_image", 1), ("boi_in_image", 5)], ["ab", "DRAFT", "final"]),
        ([*AB, VOCAB.eoi, *AB], [("eoi_in_text", 1)], ["abab"]),
        ([*IMAGE, VOCAB.eoi, *AB], [("eoi_in_text", 11)], ["final", "ab"]),
        ([*IMAGE[:-1], *AB], [("missing_eoi", 10)], ["final", "ab"]),
        ([*AB, IMAGE[1], *AB], [("image_id_in_text", 1)], ["abab"]),
        ([*AB, VOCAB.size, -1, *AB], [("unknown_id", 1)], ["abab"]),
        ([VOCAB.boi], [("short_image", 0), ("missing_eoi", 1)], ["FINAL"]),
    ],
)
def test_what_is_malformed_is_listed_and_no_words_are_lost(
    tmp_path: Path, answer: list[int], kinds: list[tuple[str, int]], shown: list[str]
) -> None:
    decoded = only(decode(tmp_path, [{"tokens": [*PROMPT, *answer]}]))
    assert [(a.kind, a.position - len(PROMPT)) for a in decoded.trace.anomalies] == kinds
    assert shape(decoded) == shown
    assert decoded.line["anomalies"] == [anomaly.to_json() for anomaly in decoded.trace.anomalies]


ANY = [*VOCAB.special.values(), IMAGE[1], AB[0], -1, VOCAB.size, 2**70]
PARTS = st.sampled_from([IMAGE, IMAGE[:-1], IMAGE[:4]]) | st.sampled_from(ANY).map(lambda token: [token])


@settings(max_examples=40)
@given(parts=st.lists(PARTS, max_size=10))
def test_any_ids_at_all_are_read_and_none_after_the_separator_is_lost(parts: list[list[int]]) -> None:
    ids = [token for part in parts for token in part]
    after = ids[ids.index(VOCAB.separator) + 1 :] if VOCAB.separator in ids else ids
    line = Line(where="f:1", folder=Path(), value={"tokens": ids})
    trace = TokenDecoder(tokenizer=TOKENIZER, model=MODEL).decode_line(line, "s").trace
    assert [token for segment in trace.segments for token in segment.tokens] == after
    assert TokenDecoder(tokenizer=TOKENIZER, model=MODEL, reference=True).decode_line(line, "s").where == "f:1"


def test_ids_without_a_separator_are_an_answer(tmp_path: Path) -> None:
    decoded = only(decode(tmp_path, [{"prompt": "red", "response": [*AB, *IMAGE]}]))
    assert decoded.line["prompt"] == "red"
    assert shape(decoded) == ["ab", "final"]


def test_a_line_that_says_another_prompt_than_its_ids_keeps_both(tmp_path: Path) -> None:
    decoded = only(decode(tmp_path, [{"prompt": "blue", "tokens": ROW}]))
    assert (decoded.line["prompt"], decoded.line["given_prompt"]) == ("red", "blue")


def test_the_published_way_runs_all_ids_together(tmp_path: Path) -> None:
    decoded = only(decode(tmp_path, [{"prompt": "red", "response": [*ROW, *IMAGE[:3]]}], reference=True))
    assert decoded.line == {
        "source": f"{tmp_path}/tokens.jsonl:1",
        "prompt": "red",
        "text": "redab<image_0><invalid_image_1>",
        "image_paths": ["00000/image_0.png", None],
    }
    assert list(decoded.trace.files()) == ["00000/image_0.png"]


@pytest.mark.parametrize("reference", [False, True])
def test_a_line_without_ids_is_told_and_the_others_live(tmp_path: Path, reference: bool) -> None:
    bad = [{"prompt": "red"}, {"tokens": ["0"]}, {"tokens": [], "prompt": 3}, {"segments": [], "model": {}}]
    entries = decode(tmp_path, [*bad, {"tokens": ROW}], reference=reference)
    assert [type(entry) for entry in entries] == [Fault] * 4 + [Decoded]
    assert [entry.where for entry in entries] == [f"{tmp_path}/tokens.jsonl:{line}" for line in range(1, 6)]


def test_a_folder_has_pictures_lines_and_a_page(tmp_path: Path) -> None:
    bad = [*PROMPT, *IMAGE[:3], VOCAB.eos]
    entries = decode(tmp_path, [{"tokens": ROW}, {"tokens": bad}, {"prompt": "<b>"}])
    done = unpack(entries, tmp_path / "out", title="rows")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("[!.]*.*")) == [
        "decoded.jsonl", "images/00000-0.png", "index.html", "run.json", "traces.jsonl",
    ]  # fmt: skip
    assert (done.decoded, done.pictures, len(done.malformed), len(done.refused)) == (2, 1, 1, 1)
    assert len(done.problems()) == 3
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/png") == 1
    assert "short_image" in page
    with pytest.raises(RunError, match="not empty"):
        unpack(entries, tmp_path / "out", title="rows")


def test_rows_of_another_tokenizer_are_not_decoded_to_noise(tmp_path: Path) -> None:
    (refused,) = decode(tmp_path, [{"tokens": ROW, "tokenizer": "0" * 64}])
    assert isinstance(refused, Fault)
    assert "another vocabulary or image tokenizer" in refused.reason
    only(decode(tmp_path, [{"tokens": ROW, "tokenizer": TOKENIZER.sha256}]))
