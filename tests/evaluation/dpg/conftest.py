"""A run of DPG's kind."""

import json
from pathlib import Path

import pytest
from tests.evaluation.dpg.drawing import PROMPTS
from tests.tiny import save_tiny

from twgi.cli import execute
from twgi.icons.dense import write_dense


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny random model over two prompts: its folder has prompts.jsonl beside it."""
    folder = tmp_path_factory.mktemp("generated")
    model = save_tiny(folder / "model")
    lines = [{"id": prompt.id, "prompt": prompt.request.prompt} for prompt in PROMPTS[:2]]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "dense.csv").write_text(write_dense(PROMPTS[:2], lines=False))
    command = ["eval", "dpg", "--prompts", f"{folder}/prompts.jsonl", "--model", str(model), "--out", f"{folder}/run"]
    assert execute(command) == 0
    return folder / "run"
