"""A trace leaves the program as version 2 and comes back the same, or not at all."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from twgi.errors import RunError, TraceError
from twgi.trace import Anomaly, ImageSegment, ModelId, Segment, TextSegment, Trace, from_line, read_traces, to_line

TOKENS = st.lists(st.integers(min_value=0, max_value=10**6), max_size=5).map(tuple)
SEGMENT: st.SearchStrategy[Segment] = st.one_of(
    st.builds(TextSegment, text=st.text(), tokens=TOKENS),
    st.builds(ImageSegment, tokens=TOKENS, image=st.none() | st.just("images/0.png"), role=st.just("subgoal")),
)
TRACE = st.builds(
    Trace,
    prompt=st.text(st.characters()),  # lone surrogates too
    mode=st.sampled_from(["direct", "subgoal"]),
    seed=st.integers(),
    sample=st.integers(min_value=0),
    model=st.builds(ModelId, name=st.text(), sha256=st.text()),
    settings=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.text()),
    finish_reason=st.sampled_from(["stop", "length", "cancelled"]),
    segments=st.lists(SEGMENT, max_size=4).map(tuple),
    anomalies=st.lists(st.builds(Anomaly, position=st.integers(), kind=st.text(), detail=st.text())).map(tuple),
)

RED, BLUE = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
THOUGHT = Trace(
    prompt="a photo of a red couch",
    mode="subgoal",
    seed=7,
    sample=1,
    model=ModelId(name="icons", sha256="ab12"),
    settings={"guidance": {"final": {"full": 2.0}}},
    finish_reason="stop",
    segments=(
        TextSegment(text="First the couch. ", tokens=(20, 21)),
        ImageSegment(tokens=(8, 5, 9), role="subgoal", kind="part", picture=RED),
        TextSegment(text="\n"),
        ImageSegment(tokens=(8, 6, 9), role="final", kind="whole", picture=BLUE),
        TextSegment(text="Done.", tokens=(22, 2)),
    ),
    end_token=2,
    anomalies=(Anomaly(position=3, kind="short_image", detail="1 of 2"),),
    timing={"seconds": 1.5},
)
JSON: dict[str, Any] = {
    "version": 2,
    "id": "x",
    "prompt": "a photo of a red couch",
    "mode": "subgoal",
    "seed": 7,
    "sample": 1,
    "model": {"name": "icons", "sha256": "ab12"},
    "settings": {"guidance": {"final": {"full": 2.0}}},
    "finish_reason": "stop",
    "segments": [
        {"type": "text", "text": "First the couch. ", "tokens": [20, 21]},
        {"type": "image", "image": "images/x-0.png", "role": "subgoal", "kind": "part", "tokens": [8, 5, 9]},
        {"type": "text", "text": "\n", "tokens": []},
        {"type": "image", "image": "images/x-1.png", "role": "final", "kind": "whole", "tokens": [8, 6, 9]},
        {"type": "text", "text": "Done.", "tokens": [22, 2]},
    ],
    "end_token": 2,
    "anomalies": [{"position": 3, "kind": "short_image", "detail": "1 of 2"}],
    "timing": {"seconds": 1.5},
}


def test_the_json_is_that_of_the_design() -> None:
    assert THOUGHT.filed("x").to_json() == JSON
    assert list(THOUGHT.to_json()) == list(JSON)
    assert Trace.from_json(JSON) == THOUGHT.filed("x")


def test_a_trace_of_version_1_has_its_id_in_its_pictures_and_its_kinds_in_its_settings() -> None:
    old = json.loads(json.dumps(JSON)) | {"version": 1}
    del old["id"], old["end_token"]
    old["settings"] = {"guidance": {"pictures": [{"kind": "part"}, {"kind": "whole"}]}}
    for segment in old["segments"]:
        segment.pop("kind", None)
    assert Trace.from_json(old) == replace(THOUGHT.filed("x"), settings=old["settings"], end_token=None)
    with pytest.raises(TraceError, match="version 1 has the unknown key 'id'"):
        Trace.from_json({**old, "id": "x"})


@settings(max_examples=40)
@given(TRACE)
def test_a_trace_is_one_line_and_comes_back_the_same(trace: Trace) -> None:
    line = to_line(trace)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert from_line(line) == trace


def test_all_tokens_after_the_separator_are_those_of_the_segments() -> None:
    assert THOUGHT.tokens == (20, 21, 8, 5, 9, 8, 6, 9, 22, 2)


def test_words_pictures_and_the_final_picture_can_be_asked_for() -> None:
    assert THOUGHT.text == "First the couch.\nDone."
    assert [image.role for image in THOUGHT.images] == ["subgoal", "final"]
    assert THOUGHT.final is BLUE
    given_only = replace(THOUGHT, segments=(ImageSegment(role="input", picture=RED),))
    assert (given_only.images, given_only.final, given_only.text) == ((), None, "")


def broken(*path: str | int, value: Any) -> Any:
    """The JSON of the thought with one value set, or taken out where it is `...`."""
    copy = json.loads(json.dumps(JSON))
    *way, last = path
    inner = copy
    for key in way:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return copy


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (broken("version", value=3), "version 3"),
        (broken("version", value=...), "version null"),
        (broken("version", value=True), "'version' must be of type int"),
        (broken("colour", value=1), "unknown key 'colour'"),
        (broken("seed", value=...), "lacks 'seed'"),
        (broken("id", value="../x"), "plain name"),
        (broken("end_token", value="2"), "'end_token' must be of type int | None"),
        (broken("segments", 1, "kind", value=3), "'kind' must be of type str | None"),
        (broken("seed", value="7"), "'seed' must be of type int"),
        (broken("sample", value=True), "'sample' must be of type int"),
        (broken("finish_reason", value="bored"), "stop, length, cancelled"),
        (broken("model", "path", value="/x"), "unknown key 'path'"),
        (broken("segments", value={}), "'segments' must be of type list"),
        (broken("segments", 0, "type", value="sound"), "text or image"),
        (broken("segments", 0, "type", value=["text"]), "text or image"),
        (broken("segments", 0, value="text"), "text or image"),
        (broken("segments", 0, "role", value="final"), "unknown key 'role'"),
        (broken("segments", 0, "tokens", value=[1, "2"]), "whole numbers"),
        (broken("segments", 0, "tokens", value=[True]), "whole numbers"),
        (broken("segments", 1, "role", value="cover"), "input, subgoal, draft, final"),
        (broken("segments", 1, "role", value="input"), "has no tokens"),
        (broken("segments", 1, "image", value=3), "'image' must be of type str | None"),
        (broken("anomalies", 0, "position", value="3"), "'position' must be of type int"),
        (broken("timing", value=None), "'timing' must be of type dict"),
        ([], "must be a JSON object"),
    ],
)
def test_what_is_unknown_missing_or_of_another_type_is_refused(value: Any, said: str) -> None:
    with pytest.raises(TraceError) as error:
        Trace.from_json(value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x.png", "images/../../x", "images//x", ".hidden", "a\0b", "C:\\x", "x" * 200, "", "a b"]
)
def test_the_path_of_a_picture_cannot_leave_the_run_folder(path: str) -> None:
    with pytest.raises(TraceError, match="relative and plain"):
        Trace.from_json(broken("segments", 1, "image", value=path))


@pytest.mark.parametrize("line", ["", "{", "[1]", '{"version": 2, "version": 2}', '{"seed": NaN}', "[" * 100_000])
def test_a_line_that_is_no_trace_is_refused(line: str) -> None:
    with pytest.raises(TraceError):
        from_line(line)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_bytes(to_line(THOUGHT) + b'{"version": 3}\n')
    traces = read_traces(tmp_path)
    assert next(traces).seed == 7
    with pytest.raises(TraceError, match=r"traces\.jsonl:2: trace of version 3"):
        next(traces)
    with pytest.raises(TraceError, match="absent"):
        next(read_traces(tmp_path / "absent"))


def test_a_saved_thought_is_a_run_folder_and_comes_back_with_its_pictures(tmp_path: Path) -> None:
    page = THOUGHT.save(tmp_path / "deep" / "out")
    out = tmp_path / "deep" / "out"
    files = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    assert files == [".lock", "images/00000-1-0.png", "images/00000-1-1.png", "index.html", "run.json", "traces.jsonl"]
    assert page == out / "index.html"
    assert "a photo of a red couch" in page.read_text()
    assert json.loads((out / "run.json").read_text())["settings"] == THOUGHT.settings
    (trace,) = read_traces(out)
    assert trace == THOUGHT.filed("00000-1")
    final = trace.with_pictures(out).final
    assert final is not None
    assert final.tobytes() == BLUE.tobytes()


def test_saving_over_a_run_must_be_asked_for(tmp_path: Path) -> None:
    THOUGHT.save(tmp_path)
    with pytest.raises(RunError, match="overwrite=True"):
        THOUGHT.save(tmp_path)
    replace(THOUGHT, seed=8).save(tmp_path, overwrite=True)
    assert [trace.seed for trace in read_traces(tmp_path)] == [8]


@pytest.mark.parametrize("folder", ["file/out", "nul\0byte"])
def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot"):
        THOUGHT.save(tmp_path / folder)


def test_a_picture_file_that_is_gone_or_broken_leaves_no_picture(tmp_path: Path) -> None:
    THOUGHT.save(tmp_path)
    (tmp_path / "images" / "00000-1-0.png").unlink()
    (tmp_path / "images" / "00000-1-1.png").write_text("no picture")
    (trace,) = read_traces(tmp_path)
    assert [image.picture for image in trace.with_pictures(tmp_path).images] == [None, None]


def test_example_rows_of_real_training_data_fit_a_trace(shared: Callable[[str], Path]) -> None:
    row = json.loads(shared("seed_data/training/dataset_example.jsonl").read_text().splitlines()[0])
    ids = next(value for value in row.values() if isinstance(value, list) and all(type(i) is int for i in value))
    after = tuple(ids[ids.index(8710) + 1 :])
    trace = replace(THOUGHT, segments=(TextSegment(text="", tokens=after),))
    assert from_line(to_line(trace)).tokens == after
