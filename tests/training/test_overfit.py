"""The two real rows of the published repository, learnt by heart by a small model of the published layout.

Minutes long: `pytest -m slow tests/training/test_overfit.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.training.real_layout import greedy, save_real_layout

from twgi.checkpoint.load import load
from twgi.cli import execute


@pytest.mark.slow
def test_the_real_rows_are_learnt_and_drawn_again_token_for_token(
    tmp_path: Path, shared: Callable[[str], Path]
) -> None:
    data = shared("seed_data/training/dataset_example.jsonl")
    start, rows, recipe = tmp_path / "start", tmp_path / "rows.jsonl", tmp_path / "recipe.yaml"
    vocab = save_real_layout(start)
    assert execute(["encode", str(data), "--model", str(start), "--out", str(rows)]) == 0
    recipe.write_text(yaml.safe_dump(OVERFIT | {
        "out": str(tmp_path / "run"), "model": str(start), "data": [str(rows)],
    }))  # fmt: skip
    assert execute(["train", str(recipe)]) == 0
    losses = [
        json.loads(line).get("loss", 1.0) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert min(losses) < 0.05
    model = load(tmp_path / "run" / "model").model
    for line in data.read_text().splitlines():
        row = json.loads(line)["tokens"]
        begin = row.index(vocab.separator) + 1
        assert greedy(model, vocab, row[:begin], budget=len(row) - begin) == row


OVERFIT = {
    "batching": {"batch": 2, "micro_batch": 1}, "optimizer": {"lr": 5e-3, "warmup": 20, "beta2": 0.98}, "steps": 200,
    "bf16": True, "loss": {"reconstruction": 0.0}, "log_every": 5, "save_every": 20,
}  # fmt: skip
