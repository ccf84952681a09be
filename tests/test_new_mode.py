"""A mode is one entry of one table: what is added there thinks, is scored, reported and audited."""

import json
from pathlib import Path

import pytest
from tests.tiny import save_tiny

from twgi.cli import execute
from twgi.runs.folder import read_run, read_thoughts
from twgi.thinking.modes import MODES, Mode

SKETCH = Mode(
    name="sketch",
    template="Sketch it, look at the sketch, draw it. It is: {prompt}",
    kinds=("draft", "redraw"),
    kind_of=lambda k, text: "redraw" if k else "draft",
    starts_with_image=True,
    max_images=2,
)


@pytest.mark.usefixtures("tiny_world")
def test_a_mode_added_in_one_place_thinks_is_scored_reported_and_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODES, "sketch", SKETCH)
    model, prompts, out = save_tiny(tmp_path / "tiny"), tmp_path / "prompts.jsonl", tmp_path / "out"
    for name in ("cat", "bus"):
        line = {"tag": "colors", "include": [{"class": name, "count": 1}], "prompt": f"a {name}"}
        with prompts.open("a") as file:
            file.write(json.dumps(line) + "\n")
    common = ["--model", str(model), "--mode", "sketch", "--samples", "2", "--max-images", "2", "--out", str(out)]
    assert execute(["eval", "geneval", "--prompts", str(prompts), *common]) == 0
    assert read_run(out).settings.mode == "sketch"
    thoughts = list(read_thoughts(out))
    assert {trace.mode for trace in thoughts} == {"sketch"}
    assert {image.kind for trace in thoughts for image in trace.images} == {"draft", "redraw"}
    assert json.loads((out / "scores.json").read_text())["thoughts"] == 4
    assert execute(["report", str(out), "--out", str(tmp_path / "report")]) == 0
    assert "sketch" in (tmp_path / "report" / "report.md").read_text()
    assert execute(["audit", str(out), "--model", str(model), "--limit", "1"]) == 0
    audit = json.loads((out / "audit.json").read_text())
    assert audit["mode"] == "sketch"
    assert audit["effects"], "the words about its drafts can be changed"
    capsys.readouterr()
