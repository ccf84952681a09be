"""One training step: ours against Hugging Face's Chameleon, same weights, same rows, same run.

    OMP_NUM_THREADS=1 python benchmarks/train_step.py [--hidden 512 --layers 8 --vocab 65536 --length 1024 --rounds 3]

On a GPU, full training at a 1B-class shape and LoRA at the 7B's:

    python benchmarks/train_step.py --device cuda --bf16 --hidden 2048 --layers 24 --length 4096 --rows 4
    python benchmarks/train_step.py --device cuda --bf16 --lora --hidden 4096 --layers 32 --length 4096 --rows 2

A step is forward and backward of the cross entropy of the response's tokens; with `--lora`, of adapters of rank 64 on
every matrix of the blocks (ours are joined: q, k and v, gate and up), over frozen weights in bfloat16. Their side is
`ChameleonModel` and its head: their whole forward pass masks image tokens before the loss, so that nobody can train
pictures with it (a subclass without the mask does what is done here). Rounds alternate, and each side runs in a process
of its own, so that its peak of memory is its own. Losses must agree. Ratios above 1 are in our favour. What else runs
on a machine only makes a step slower, so the fastest step of all rounds is compared, with the median beside it.

The share of peak is of `--peak` TFLOP/s, with the FLOPs that a step must do, whatever it computes twice: 6 a token for
each weight (4 where it is frozen) and, for causal attention, 6 x length x hidden a token and layer.
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

    return chameleon(TransformerConfig(**sizes(args)), VQConfig(**TINY_VQ))


def make_step(args: argparse.Namespace, side: str) -> Any:
    """A function that does one step and returns its loss."""
    ids, labels = rows(args)
    model = theirs(args) if side == "transformers" else ours(args)
    if args.lora:
        adapt(model, side)
    model.to(args.device).train()
    make = their_step if side == "transformers" else our_step
    return make(args, model, ids.to(args.device), labels.to(args.device))


def ours(args: argparse.Namespace) -> Any:
    """Our decoder with their weights."""
    other = theirs(args)
    from tests.parity.oracle import ours as copied

    from twgi.model.config import TransformerConfig

    return copied(TransformerConfig(**sizes(args)), other).requires_grad_(True)


def adapt(model: Any, side: str) -> None:
    """Frozen weights in bfloat16, and adapters in float32."""
    import peft

    from twgi.training.lora import MATRICES

    names = {
        "ours": MATRICES,
        "transformers": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    }
    model.to(torch.bfloat16).requires_grad_(False)
    target = model if side == "ours" else model.model
    peft.inject_adapter_in_model(peft.LoraConfig(r=64, lora_alpha=128, target_modules=list(names[side])), target)
    for weight in target.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def their_step(args: argparse.Namespace, model: Any, ids: torch.Tensor, labels: torch.Tensor) -> Any:
    targets = F.pad(labels[:, 1:], (0, 1), value=-100)

    def step() -> float:
        model.zero_grad(set_to_none=True)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            logits = model.lm_head(model.model(input_ids=ids).last_hidden_state)
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        return loss.item()

    return step


def our_step(args: argparse.Namespace, model: Any, ids: torch.Tensor, labels: torch.Tensor) -> Any:
    from twgi.training.objective import LossWeights, Objective
    from twgi.vocab import Vocab

    vocab = Vocab(size=args.vocab, bos=0, pad=1, eos=2, unk=3, boi=4, eoi=5, separator=6, placeholder=7,
                  image_tokens=(8, 9), tokens_per_image=4)  # fmt: skip
    objective = Objective(model, torch.zeros(2, 4), vocab, LossWeights(reconstruction=0)).to(args.device)
    batch = {"ids": ids, "labels": labels}
    counts = objective.count(batch).cpu()

    def step() -> float:
        objective.zero_grad(set_to_none=True)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            terms = objective(batch)
        loss = objective.total(terms, counts)
        loss.backward()
        return loss.item()

    return step


def flops_per_token(args: argparse.Namespace) -> float:
    """What a token of a step must cost, at least."""
    shape = sizes(args)
    hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_layers"]
    blocks = layers * (4 * hidden**2 + 3 * hidden * inner)
    head = hidden * args.vocab
    each = 4 if args.lora else 6
    return each * (blocks + head) + 6 * layers * args.length * hidden


def forget_peak(device: str) -> None:
    """The peak so far, when the models were built, does not count."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def one_side(args: argparse.Namespace) -> None:
    """Build, take one step to warm up, then measure some; print a line of JSON."""
    step = make_step(args, args.side)
    forget_peak(args.device)
    loss = step()
    seconds = []
    for _ in range(args.steps):
        started = time.perf_counter()
        step()  # reads the loss, so the GPU is done with it
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"loss": loss, "seconds": seconds, "peak_mib": peak_mib(args.device)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("hidden", 512), ("layers", 8), ("vocab", 65536), ("length", 1024), ("rows", 1), ("rounds", 3),
                        ("steps", 4)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--lora", action="store_true", help="adapters over frozen weights in bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s of the GPU, bfloat16 and dense: H100 SXM")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        one_side(args)
        return
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            command = [sys.executable, *sys.argv, "--side", side]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    report(args, found)


def report(args: argparse.Namespace, found: dict[str, list[dict[str, Any]]]) -> None:
    """Each side's fastest and median step of all rounds, their ratios, and memory."""
    losses = [found[side][0]["loss"] for side in SIDES]
    if abs(losses[0] - losses[1]) > 1e-2 * losses[1]:
        raise SystemExit(f"the losses differ: {losses[0]} and {losses[1]}")
    steps = {side: sorted(second for run in found[side] for second in run["seconds"]) for side in SIDES}
    peaks = {side: max(run["peak_mib"] for run in found[side]) for side in SIDES}
    tokens = args.rows * args.length
    for side in SIDES:
        fastest, median = steps[side][0], steps[side][len(steps[side]) // 2]
        told = {"tokens_per_s": tokens / fastest, "median_tokens_per_s": tokens / median, "peak_mib": peaks[side]}
        if args.device == "cuda":
            told["share_of_peak"] = tokens * flops_per_token(args) / fastest / args.peak / 1e12
        print(side, json.dumps({key: round(value, 3) for key, value in told.items()}))
    (ours, our_peak), (other, their_peak) = ((steps[side], peaks[side]) for side in SIDES)
    print(f"fastest step: ratio {other[0] / ours[0]:.2f}")
    print(f"median step: ratio {other[len(other) // 2] / ours[len(ours) // 2]:.2f}")
    print(f"peak memory: ratio {their_peak / our_peak:.2f}")


if __name__ == "__main__":
    main()
