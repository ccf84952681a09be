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
from twgi.training.chains import run_chains

pytest.importorskip("transformers")


@pytest.mark.slow
def test_the_real_rows_are_learnt_and_drawn_again_token_for_token(
    tmp_path: Path, shared: Callable[[str], Path]
) -> None:
    data = shared("seed_data/training/dataset_example.jsonl")
    vocab = save_real_layout(tmp_path / "start")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(OVERFIT | {
        "out": str(tmp_path / "run"), "model": str(tmp_path / "start"), "data": [str(data)],
    }))  # fmt: skip
    folder = run_chains(recipe)
    losses = [
        json.loads(line).get("loss", 1.0) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert min(losses) < 0.05
    model = load(folder).model
    for line in data.read_text().splitlines():
        row = json.loads(line)["tokens"]
        start = row.index(vocab.separator) + 1
        assert greedy(model, vocab, row[:start], budget=len(row) - start) == row


OVERFIT = {
    "batching": {"batch": 2, "micro_batch": 1}, "optimizer": {"lr": 5e-3, "warmup": 20, "beta2": 0.98}, "steps": 200,
    "bf16": True, "loss": {"reconstruction": 0.0}, "log_every": 5, "save_every": 20,
}  # fmt: skip
