"""Laws of the loop and of runs on chains: what is exported, what resumes, what is refused."""

import contextlib
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.runs import VOCAB, save_model, train_and_kill, weights, write_recipe
from tests.training.test_loss import ROWS, batch_of, objective

from twgi.checkpoint.load import load
from twgi.cli import execute
from twgi.errors import CheckpointError, ConfigError, RunError
from twgi.files import FolderLock
from twgi.model.transformer import Block
from twgi.thinking.thinker import Thinker
from twgi.training.checkpoints import checkpoints, newest_checkpoint, torn
from twgi.training.metrics import open_tracker
from twgi.training.model import PROJECTION, merge_folder
from twgi.training.objective import LossWeights, Objective
from twgi.training.recipe import RunRecipe
from twgi.training.train import begin, fit, learning_rate, train_chains

pytest.importorskip("peft")

LORA: dict[str, Any] = {"method": "lora", "lora": {"rank": 4, "dropout": 0.2}}
METHODS = pytest.mark.parametrize("changes", [{}, LORA], ids=["full", "lora"])


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@METHODS
def test_what_is_exported_thinks_and_has_the_image_tokenizer_to_the_bit(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = train_chains(write_recipe(tmp_path, **changes)).parent
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "start", out / "model"))
    assert before.keys() == after.keys()
    unchanged = {name for name, value in before.items() if value.equal(after[name])}
    assert {name for name in before if name.startswith("model.vqmodel.")} <= unchanged
    moved = "norm" if changes else "model.vqmodel."  # adapters leave norms alone
    assert all(moved in name or "vqmodel" in name for name in unchanged)
    loaded = load(out / "model")
    trace = Thinker(loaded.model, loaded.tokenizer, loaded).think("ab", mode="direct")
    assert len(trace.images) == 1


@pytest.mark.parametrize("changes", [pytest.param({}, marks=pytest.mark.slow), LORA], ids=["full", "lora"])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, killed = (write_recipe(tmp_path, name, steps=40, **changes) for name in ("whole", "killed"))
    train_chains(whole)
    train_and_kill(killed, tmp_path / "killed", after=random.Random(str(changes)).randrange(5, 30))
    reached = newest_checkpoint(tmp_path / "killed")
    assert reached is not None
    assert not (tmp_path / "killed" / "model").exists()
    train_chains(killed)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    last = [(load_file(c / "shard-00001-model-00001-of-00001.safetensors"), c.name) for c in
            (checkpoints(tmp_path / name)[0] for name in ("whole", "killed"))]  # fmt: skip
    assert last[0][1] == last[1][1]
    assert any(name.startswith("optimizer:") for name in last[0][0])
    assert all(value.equal(last[1][0][name]) for name, value in last[0][0].items())
    for row, again in zip(*(metrics(tmp_path / name) for name in ("whole", "killed")), strict=True):
        assert row | {"seconds": again["seconds"]} == again


def test_a_torn_checkpoint_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train_chains(write_recipe(tmp_path, "whole"))
    recipe = write_recipe(tmp_path, "torn")
    train_chains(recipe)
    newest, before = checkpoints(tmp_path / "torn")
    shard = next(newest.glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    capsys.readouterr()
    train_chains(recipe)
    assert f"{newest} cannot be used ({shard.name} is not" in capsys.readouterr().out
    assert torn(before) is None
    assert weights(tmp_path / "torn") == weights(whole.parent)


def test_checkpoints_hold_nothing_that_could_be_executed(tmp_path: Path) -> None:
    out = train_chains(write_recipe(tmp_path, **LORA)).parent
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.suffix for path in files if path.name != ".lock"} <= {".safetensors", ".json", ".jsonl", ".md"}
    assert len(checkpoints(out)) == 2, "older ones go"
    assert not list(out.glob(".writing-*"))


def test_the_projection_trains_is_saved_and_resumed(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    out = train_chains(recipe).parent
    first, second = (next(iter(c.glob("shard-*"))) for c in sorted(checkpoints(out), key=lambda c: c.name))
    stored = [load_file(file)["model:projection.weight"] for file in (first, second)]
    assert not stored[0].equal(stored[1])
    assert load_file(out / PROJECTION)["weight"].equal(stored[1])


def test_every_term_is_logged_and_adds_up(tmp_path: Path) -> None:
    loss = {"reconstruction": 0.5, "discrepancy": 2.0}
    out = train_chains(write_recipe(tmp_path, loss=loss)).parent
    rows = [row for row in metrics(out) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 7))
    for row in rows:
        total = row["ce"] + 0.5 * row["reconstruction"] + 2.0 * row["discrepancy"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
        assert min(row["text_ce"], row["image_ce"]) <= row["ce"] <= max(row["text_ce"], row["image_ce"])


def test_micro_batches_accumulate_to_the_same_weights(tmp_path: Path) -> None:
    found = []
    for micro in (1, 4):
        batching = {"batch": 4, "micro_batch": micro}
        recipe = write_recipe(tmp_path, f"micro{micro}", batching=batching, optimizer={"lr": 1e-3})
        found.append(load_file(train_chains(recipe) / "model.safetensors"))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=0, atol=1e-5)


PACKED: dict[str, Any] = {"batching": {"batch": 2, "pack": 120}}


def test_a_packed_step_has_more_rows_and_learns(tmp_path: Path) -> None:
    apart, packed = (
        metrics(train_chains(write_recipe(tmp_path, name, **changes)).parent)
        for name, changes in (("apart", {"batching": {"batch": 2}}), ("packed", PACKED))
    )
    assert packed[-1]["loss"] < packed[0]["loss"]
    assert packed[-1]["epoch"] > 2 * apart[-1]["epoch"]


def test_recomputation_runs_the_blocks_again_and_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Path] = []
    calls: list[int] = []
    forward = Block.forward

    def counted(self: Block, *inputs: Any) -> torch.Tensor:
        calls[-1] += 1
        return forward(self, *inputs)

    monkeypatch.setattr(Block, "forward", counted)
    for recompute in (False, True):
        calls.append(0)
        recipe = write_recipe(tmp_path, f"run{recompute}", recompute=recompute, **PACKED)
        runs.append(train_chains(recipe).parent)
    assert calls[1] == 2 * calls[0]
    assert weights(runs[0]) == weights(runs[1])


def test_bfloat16_is_near_float32_and_not_the_same(tmp_path: Path) -> None:
    runs = [train_chains(write_recipe(tmp_path, f"run{bf16}", bf16=bf16, **PACKED)).parent for bf16 in (False, True)]
    exact, rough = ([row["loss"] for row in metrics(out)] for out in runs)
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.02)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rows(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, optimizer={"lr": 1e30, "clip": 0.0})
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d, in the rows .*rows.jsonl:\d+"):
        train_chains(recipe)
    assert not (tmp_path / "run" / "model").exists()


def test_a_run_goes_on_only_as_it_began(tmp_path: Path) -> None:
    train_chains(write_recipe(tmp_path))
    with pytest.raises(RunError, match=r"optimizer\.lr was 0\.01, is now 0\.0001; give another `out`"):
        train_chains(tmp_path / "run.yaml", ["optimizer.lr=1e-4"])
    train_chains(tmp_path / "run.yaml", ["log_every=2"])
    with (tmp_path / "rows.jsonl").open("a") as rows:
        rows.write((tmp_path / "rows.jsonl").read_text().splitlines()[0] + "\n")
    with pytest.raises(RunError, match="rows was"):
        train_chains(tmp_path / "run.yaml")


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    with FolderLock(tmp_path / "run"), pytest.raises(RunError, match="in use by process"):
        train_chains(recipe)


def test_the_norm_of_the_gradient_is_checked_before_anything_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twgi.training.train.get_total_norm", lambda grads: torch.tensor(float("inf")))
    with pytest.raises(RunError, match=r"the norm of the gradient is inf at step 1, in the rows .*rows.jsonl:\d+"):
        train_chains(write_recipe(tmp_path))
    assert not checkpoints(tmp_path / "run")


def test_an_adapter_loads_merges_and_trains_on(tmp_path: Path) -> None:
    out = train_chains(write_recipe(tmp_path, **LORA)).parent
    merged = merge_folder(str(tmp_path / "start"), out / "adapter", tmp_path / "merged")
    assert (merged / "model.safetensors").read_bytes() == weights(out)
    again = train_chains(write_recipe(tmp_path, "again", adapter=str(out / "adapter"), **LORA)).parent
    assert metrics(again)[0]["loss"] < metrics(out)[0]["loss"]
    other = save_model(tmp_path / "other", kv_heads=1)
    with pytest.raises(CheckpointError, match="does not fit"):
        merge_folder(str(other), out / "adapter", tmp_path / "none")
    with pytest.raises(CheckpointError, match="not an adapter"):
        merge_folder(str(other), tmp_path / "start", tmp_path / "none")


def test_an_adapter_says_whether_the_rows_of_image_tokens_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_chains(write_recipe(tmp_path, **LORA))
    assert f"{len(VOCAB.image_tokens) + 2} rows of image tokens in embedding and head train" in capsys.readouterr().out
    frozen = write_recipe(tmp_path, "frozen", method="lora", lora={"image_rows": False})
    out = train_chains(frozen)
    assert "embedding and head are FROZEN" in capsys.readouterr().out
    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "start", out))
    assert before["lm_head.weight"].equal(after["lm_head.weight"])


def test_an_export_that_would_change_the_image_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would change the image tokenizer"):
        train_chains(write_recipe(tmp_path, export_dtype="bfloat16"))


def test_the_learning_rate_warms_up_and_goes_where_it_should() -> None:
    rates = [learning_rate(step, 10, warmup=4) for step in range(11)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[10] == 0
    assert learning_rate(9, 10, warmup=0, schedule="constant") == 1
    assert learning_rate(5, 10, warmup=0, schedule="cosine") == pytest.approx(0.5)
    late = [learning_rate(step, 10, warmup=1, decay_from=0.6) for step in range(11)]
    assert late[1:7] == [1.0] * 6
    assert late[7:] == pytest.approx([0.75, 0.5, 0.25, 0.0])


def test_batches_may_be_made_with_the_model_of_the_moment(tmp_path: Path) -> None:
    found = []
    for name, stops in (("whole", (4,)), ("stopped", (3, 4))):
        for stop in stops:
            trained = sampling_run(tmp_path / name, stop)
        found.append(trained.state_dict())
        assert [row["step"] for row in metrics(tmp_path / name)] == [1, 2, 3, 4]
    assert all(value.equal(found[1][key]) for key, value in found[0].items())


def sampling_run(out: Path, stop: int) -> Objective:
    """Four steps on batches whose weights the model gives, as a reward would; broken off before step `stop`."""
    trained = objective(LossWeights(reconstruction=0))

    def batches(step: int) -> list[dict[str, Any]]:
        if step == stop:
            raise KeyboardInterrupt
        batch = batch_of(ROWS)
        with torch.no_grad():
            own = trained.decoder.logits(trained.decoder(batch["ids"])).argmax(-1)
        return [batch | {"weights": (own == batch["labels"]).float() - 0.5 + step}]

    recipe = RunRecipe(out=str(out), steps=4, log_every=1, save_every=2, bf16=False)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3)
    with contextlib.suppress(KeyboardInterrupt), begin(recipe, {}):
        fit(recipe, trained, optimizer, batches, rate=lambda step: 1.0, clip=1.0, autocast=False)
    return trained


def test_trackers_get_what_the_metrics_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any]] = []
    monkeypatch.setitem(sys.modules, "trackio", stand_in(told))
    monkeypatch.setattr("twgi.training.recipe.find_spec", lambda name: True)
    out = train_chains(write_recipe(tmp_path, report_to=["trackio"])).parent
    (begun, config), *lines = told
    assert begun == "run"
    assert config["optimizer"]["lr"] == 1e-2
    assert [{"step": step, **values} for step, values in lines] == metrics(out)


def test_tensorboard_gets_every_value_with_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[Any, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            written.append((folder,))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None: ...

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    open_tracker("tensorboard", tmp_path, {})({"loss": 2.0, "ce": 1.0}, 7)
    assert written == [(str(tmp_path / "tensorboard"),), ("loss", 2.0, 7), ("ce", 1.0, 7)]


def stand_in(told: list[tuple[str, Any]]) -> ModuleType:
    """The three functions that trackio and wandb have in common."""

    class Run:
        def log(self, values: dict[str, float], *, step: int) -> None:
            told.append((step, values))  # type: ignore[arg-type]

        def finish(self) -> None: ...

    def init(*, project: str, name: str, config: dict[str, Any]) -> Run:
        told.append((name, config))
        return Run()

    module = ModuleType("trackio")
    module.init = init  # type: ignore[attr-defined]
    return module


def test_the_command_trains_and_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["train", str(write_recipe(tmp_path)), "steps=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run" / "model")
    assert execute(["train", str(write_recipe(tmp_path, "wrong")), "optimizer.lr=-1"]) == 2
    assert "optimizer: lr and eps must be above 0" in capsys.readouterr().err


def test_drawing_on_the_way_is_kept_and_changes_nothing(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "ab"}\n{"prompt": "ba"}\n{"prompt": "aa"}\n')
    watch = {"every": 3, "prompts": str(prompts), "limit": 2}
    assert execute(["train", str(write_recipe(tmp_path, "watched", watch=watch, **LORA))]) == 0
    train_chains(write_recipe(tmp_path, "plain", **LORA))
    assert weights(tmp_path / "watched") == weights(tmp_path / "plain")
    for step in ("step-000003", "step-000006"):
        folder = tmp_path / "watched" / "samples" / step
        assert len((folder / "traces.jsonl").read_text().splitlines()) == 2
        assert (folder / "index.html").is_file()


def test_icons_are_judged_on_the_way(tmp_path: Path) -> None:
    watch = {"every": 4, "prompts": "icons", "limit": 6}
    assert execute(["train", str(write_recipe(tmp_path, watch=watch))]) == 0
    judged = [row for row in metrics(tmp_path / "run") if "watch_overall" in row]
    assert [row["step"] for row in judged] == [4]
    assert {"watch_single_object", "watch_color_attr"} <= judged[0].keys()
