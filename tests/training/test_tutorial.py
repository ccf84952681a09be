"""The tutorial of docs/finetune.md: in short form always, in full with `pytest -m slow`."""

import json
from pathlib import Path

import pytest
from scripts import corners

from twgi.checkpoint.load import load
from twgi.icons.world import render
from twgi.thinking.thinker import Thinker
from twgi.training.train import train_chains

pytest.importorskip("peft")

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = ["steps=4", "batching.batch=8", "batching.micro_batch=8", "log_every=1", "optimizer.warmup=1"]


def run(tmp_path: Path, method: str, rows: int, *overrides: str) -> Path:
    """The commands of the tutorial."""
    data = corners.make(tmp_path / "corners", rows)
    here = [f"data=[{data}]", f"out={tmp_path / method}"]
    return train_chains(RECIPES / f"icons_{method}.yaml", [*here, *overrides])


def score(folder: Path | str, prompts: int) -> dict[str, float]:
    loaded = load(folder)
    return dict(corners.score(Thinker(loaded.model, loaded.tokenizer, loaded), prompts))


def test_every_picture_of_the_data_is_right_by_the_judge_of_the_score() -> None:
    for wish in corners.wishes(40, seed=5):
        assert corners.is_right(wish, render(wish.scene)), wish.prompt
    wrong = corners.Wish(kind="corner", prompt="", scene=next(iter(corners.wishes(1, seed=1))).scene)
    other = next(w for w in corners.wishes(40, seed=6) if w.kind == "corner" and w.scene != wrong.scene)
    assert not corners.is_right(wrong, render(other.scene))


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_the_tutorial_runs_and_the_loss_falls(tmp_path: Path, method: str) -> None:
    folder = run(tmp_path, method, 16, *SHORT)
    rows = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    losses = [row["image_ce"] for row in rows if "image_ce" in row]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert set(score(folder, 2)) == {"corner", "diagonal"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_tutorial_teaches_the_new_task(tmp_path: Path, method: str) -> None:
    before = score("icons", 100)
    after = score(run(tmp_path, method, 1200), 100)
    assert before["corner"] < 0.5
    assert after["corner"] > 0.8
    assert after["diagonal"] > before["diagonal"] + 0.2
