"""A tiny checkpoint, rows for it, and a recipe: what the tests of whole runs share."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from tests.thinking.tiny import tokenizer
from tests.tokenizer.tiny import CODES

from twgi.checkpoint.save import save
from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer
from twgi.training.checkpoints import checkpoints

REPOSITORY = Path(__file__).parents[2]
TOKENIZER = tokenizer()
VOCAB = TOKENIZER.vocab


def save_model(folder: Path, *, kv_heads: int = 2) -> Path:
    """A random checkpoint in the published layout, with sizes that come out uneven over two processes."""
    config = TransformerConfig(
        vocab_size=VOCAB.size, hidden_size=24, intermediate_size=36, num_layers=2, num_heads=2, num_kv_heads=kv_heads,
        max_positions=160,
    )  # fmt: skip
    torch.manual_seed(5)
    model = Transformer(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.15)
    assert TOKENIZER.image is not None
    save(folder, model=model, vq=TOKENIZER.image.vq, tokenizer=TOKENIZER)
    return folder


def write_rows(path: Path, count: int = 12, seed: int = 0) -> Path:
    """Records that are tokenised already: prompts, words and pictures at random, of unequal lengths."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        words = [int(rng.choice(VOCAB.text_ids)) for _ in range(int(rng.integers(2, 9)))]
        image = TOKENIZER.image_block(rng.integers(CODES, size=VOCAB.tokens_per_image).tolist())
        tokens = [VOCAB.bos, *words, VOCAB.separator, *words[:2], *image, *words[1:], VOCAB.eos]
        lines.append(json.dumps({"tokens": tokens}))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_recipe(folder: Path, name: str = "run", **changes: object) -> Path:
    """A recipe of a few steps on the tiny checkpoint; `changes` are its keys."""
    model, rows = folder / "start", folder / "rows.jsonl"
    if not rows.exists():
        save_model(model)
        write_rows(rows)
    values: dict[str, object] = {
        "out": str(folder / name), "model": str(model), "data": [str(rows)], "steps": 6,
        "batching": {"batch": 4, "micro_batch": 2}, "optimizer": {"lr": 1e-2, "warmup": 1}, "log_every": 1,
        "save_every": 2,
    }  # fmt: skip
    recipe = folder / f"{name}.yaml"
    recipe.write_text(yaml.safe_dump({**values, **changes}))
    return recipe


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}"}


def train_together(recipes: list[Path]) -> str:
    """Run the command on one recipe after the other in the same two processes, which takes one start; what they say.

    A recipe called NAME-torn goes on with what NAME left.
    """
    command = [*TORCHRUN, "--nproc_per_node=2", "-m", "tests.training.runs", *map(str, recipes)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def tear(whole: Path, copy: Path) -> None:
    """A copy of a run that broke off while it wrote its last checkpoint."""
    shutil.copytree(whole, copy, ignore=lambda _, names: {"model", ".lock"} & set(names))
    newest, before = checkpoints(copy)
    (newest / "manifest.json").unlink()
    assert before.name == "checkpoint-4"


def train_and_kill(recipe: Path, out: Path, *, after: int, processes: int = 1) -> None:
    """Run the command and kill it, without warning, as soon as it has logged step `after`."""
    metrics = out / "metrics.jsonl"
    start = [*TORCHRUN, f"--nproc_per_node={processes}"] if processes > 1 else [sys.executable]
    running = subprocess.Popen(
        [*start, "-m", "twgi", "train", str(recipe)], cwd=REPOSITORY, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 200
        while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= after):
            assert running.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        for process in [running.pid, *descendants(running.pid)]:  # torchrun gives its workers sessions of their own
            os.kill(process, signal.SIGKILL)
        running.wait()


def descendants(process: int) -> list[int]:
    """Ids of the processes that this one started, and of those that they started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    direct = parents.get(process, [])
    return direct + [further for child in direct for further in descendants(child)]


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


if __name__ == "__main__":
    from twgi.cli import execute
    from twgi.training import sharding
    from twgi.training import train as loop

    sharding.join_processes("cpu", bf16=False)
    setattr(loop, "leave_processes", lambda: None)  # they stay together until all is done  # noqa: B010
    for each in map(Path, sys.argv[1:]):
        if each.stem.endswith("-torn") and sharding.rank() == 0:
            tear(each.parent / each.stem.removesuffix("-torn"), each.parent / each.stem)
        sharding.barrier()
        assert execute(["train", str(each)]) == 0
    sharding.leave_processes()
