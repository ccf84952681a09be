"""Memory of the first of several processes while a sharded model is loaded, and while it is written.

    OMP_NUM_THREADS=1 python benchmarks/sharded_memory.py --folder runs/sharded_memory [--hidden 1024 --layers 48]

A random model is loaded under torchrun (FSDP2, two processes, gloo), trained for no step, and exported, in two ways:
streamed, as `twgi train` does it (each block is spread as soon as it is read; a file's worth of tensors is written at
a time), and copied, as libraries commonly do it (every process reads the whole model; it is gathered into one copy
before it is written). Told of each: how far the process's resident memory rose at most, in both phases. Each way runs
in processes of its own, and both write the same weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from twgi.checkpoint.load import load
from twgi.checkpoint.save import save
from twgi.config import load_recipe
from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer
from twgi.training.model import export, load_trainable, whole_copy
from twgi.training.recipe import Recipe
from twgi.training.sharding import join_processes, leave_processes, rank, shard

MB = 10**6
WAYS = ("streamed", "copied")


def make(folder: Path, hidden: int, layers: int) -> int:
    """A random model with the tokenizers of the bundled one; returns the bytes of its decoder."""
    icons = load("icons")
    config = TransformerConfig(
        vocab_size=icons.model.config.vocab_size, hidden_size=hidden, intermediate_size=hidden * 11 // 4,
        num_layers=layers, num_heads=hidden // 64, num_kv_heads=hidden // 64, max_positions=1024,
    )  # fmt: skip
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(0))
    assert icons.tokenizer.image is not None
    save(folder / "start", model=model, vq=icons.tokenizer.image.vq, tokenizer=icons.tokenizer)
    for way in WAYS:
        recipe = {"out": str(folder / way), "model": str(folder / "start"), "data": []}
        (folder / f"{way}.yaml").write_text(yaml.safe_dump(recipe))
    return sum(weight.nbytes for weight in model.parameters())


def memory(name: str) -> int:
    """Resident memory of this process: `VmRSS` now, `VmHWM` its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def measure(folder: Path, way: str, largest_file: int) -> None:
    """In one of torchrun's processes: shard, forget the peak so far, export; the first process tells the rise."""
    recipe = load_recipe(Recipe, folder / f"{way}.yaml", [])
    device, place = join_processes("cpu", bf16=False)
    assert place is not None
    empty = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    trained = replace(load_trainable(recipe, device, place if way == "streamed" else None), place=place)
    shard(trained.objective, place)
    loading = memory("VmHWM") - empty
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    if way == "streamed":
        export(recipe, trained, largest_file=largest_file)
    else:
        whole = whole_copy(recipe, trained)
        if whole is not None:
            image = whole.loaded.tokenizer.image
            assert image is not None
            save(folder / way / "model", model=whole.objective.decoder, vq=image.vq, tokenizer=whole.loaded.tokenizer)
    if rank() == 0:
        told = {"way": way, "loading_mb": loading // MB, "export_mb": (memory("VmHWM") - before) // MB}
        print(json.dumps(told), flush=True)
    leave_processes()


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load(folder / "model").model.state_dict() for folder in (one, other))
    return all(value.equal(second[name]) for name, value in first.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder, removed at the end")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--largest-file", type=int, default=64 * MB, help="bytes; 5 GB where nothing else is said")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        return measure(options.folder, options.way, options.largest_file)
    options.folder.mkdir(parents=True)
    try:
        size = make(options.folder, options.hidden, options.layers)
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        for way in WAYS:
            command = [*start, *sys.argv, "--way", way]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
            told = json.loads(done.stdout.splitlines()[-1])
            print(json.dumps({"model_mb": size // MB} | told))
        assert same_weights(*(options.folder / way for way in WAYS)), "the two ways wrote other weights"
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
