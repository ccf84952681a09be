"""Laws of the loop and of runs on chains: what is exported, what resumes, what is refused."""

import contextlib
import random
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.runs import VOCAB, metrics, save_model, train_and_kill, weights, write_recipe
from tests.training.test_loss import ROWS, batch_of, objective

from twgi.checkpoint.load import load
from twgi.cli import execute
from twgi.errors import CheckpointError, ConfigError, RunError
from twgi.files import FolderLock
from twgi.model.transformer import Block
from twgi.thinking.thinker import Thinker
from twgi.training.checkpoints import checkpoints, newest_checkpoint
from twgi.training.lora import Lora
from twgi.training.metrics import open_tracker
from twgi.training.model import PROJECTION, merge_folder
from twgi.training.objective import LossWeights, Objective
from twgi.training.recipe import RunRecipe
from twgi.training.train import begin, fit, learning_rate, train_chains

pytest.importorskip("peft")

LORA: dict[str, Any] = {"method": "lora", "lora": {"rank": 4, "dropout": 0.2}}
PACKED: dict[str, Any] = {"batching": {"batch": 2, "pack": 120}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs that are looked at, and copied, but not changed: `full`, `lora` and `packed`."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (("full", {}), ("lora", LORA), ("packed", PACKED)):
        train_chains(write_recipe(folder, name, **changes))
    return folder


@pytest.mark.parametrize("name", ["full", "lora"])
def test_what_is_exported_thinks_and_has_the_image_tokenizer_to_the_bit(folder: Path, name: str) -> None:
    out = folder / name
    before, after = (load_file(model / "model.safetensors") for model in (folder / "start", out / "model"))
    assert before.keys() == after.keys()
    unchanged = {name for name, value in before.items() if value.equal(after[name])}
    assert {name for name in before if name.startswith("model.vqmodel.")} <= unchanged
    moved = "norm" if name == "lora" else "model.vqmodel."  # adapters leave norms alone
    assert all(moved in name or "vqmodel" in name for name in unchanged)
    loaded = load(out / "model")
    trace = Thinker(loaded.model, loaded.tokenizer, loaded).think("ab", mode="direct")
    assert len(trace.images) == 1


@pytest.mark.parametrize("changes", [{}, pytest.param(LORA, marks=pytest.mark.slow)], ids=["full", "lora"])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, killed = (write_recipe(tmp_path, name, steps=24, **changes) for name in ("whole", "killed"))
    train_chains(whole)
    train_and_kill(killed, tmp_path / "killed", after=random.Random(str(changes)).randrange(3, 12))
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
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "lora", folder / "torn")
    newest, before = checkpoints(folder / "torn")
    shard = next(newest.glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    train_chains(write_recipe(folder, "torn", **LORA))
    said = capsys.readouterr().out
    assert f"{newest} cannot be used ({shard.name} is not" in said
    assert f"going on after {before}" in said
    assert weights(folder / "torn") == weights(folder / "lora")


def test_checkpoints_hold_nothing_that_could_be_executed(folder: Path) -> None:
    out = folder / "lora"
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.suffix for path in files if path.name != ".lock"} <= {".safetensors", ".json", ".jsonl", ".md"}
    assert len(checkpoints(out)) == 2, "older ones go"
    assert not list(out.glob(".writing-*"))


def test_the_projection_trains_and_is_saved(folder: Path) -> None:
    out = folder / "full"
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


def test_a_packed_step_has_more_rows_and_learns(folder: Path) -> None:
    apart, packed = (metrics(folder / name) for name in ("full", "packed"))  # 4 and 2 items a step
    assert packed[-1]["loss"] < packed[0]["loss"]
    assert packed[-1]["epoch"] > apart[-1]["epoch"]


def test_recomputation_runs_the_blocks_again_and_changes_no_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Block] = []
    forward = Block.forward

    def counted(self: Block, *inputs: Any) -> torch.Tensor:
        calls.append(self)
        return forward(self, *inputs)

    monkeypatch.setattr(Block, "forward", counted)
    train_chains(write_recipe(folder, "recomputed", recompute=True, **PACKED))
    steps, batches, blocks = 6, 2, 2
    assert len(calls) == 2 * steps * batches * blocks
    assert weights(folder / "recomputed") == weights(folder / "packed")


def test_bfloat16_is_near_float32_and_not_the_same(folder: Path) -> None:
    train_chains(write_recipe(folder, "bfloat16", bf16=True, **PACKED))
    exact, rough = ([row["loss"] for row in metrics(folder / name)] for name in ("packed", "bfloat16"))
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.02)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rows(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, optimizer={"lr": 1e30, "clip": 0.0})
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d, in the rows .*rows.jsonl:\d+"):
        train_chains(recipe)
    assert not (tmp_path / "run" / "model").exists()


def test_a_run_goes_on_only_as_it_began(folder: Path, tmp_path: Path) -> None:
    write_recipe(tmp_path)
    shutil.copytree(folder / "full", tmp_path / "run")
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


def test_an_adapter_loads_merges_and_trains_on(folder: Path, tmp_path: Path) -> None:
    out = folder / "lora"
    merged = merge_folder(str(folder / "start"), out / "adapter", tmp_path / "merged")
    assert (merged / "model.safetensors").read_bytes() == weights(out)
    again = train_chains(write_recipe(folder, "again", adapter=str(out / "adapter"), **LORA)).parent
    assert metrics(again)[0]["loss"] < metrics(out)[0]["loss"]
    other = save_model(tmp_path / "other", kv_heads=1)
    with pytest.raises(CheckpointError, match="trained on another model"):
        merge_folder(str(other), out / "adapter", tmp_path / "none")
    with pytest.raises(CheckpointError, match="not an adapter"):
        merge_folder(str(other), folder / "start", tmp_path / "none")


def test_an_adapter_says_whether_the_rows_of_image_tokens_train(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"; {len(VOCAB.image_tokens) + 2} rows of image tokens in embedding and head train" in Lora().describe(VOCAB)
    out = train_chains(write_recipe(folder, "frozen", method="lora", lora={"image_rows": False}))
    assert "embedding and head are FROZEN" in capsys.readouterr().out
    before, after = (load_file(model / "model.safetensors") for model in (folder / "start", out))
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


def test_drawing_on_the_way_is_kept_and_changes_nothing(folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "ab"}\n{"prompt": "ba"}\n{"prompt": "aa"}\n')
    watch = {"every": 3, "prompts": str(prompts), "limit": 2}
    assert execute(["train", str(write_recipe(folder, "watched", watch=watch, **LORA))]) == 0
    assert weights(folder / "watched") == weights(folder / "lora")
    for step in ("step-000003", "step-000006"):
        drawn = folder / "watched" / "samples" / step
        assert len((drawn / "traces.jsonl").read_text().splitlines()) == 2
        assert (drawn / "index.html").is_file()


def test_pictures_that_cannot_be_judged_do_not_end_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = {"every": 4, "prompts": "icons", "limit": 6}
    assert execute(["train", str(write_recipe(tmp_path, watch=watch))]) == 0
    assert "none of the 6 pictures could be judged" in capsys.readouterr().err
    assert (tmp_path / "run" / "model").is_dir()


@pytest.mark.usefixtures("tiny_world")
def test_icons_are_judged_on_the_way(tmp_path: Path) -> None:
    watch = {"every": 4, "prompts": "icons", "limit": 6}
    assert execute(["train", str(write_recipe(tmp_path, watch=watch))]) == 0
    judged = [row for row in metrics(tmp_path / "run") if "watch_overall" in row]
    assert [row["step"] for row in judged] == [4]
    assert {"watch_single_object", "watch_color_attr"} <= judged[0].keys()
