"""Laws of a configuration of DeepSpeed that is handed on: two processes come to what one comes to without it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.runs import train, weights, write_recipe

from twgi.errors import ConfigError
from twgi.training.chains import run_chains

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("deepspeed", reason="deepspeed is not installed")

AUTO = dict.fromkeys(
    ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size", "gradient_clipping"), "auto"
)
TWO: dict[str, Any] = {"batching": {"batch": 4, "micro_batch": 1}, "optimizer": {"lr": 1e-3, "warmup": 1}}
LORA: dict[str, Any] = {"method": "lora", "lora": {"rank": 4}}
ADAM = {
    "type": "AdamW",
    "params": {"torch_adam": True, **dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")},
}


def run_two(recipe: Path) -> None:
    done = train(recipe, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def write_configuration(folder: Path, **more: Any) -> str:
    path = folder / "deepspeed.json"
    path.write_text(json.dumps(AUTO | more))
    return str(path)


@pytest.mark.parametrize("changes", [{}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_two_processes_come_to_what_one_comes_to_and_resume_to_the_same_bytes(
    tmp_path: Path, stage: int, changes: dict[str, Any]
) -> None:
    file = write_configuration(tmp_path, zero_optimization={"stage": stage, "stage3_param_persistence_threshold": 0})
    one = run_chains(write_recipe(tmp_path, "one", **TWO, **changes))
    recipe = write_recipe(tmp_path, "two", deepspeed=file, **TWO, **changes)
    run_two(recipe)
    expected, found = (load_file(folder / "model.safetensors") for folder in (one, tmp_path / "two" / "model"))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)

    before = weights(tmp_path / "two")
    for last in ("model", "checkpoint-6"):  # killed while it wrote the model; then, two steps before
        shutil.rmtree(tmp_path / "two" / last)
        shutil.rmtree(tmp_path / "two" / "model", ignore_errors=True)
        run_two(recipe)
        assert weights(tmp_path / "two") == before


def test_a_configuration_with_an_optimizer_of_its_own_takes_the_numbers_of_the_recipe(tmp_path: Path) -> None:
    file = write_configuration(tmp_path, zero_optimization={"stage": 2}, optimizer=ADAM)
    one = run_chains(write_recipe(tmp_path, "one", **TWO))
    run_two(write_recipe(tmp_path, "two", deepspeed=file, **TWO))
    expected, found = (load_file(folder / "model.safetensors") for folder in (one, tmp_path / "two" / "model"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)


def test_without_torchrun_it_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="deepspeed needs torchrun"):
        run_chains(write_recipe(tmp_path, deepspeed=write_configuration(tmp_path)))
    assert not (tmp_path / "run").exists()
