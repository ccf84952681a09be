"""What a thought costs on a device: memory for the cache, and the least time a step can take. Arithmetic alone.

While one thought runs, every step reads all weights once and each row's keys and values once; a device that does
nothing else than read memory is as fast as the floors here. Chains have the shape of the published example rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from twgi.checkpoint.layout import Checkpoint
from twgi.checkpoint.memory import kv_bytes_per_token, sizes, weight_bytes
from twgi.decoding.guidance import Branch, plan_named
from twgi.errors import ConfigError
from twgi.thinking.modes import NEGATIVE_PROMPT, mode_named
from twgi.thinking.thinker import MOST_BRANCHES

GIB = 2**30
WORKSPACE = 1.5 * GIB  # of a GPU's memory, for what is neither weights nor cache


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Memory and its speed, as the vendor says."""

    name: str
    gib: float
    tb_per_s: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="h200", gib=141, tb_per_s=4.8),
        Gpu(name="h100", gib=80, tb_per_s=3.35),
        Gpu(name="a100", gib=80, tb_per_s=2.04),
        Gpu(name="a100-40", gib=40, tb_per_s=1.56),
        Gpu(name="l40s", gib=48, tb_per_s=0.86),
        Gpu(name="rtx4090", gib=24, tb_per_s=1.01),
        Gpu(name="rtx3090", gib=24, tb_per_s=0.94),
    )
}


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The shape of a thought: ids of its prompt with bos and separator, words in all, pictures."""

    prompt: int
    words: int
    pictures: int


CHAINS = {  # subgoal and critique: the published example rows; direct and general: a short prompt
    "direct": Chain(prompt=32, words=0, pictures=1),
    "subgoal": Chain(prompt=37, words=471, pictures=3),
    "critique": Chain(prompt=110, words=1581, pictures=2),
    "general": Chain(prompt=32, words=500, pictures=2),
}


@dataclass(frozen=True, kw_only=True)
class ModeCost:
    """What one mode costs.

    Args:
        steps: forward passes of one chain, its prompt not counted.
        rows: the most rows that run at once.
        reserved: bytes of cache that the engine sets aside for one chain.
        peak: bytes of cache that are in use at the most.
        chains: how many chains fit beside the weights; 0 too where one is longer than the context.
        step_ms: the least time of a step of one chain, in milliseconds, averaged over the chain.
        chain_s: the least time of one chain alone, and of each of `chains` together, in seconds.
    """

    mode: str
    steps: int
    rows: int
    reserved: int
    peak: int
    chains: int
    step_ms: float
    chain_s: tuple[float, float]


def gpu_named(name: str) -> Gpu:
    """A GPU by name, or by memory and speed: `48@0.9` is 48 GiB read at 0.9 TB/s.

    Raises:
        ConfigError: neither.
    """
    if name.lower() in GPUS:
        return GPUS[name.lower()]
    try:
        gib, speed = map(float, name.split("@"))
    except ValueError:
        raise ConfigError(f"unknown GPU {name!r}; known are {', '.join(GPUS)}, or give GIB@TB/S: 48@0.9") from None
    if not (gib > 0 and speed > 0):
        raise ConfigError(f"a GPU has memory and speed above zero, got {name!r}")
    return Gpu(name=name, gib=gib, tb_per_s=speed)


def cost(
    checkpoint: Checkpoint, mode: str, *, gpu: Gpu, dtype: torch.dtype, int8: bool, guidance: str, context: int | None
) -> ModeCost:
    """What a chain of this mode costs with these weights."""
    counts, per_token = sizes(checkpoint), kv_bytes_per_token(checkpoint.config, dtype)
    rows_T = list(_steps(checkpoint, mode, guidance))
    cache_T = [sum(rows) * per_token for rows in rows_T]
    context = context or checkpoint.config.max_positions
    reserved = MOST_BRANCHES * context * per_token
    weights = weight_bytes(counts, dtype, int8=int8)
    fits = max(0, int((gpu.gib * GIB - WORKSPACE - weights) // reserved))
    chains = fits if rows_T[-1][0] <= context else 0
    read = len(cache_T) * (weights - counts.embedding * dtype.itemsize - counts.image * torch.float32.itemsize)
    alone, together = ((read / n + sum(cache_T)) / (gpu.tb_per_s * 1e12) for n in (1, max(1, chains)))
    return ModeCost(
        mode=mode, steps=len(cache_T), rows=max(map(len, rows_T)), reserved=reserved, peak=max(cache_T), chains=chains,
        step_ms=1000 * alone / len(cache_T), chain_s=(alone, together),
    )  # fmt: skip


def plan_of(
    checkpoint: Checkpoint, *, gpu: Gpu, dtype: torch.dtype, int8: bool, guidance: str, context: int | None
) -> dict[str, Any]:
    """The costs of every mode, ready for JSON."""
    modes = [
        cost(checkpoint, mode, dtype=dtype, int8=int8, guidance=guidance, gpu=gpu, context=context) for mode in CHAINS
    ]
    return {
        "gpu": asdict(gpu),
        "weights_in": f"{'int8 and ' if int8 else ''}{str(dtype).removeprefix('torch.')}",
        "weights": weight_bytes(sizes(checkpoint), dtype, int8=int8),
        "kv_per_token": kv_bytes_per_token(checkpoint.config, dtype),
        "context": context or checkpoint.config.max_positions,
        "modes": [asdict(mode) for mode in modes],
    }


def _steps(checkpoint: Checkpoint, mode: str, guidance: str) -> Iterator[list[int]]:
    """The length of each row that runs, at each step of a chain."""
    chain, image = CHAINS[mode], checkpoint.vocab.tokens_per_image
    words, length = chain.words // (chain.pictures + 1), chain.prompt
    for picture in range(chain.pictures):
        for _ in range(0 if mode_named(mode).starts_with_image and not picture else words):
            length += 1
            yield [length]
        others = _branches(checkpoint, mode, guidance, picture)
        for drawn in range(1, image + 1):
            yield [length + drawn, *(row + drawn for row in others)]
        length += image + 2
    for _ in range(words if mode != "direct" else 0):
        length += 1
        yield [length]


def _branches(checkpoint: Checkpoint, mode: str, guidance: str, picture: int) -> list[int]:
    """Lengths of the rows beside the full one when a picture begins; equal rows run once."""
    kinds, plan = mode_named(mode).kinds, plan_named(guidance)
    last = picture == CHAINS[mode].pictures - 1
    weights = plan.for_picture(kinds[-1] if last else kinds[0]).weights
    negative = len(checkpoint.text.encode(NEGATIVE_PROMPT)) + 1 if Branch.NEGATIVE in weights else 0
    lengths = {
        Branch.UNCONDITIONAL: 1, Branch.NEGATIVE: negative, Branch.PROMPT: CHAINS[mode].prompt - 1,
        Branch.IMAGE: 2 + picture * checkpoint.vocab.image_length,
    }  # fmt: skip
    return [lengths[branch] for branch in weights if branch is not Branch.FULL]
