"""One training step: ours against Hugging Face's Chameleon, same weights, same rows, same run.

    OMP_NUM_THREADS=1 python benchmarks/train_step.py [--hidden 512 --layers 8 --vocab 65536 --length 1024 --rounds 3]

A step is forward and backward of the cross entropy of the response's tokens. Their side is `ChameleonModel` and its
head: their whole forward pass masks image tokens before the loss, so that nobody can train pictures with it (a subclass
without the mask does what is done here). Rounds alternate, and each side runs in a process of its own, so that its peak
of memory is its own. Losses must agree. Ratios above 1 are in our favour.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

SIDES = ("ours", "transformers")


def sizes(args: argparse.Namespace) -> dict[str, int]:
    return {
        "vocab_size": args.vocab, "hidden_size": args.hidden, "intermediate_size": args.hidden * 11 // 4,
        "num_layers": args.layers, "num_heads": args.hidden // 64, "num_kv_heads": args.hidden // 64,
        "max_positions": args.length,
    }  # fmt: skip


def rows(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels; the first tenth is a prompt."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, args.vocab, (args.rows, args.length), generator=generator)
    labels = ids.clone()
    labels[:, : args.length // 10] = -100
    return ids, labels


def theirs(args: argparse.Namespace) -> Any:
    """Hugging Face's model with its own random weights, the same each time."""
    sys.path.insert(0, ".")
    from tests.parity.oracle import TINY_VQ, chameleon

    from twgi.model.config import TransformerConfig, VQConfig

    return chameleon(TransformerConfig(**sizes(args)), VQConfig(**TINY_VQ)).train()


def make_step(args: argparse.Namespace, side: str) -> Any:
    """A function that does one step and returns its loss."""
    ids, labels = rows(args)
    other = theirs(args)
    if side == "transformers":
        targets = F.pad(labels[:, 1:], (0, 1), value=-100)

        def step() -> float:
            other.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                logits = other.lm_head(other.model(input_ids=ids).last_hidden_state)
            loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            loss.backward()
            return loss.item()

        return step
    return ours_step(args, other, ids, labels)


def ours_step(args: argparse.Namespace, other: Any, ids: torch.Tensor, labels: torch.Tensor) -> Any:
    from tests.parity.oracle import ours

    from twgi.model.config import TransformerConfig
    from twgi.training.loss import LossWeights
    from twgi.training.objective import Counts, Objective
    from twgi.vocab import Vocab

    model = ours(TransformerConfig(**sizes(args)), other).requires_grad_(True).train()
    vocab = Vocab(size=args.vocab, bos=0, pad=1, eos=2, unk=3, boi=4, eoi=5, separator=6, placeholder=7,
                  image_tokens=(8, 9), tokens_per_image=4)  # fmt: skip
    objective = Objective(model, torch.zeros(2, 4), vocab, LossWeights(reconstruction=0))
    text, image = objective.count(labels).tolist()

    def step() -> float:
        objective.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            terms = objective(ids, labels)
        loss = objective.total(terms, Counts(text=text, image=image))
        loss.backward()
        return loss.item()

    return step


def one_side(args: argparse.Namespace) -> None:
    """Build, take one step to warm up, then measure one; print a line of JSON."""
    step = make_step(args, args.side)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, when the models were built, does not count
    loss = step()
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(args.steps):
        step()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    tokens = args.steps * args.rows * args.length
    print(json.dumps({"loss": loss, "tokens_per_s": tokens / seconds, "tokens_per_cpu_s": tokens / cpu,
                      "peak_mib": int(peak.split()[1]) / 1024}))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("hidden", 512), ("layers", 8), ("vocab", 65536), ("length", 1024), ("rows", 1), ("rounds", 3),
                        ("steps", 2)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        one_side(args)
        return
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            command = [sys.executable, *sys.argv, "--side", side]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    report(found)


def report(found: dict[str, list[dict[str, float]]]) -> None:
    """Medians, and their ratios."""
    medians = {
        side: {key: sorted(run[key] for run in runs)[len(runs) // 2] for key in runs[0]} for side, runs in found.items()
    }
    ours, other = (medians[side] for side in SIDES)
    if abs(ours["loss"] - other["loss"]) > 1e-2 * other["loss"]:
        raise SystemExit(f"the losses differ: {ours['loss']} and {other['loss']}")
    for side in SIDES:
        print(side, json.dumps({key: round(value, 4) for key, value in medians[side].items()}))
    for key in ("tokens_per_s", "tokens_per_cpu_s"):
        print(f"{key}: ratio {ours[key] / other[key]:.2f}")
    print(f"peak memory: ratio {other['peak_mib'] / ours['peak_mib']:.2f}")


if __name__ == "__main__":
    main()
