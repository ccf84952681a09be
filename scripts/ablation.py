"""The paper's ablation of the loss, on a new task of the icon world: `python scripts/ablation.py --out runs/ablation`.

Every variant fine-tunes the bundled model on the same rows (`corners.py`) for the same steps, once for each seed, which
decides the order of the rows and the first projection; then it draws the same prompts. One line of results.jsonl a run;
what is there already is not run again, and a run that was killed goes on from its checkpoint. `--table` prints a table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import corners
import numpy as np
import torch

from twgi.checkpoint.load import load
from twgi.data.rows import TokenRow
from twgi.thinking.thinker import Thinker
from twgi.training.batches import Batching, RowList, collate, read_file
from twgi.training.model import load_trainable
from twgi.training.objective import LossWeights
from twgi.training.recipe import Optimization, Recipe
from twgi.training.train import train

VARIANTS: Mapping[str, LossWeights] = {
    "CE": LossWeights(reconstruction=0),
    "next, 0.5": LossWeights(reconstruction=0.5),
    "next, 1": LossWeights(reconstruction=1),
    "next, 5": LossWeights(reconstruction=5),
    "same, 0.5": LossWeights(reconstruction=0.5, target="same"),
    "same, 1": LossWeights(reconstruction=1, target="same"),
    "same, 5": LossWeights(reconstruction=5, target="same"),
    "discrepancy, 1": LossWeights(reconstruction=0, discrepancy=1),
    "next, 1 and discrepancy, 1": LossWeights(reconstruction=1, discrepancy=1),
}
FIRST = ("CE", "next, 1", "same, 1", "discrepancy, 1", "next, 0.5", "next, 5", "next, 1 and discrepancy, 1")
SCORES = (*corners.NEW, "image_ce")
HELD_OUT = 80  # rows that are not trained on
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % quantile of t, by number of seeds


def recipe_of(args: argparse.Namespace, name: str, seed: int, data: Path) -> Recipe:
    folder = args.out / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    return Recipe(
        out=str(folder), data=(str(data),), steps=args.steps, seed=seed, loss=VARIANTS[name],
        batching=Batching(batch=16, micro_batch=16, bucket=True, seed=seed), bf16=True, save_every=20,
        optimizer=Optimization(lr=1e-3, beta2=0.95, warmup=10),
    )  # fmt: skip


def one_run(args: argparse.Namespace, name: str, seed: int, data: Path, rows: list[TokenRow]) -> dict[str, Any]:
    """Train, draw, measure."""
    recipe = recipe_of(args, name, seed, data)
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    folder = train(recipe, load_trainable(recipe), RowList(rows[HELD_OUT:]), digest)
    trained = load(folder)
    scores = corners.score(Thinker(trained.model, trained.tokenizer, trained), args.prompts)
    lost = held_out(recipe, folder, rows)
    for path in [*folder.parent.glob("checkpoint-*"), folder]:
        shutil.rmtree(path)
    return {"variant": name, "seed": seed, "steps": args.steps, "prompts": args.prompts, **scores, "image_ce": lost}


@torch.no_grad()
def held_out(recipe: Recipe, folder: Path, rows: list[TokenRow]) -> float:
    """Cross entropy of the image tokens of rows that were not trained on."""
    trained = load_trainable(replace(recipe, model=str(folder), loss=LossWeights(reconstruction=0)))
    batch = collate([[row] for row in rows[:HELD_OUT]], trained.loaded.tokenizer.vocab.pad)
    return float(trained.objective(batch)["image_ce"] / trained.objective.count(batch)[1])


def done(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def interval(values: list[float]) -> str:
    """Mean, and half of the 95 % interval of the mean over seeds (Student's t)."""
    half = STUDENT[len(values)] * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{np.mean(values):.3f} ± {half:.3f}"


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: each variant's scores, and their difference from cross entropy alone, seed by seed."""
    yield f"| loss | seeds | {' | '.join(SCORES)} | {' | '.join(f'{s} - CE' for s in SCORES)} |"
    yield f"|---|---|{'---|' * 2 * len(SCORES)}"
    plain = {row["seed"]: row for row in rows if row["variant"] == "CE"}
    for name in VARIANTS:
        runs = [row for row in rows if row["variant"] == name]
        if len(runs) < 2:
            continue
        cells = [interval([run[score] for run in runs]) for score in SCORES]
        pairs = [(run, plain[run["seed"]]) for run in runs if run["seed"] in plain]
        cells += [interval([run[s] - other[s] for run, other in pairs]) if name != "CE" else "" for s in SCORES]
        yield f"| {name} | {len(runs)} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, help="only this one: several processes may share the work")
    parser.add_argument("--all", action="store_true", help="lambda 0.5 and 5 for the target `same` too")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    results = args.out / "results.jsonl"
    if args.table:
        print("\n".join(table(done(results))))
        return
    data = args.out / "data" / "chains.jsonl"
    if not data.is_file():
        corners.make(data.parent, rows=800)
    rows = read_file(data, load("icons").tokenizer, 1024)
    for seed in range(args.seeds) if args.seed is None else [args.seed]:
        for name in VARIANTS if args.all else FIRST:
            if not any(row["variant"] == name and row["seed"] == seed for row in done(results)):
                row = one_run(args, name, seed, data, rows)
                with results.open("a") as file:
                    print(json.dumps(row), file=file, flush=True)


if __name__ == "__main__":
    main()
