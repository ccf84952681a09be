"""Laws of several processes (gloo, two on this machine): each holds a part, together they are as one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.training.runs import train, train_and_kill, weights, write_recipe

from twgi.training.chains import run_chains
from twgi.training.checkpoints import checkpoints

pytest.importorskip("transformers")
pytest.importorskip("peft")

TWO: dict[str, Any] = {"batching": {"batch": 4, "micro_batch": 1}, "optimizer": {"lr": 1e-3}, "save_every": 2}


def run_two(recipe: Path) -> None:
    done = train(recipe, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]


def parts(checkpoint: Path) -> dict[str, list[int]]:
    """Number of weights of each trained parameter that each process wrote."""
    found: dict[str, list[int]] = {}
    for file in sorted(checkpoint.glob("shard-*")):
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118
                if name.startswith("model:"):
                    found.setdefault(name, []).append(shard.get_tensor(name).numel())
    return found


def assert_near(one: Path, other: Path) -> None:
    first, second = (load_file(out / "model" / "model.safetensors") for out in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-5)


def test_two_processes_come_to_what_one_comes_to_and_a_killed_run_to_the_same_bytes(tmp_path: Path) -> None:
    run_chains(write_recipe(tmp_path, "one", steps=40, **TWO))
    run_two(write_recipe(tmp_path, "two", steps=40, **TWO))
    assert_near(tmp_path / "one", tmp_path / "two")
    spread = parts(checkpoints(tmp_path / "two")[0])
    assert spread.keys() == parts(checkpoints(tmp_path / "one")[0]).keys()
    assert all(len(sizes) == 2 for sizes in spread.values()), "every parameter is spread over both"

    killed = write_recipe(tmp_path, "killed", steps=40, **TWO)
    train_and_kill(killed, tmp_path / "killed", after=5, processes=2)
    assert not (tmp_path / "killed" / "model").exists()
    run_two(killed)
    assert weights(tmp_path / "killed") == weights(tmp_path / "two")


@pytest.mark.parametrize("changes", [{}, {"dtype": "bfloat16", "bf16": True}], ids=["float32", "bfloat16"])
def test_adapters_in_two_processes_come_to_what_they_come_to_in_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    lora: dict[str, Any] = {**TWO, **changes, "method": "lora", "lora": {"rank": 4}}
    run_chains(write_recipe(tmp_path, "one", **lora))
    run_two(write_recipe(tmp_path, "two", **lora))
    assert_near(tmp_path / "one", tmp_path / "two")
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    adapters = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two")]
    assert adapters[0].keys() == adapters[1].keys()


def test_a_checkpoint_of_two_processes_goes_on_in_one(tmp_path: Path) -> None:
    run_two(write_recipe(tmp_path, "run", **TWO))
    whole = weights(tmp_path / "run")
    newest, before = checkpoints(tmp_path / "run")
    (newest / "manifest.json").unlink()
    run_chains(tmp_path / "run.yaml")
    assert before.name == "checkpoint-4"
    assert len(weights(tmp_path / "run")) == len(whole)
