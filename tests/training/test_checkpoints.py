"""Laws of a run's folder: what is damaged in it is found, a full disk costs nothing, and a run goes on as it began."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.training.runs import metrics, save_model, weights, write_recipe

from twgi.cli import execute
from twgi.errors import CheckpointError, ConfigError, DataError, RunError, TwgiError
from twgi.training.checkpoints import checkpoints, newest_checkpoint
from twgi.training.train import train_chains

pytest.importorskip("peft")

LORA: dict[str, Any] = {"method": "lora", "lora": {"rank": 4, "dropout": 0.2}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of recipes that have run to their ends, `run` and twice the same adapter, `one` and `two`."""
    folder = tmp_path_factory.mktemp("trained")
    train_chains(write_recipe(folder))
    for name in ("one", "two"):
        train_chains(write_recipe(folder, name, **LORA))
    return folder


def written_elsewhere(folder: Path) -> str:
    """Some bytes of a checkpoint are others, as many as before."""
    shard = next(folder.glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[-50:] = bytes(50)
    shard.write_bytes(content)
    return "other bytes than were written"


def one_shard_more(folder: Path) -> str:
    shutil.copyfile(next(folder.glob("shard-*")), folder / "shard-00009-model-00001-of-00001.safetensors")
    return "does not belong to it"


def manifest(content: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / "manifest.json").write_text(content)
        return "manifest.json"

    return write


MANIFESTS = ["[]", "3", "{", '{"a": 3}', '{"a": {"bytes": "x"}}', '{"a": {"bytes": 1e999}}', "[" * 100_000]


@pytest.mark.parametrize("spoil", [written_elsewhere, one_shard_more, *map(manifest, MANIFESTS)])
def test_a_checkpoint_that_is_not_as_it_was_written_is_passed_over(
    trained: Path, tmp_path: Path, spoil: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    newest, before = checkpoints(tmp_path / "run")
    says = spoil(newest)
    assert newest_checkpoint(tmp_path / "run") == before
    said = capsys.readouterr().out
    assert f"{newest} cannot be used (" in said
    assert says in said


@pytest.mark.parametrize("content", ["[]", "{", "{}", "3", '{"decides": 3}', "[" * 100_000, "\xff"])
def test_a_damaged_run_json_is_the_users_error(trained: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content, "latin-1")
    with pytest.raises(TwgiError, match=r"run\.json"):
        train_chains(trained / "run.yaml", [f"out={tmp_path}"])


def test_metrics_go_on_where_a_line_had_begun(tmp_path: Path) -> None:
    steps = {"steps": 9, "log_every": 4, "save_every": 3, "keep": 9}
    whole, killed = (train_chains(write_recipe(tmp_path, name, **steps)).parent for name in ("whole", "killed"))
    for later in ("model", "checkpoint-9", "checkpoint-6"):  # as if it had been killed after step 3
        shutil.rmtree(killed / later)
    train_chains(tmp_path / "killed.yaml")
    rows = [[row | {"seconds": 0} for row in metrics(out)] for out in (whole, killed)]
    assert [row["step"] for row in rows[0]] == [4, 8]
    assert rows[0] == rows[1]


def test_two_runs_write_the_same_files(trained: Path) -> None:
    one, two = trained / "one", trained / "two"
    files = [file.relative_to(one) for part in ("model", "adapter") for file in (one / part).iterdir()]
    assert {"config.json", "adapter_config.json", "tokenizer.json"} <= {file.name for file in files}
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    names = json.loads((one / "model" / "config.json").read_text())["vocabulary_map"]
    assert list(names) == sorted(names)


def test_what_a_killed_export_left_is_cleaned_away(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    left = ["model/.tmpAbC", "model/model-00001-of-00002.safetensors", "model/model.safetensors.index.json"]
    (tmp_path / "run" / ".writing-checkpoint-5").mkdir()
    for name in left:
        (tmp_path / "run" / name).write_text("{}")
    out = train_chains(trained / "run.yaml", [f"out={tmp_path / 'run'}"]).parent
    assert not any((out / name).exists() for name in [*left, ".writing-checkpoint-5"])
    assert weights(out) == weights(trained / "run")


def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(trained / "run.yaml"), f"out={tmp_path / 'run'}"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))  # as a full disk: a checkpoint does not fit
        assert execute(command) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "too large" in said
    assert {file.name for file in (tmp_path / "run").iterdir()} <= {".lock", "run.json", "metrics.jsonl"}
    assert execute(command) == 0
    assert weights(tmp_path / "run") == weights(trained / "run")


def test_a_run_goes_on_with_the_same_pictures_only(tmp_path: Path) -> None:
    recipe, records = write_recipe(tmp_path, steps=1), tmp_path / "chains.jsonl"
    records.write_text('{"prompt": "red", "response": "<image>", "images": ["a.png"]}\n')
    changes = [f"data=[{records}]", "batching.batch=1", "batching.micro_batch=1"]
    Image.new("RGB", (12, 12), "red").save(tmp_path / "a.png")
    train_chains(recipe, changes)
    train_chains(recipe, changes)
    Image.new("RGB", (12, 12), "blue").save(tmp_path / "a.png")
    with pytest.raises(RunError, match="rows was"):
        train_chains(recipe, changes)


def test_nothing_to_learn_is_an_error_and_rows_without_a_token_to_learn_are_counted_aloud(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, out = {"prompt": "ab", "segments": [{"type": "text", "text": "a", "loss": False}]}, f"out={tmp_path / 'out'}"
    (tmp_path / "bare.jsonl").write_text(json.dumps(bare) + "\n")
    with pytest.raises(DataError, match=r"none of the \d+ tokens is to be learnt"):
        train_chains(trained / "run.yaml", [f"data=[{tmp_path / 'bare.jsonl'}]", out])
    train_chains(trained / "run.yaml", [f"data=[{tmp_path / 'bare.jsonl'}, {trained / 'rows.jsonl'}]", "steps=1", out])
    assert "1 of 13 rows have no token to be learnt" in capsys.readouterr().out


def test_an_adapter_goes_on_as_it_began(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, more = write_recipe(trained, "more", method="lora"), [f"adapter={trained / 'one' / 'adapter'}"]
    for lora, says in (("{rank: 8}", r"lora\.rank is 8 in the recipe and 4"), ("{rank: 4}", r"lora\.dropout is 0\.0")):
        with pytest.raises(ConfigError, match=says):
            train_chains(recipe, [*more, f"lora={lora}"])
    with pytest.raises(CheckpointError, match="trained on another model"):
        train_chains(recipe, [*more, f"model={save_model(tmp_path / 'other', kv_heads=1)}"])
    capsys.readouterr()
    train_chains(recipe, [*more, "steps=1"])
    assert "LoRA of rank 4 on" in capsys.readouterr().out
    assert json.loads((trained / "more" / "run.json").read_text())["decides"]["lora"]["rank"] == 4
