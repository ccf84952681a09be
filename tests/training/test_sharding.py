"""Laws of several processes (gloo, two on this machine): each holds a part, together they are as one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.training.runs import tear, train_and_kill, train_together, weights, write_recipe

from twgi.training.checkpoints import checkpoints
from twgi.training.train import train_chains

pytest.importorskip("peft")

TWO: dict[str, Any] = {"batching": {"batch": 4, "micro_batch": 1}, "optimizer": {"lr": 1e-3}, "save_every": 2}
LORA: dict[str, Any] = {"method": "lora", "lora": {"rank": 4, "dropout": 0.2}}
PLAIN: dict[str, Any] = {"method": "lora", "lora": {"rank": 4}}  # dropout is drawn apart in each process
VARIANTS: dict[str, dict[str, Any]] = {
    "full": TWO, "lora": {**TWO, **PLAIN}, "bfloat16": {**TWO, **PLAIN, "dtype": "bfloat16", "bf16": True},
    "dropout": {**TWO, **LORA},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every variant trained by two processes (`NAME`) and, but for dropout, by one (`NAME-one`)."""
    folder = tmp_path_factory.mktemp("two")
    recipes = [write_recipe(folder, name, **changes) for name, changes in VARIANTS.items()]
    said = train_together([*recipes, write_recipe(folder, "dropout-torn", **VARIANTS["dropout"])]).splitlines()
    assert any(line.endswith("dropout-torn/checkpoint-4") for line in said), "it goes on"
    for name in (*VARIANTS, "dropout-torn"):
        assert said.count(str(folder / name / "model")) == 1, "the first process alone speaks"
    for name in ("full", "lora", "bfloat16"):
        train_chains(write_recipe(folder, f"{name}-one", **VARIANTS[name]))
    return folder


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
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["full", "lora", "bfloat16"])
def test_two_processes_come_to_what_one_comes_to(folder: Path, name: str) -> None:
    one, two = folder / f"{name}-one", folder / name
    assert_near(one / "model" / "model.safetensors", two / "model" / "model.safetensors")
    if name != "full":
        adapter = Path("adapter") / "adapter_model.safetensors"
        assert_near(one / adapter, two / adapter)
    start = load_file(folder / "start" / "model.safetensors")["lm_head.weight"]
    assert not load_file(two / "model" / "model.safetensors")["lm_head.weight"].equal(start)


def test_every_parameter_is_spread_over_both(folder: Path) -> None:
    spread = parts(checkpoints(folder / "full")[0])
    assert spread.keys() == parts(checkpoints(folder / "full-one")[0]).keys()
    assert all(len(sizes) == 2 for sizes in spread.values())


def test_two_processes_resume_to_the_same_bytes(folder: Path) -> None:
    assert weights(folder / "dropout-torn") == weights(folder / "dropout")


def test_a_checkpoint_of_two_processes_goes_on_in_one(folder: Path) -> None:
    out = folder / "full-torn"
    tear(folder / "full", out)
    train_chains(write_recipe(folder, out.name, **VARIANTS["full"]))
    assert_near(folder / "full" / "model" / "model.safetensors", out / "model" / "model.safetensors")


@pytest.mark.slow
def test_two_killed_processes_resume_to_the_same_bytes(tmp_path: Path) -> None:
    whole, killed = (write_recipe(tmp_path, name, steps=40, **TWO) for name in ("whole", "killed"))
    train_together([whole])
    train_and_kill(killed, tmp_path / "killed", after=5, processes=2)
    assert not (tmp_path / "killed" / "model").exists()
    train_together([killed])
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
