"""What a thought costs on a device: memory for the cache, and the least time a step can take.

The engine's own bookkeeping is asked: the scheduler for what it sets aside, and a sequence, which is told made-up
tokens in the shape of the published example rows, for the rows of each step. Every step reads all weights once and each row's
keys and values once; a device that does nothing else than read memory is as fast as the floors here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from twgi.checkpoint.layout import Checkpoint
from twgi.checkpoint.memory import kv_bytes_per_token, sizes, weight_bytes
from twgi.decoding.grammar import Grammar
from twgi.decoding.guidance import plan_named
from twgi.decoding.params import Filter
from twgi.decoding.request import Conditions, Request
from twgi.decoding.scheduler import most_positions
from twgi.decoding.sequence import Sequence
from twgi.errors import ConfigError
from twgi.thinking.modes import NEGATIVE_PROMPT, mode_named

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
    context = context or checkpoint.config.max_positions
    rows_T = list(_steps(_request(checkpoint, mode, guidance, 10**6), mode))
    cache_T = [sum(rows) * per_token for rows in rows_T]
    reserved = most_positions(_request(checkpoint, mode, guidance, context)) * per_token
    weights = weight_bytes(counts, dtype, int8=int8)
    fits = max(0, int((gpu.gib * GIB - WORKSPACE - weights) // reserved))
    chains = fits if max(rows[0] for rows in rows_T) <= context else 0
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


def _request(checkpoint: Checkpoint, name: str, guidance: str, context: int) -> Request:
    """A thought of this mode as long as the context lets it be, about a prompt of made-up ids."""
    mode, plan, vocab, prompt = mode_named(name), plan_named(guidance), checkpoint.vocab, CHAINS[name].prompt
    text = min(vocab.text_ids)
    grammar = Grammar(
        vocab=vocab, budget=max(context - prompt, vocab.image_length), max_images=mode.max_images,
        starts_with_image=mode.starts_with_image, stop_after_images=mode.stop_after_images,
    )  # fmt: skip
    return Request(
        id=0, prompt=(text,) * prompt, grammar=grammar, text=Filter(), image=Filter(),
        guidance={kind: plan.for_picture(kind) for kind in mode.kinds},
        conditions=Conditions(prompt=(text,) * (prompt - 2), negative=tuple(checkpoint.text.encode(NEGATIVE_PROMPT))),
    )  # fmt: skip


def _steps(request: Request, name: str) -> Iterator[list[int]]:
    """The length of each row that runs, at each step of a chain."""
    chain, vocab, kinds = CHAINS[name], request.grammar.vocab, list(request.guidance)
    words, image = chain.words // (chain.pictures + 1), min(vocab.image_ids)
    sequence = Sequence(request)
    sequence.begin()
    tokens: list[int] = []
    for picture in range(chain.pictures):
        forced = request.grammar.starts_with_image and not picture
        tokens += [] if forced else [*[min(vocab.text_ids)] * words, vocab.boi]
        tokens += [image] * vocab.tokens_per_image
    for token in [*tokens, *[min(vocab.text_ids)] * (0 if request.grammar.stop_after_images else words)]:
        if sequence.asking:
            sequence.answer(kinds[-1] if sequence.state.images == chain.pictures else kinds[0])
        yield [len(row.ids) for row, _ in sequence.mix]
        sequence.accept(token)
