"""What a thought costs on a device: memory for the cache, and the least time a step can take.

The engine's own bookkeeping is asked: the scheduler for what it sets aside, and a sequence, which is told made-up
tokens in the shape of the published example rows, for the rows of each step. Every step reads all weights once, and
each row's keys and values once; a device that only reads memory is as fast as the floors here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

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


class Gpu(NamedTuple):
    """Memory and its speed, as the vendor says."""

    name: str
    gib: float
    tb_per_s: float


class Shape(NamedTuple):
    """Of a thought: ids of its prompt with bos and separator, words in all, pictures."""

    prompt: int
    words: int
    pictures: int


GPUS = [
    Gpu("h200", 141, 4.8), Gpu("h100", 80, 3.35), Gpu("a100", 80, 2.04), Gpu("a100-40", 40, 1.56),
    Gpu("l40s", 48, 0.86), Gpu("rtx4090", 24, 1.01), Gpu("rtx3090", 24, 0.94),
]  # fmt: skip
SHAPES = {  # subgoal and critique: the published example rows; direct and general: a short prompt
    "direct": Shape(32, 0, 1), "subgoal": Shape(37, 471, 3), "critique": Shape(110, 1581, 2),
    "general": Shape(32, 500, 2),
}  # fmt: skip


def gpu_named(name: str) -> Gpu:
    """A GPU by name, or by memory and speed: `48@0.9` is 48 GiB read at 0.9 TB/s. Raises `ConfigError`."""
    known = {gpu.name: gpu for gpu in GPUS}
    if name.lower() in known:
        return known[name.lower()]
    try:
        gib, speed = map(float, name.split("@"))
    except ValueError:
        raise ConfigError(f"unknown GPU {name!r}; known are {', '.join(known)}, or give GIB@TB/S: 48@0.9") from None
    if not (gib > 0 and speed > 0):
        raise ConfigError(f"a GPU has memory and speed above zero, got {name!r}")
    return Gpu(name, gib, speed)


def plan_of(
    checkpoint: Checkpoint, *, gpu: Gpu, dtype: torch.dtype, int8: bool, guidance: str, context: int | None
) -> dict[str, Any]:
    """The costs of every mode, ready for JSON.

    Of each mode: `steps`, forward passes of one thought after its prompt; `rows`, the most that run at once;
    `reserved`, bytes of cache that are set aside for one thought, and `peak`, that it comes to use; `chains`, thoughts
    that fit beside the weights (0 too where one is longer than the context); `step_ms`, the least time of a step of one
    thought; `chain_s`, the least seconds of one thought alone, and of each of `chains` together.
    """
    counts, per_token = sizes(checkpoint), kv_bytes_per_token(checkpoint.config, dtype)
    weights = weight_bytes(counts, dtype, int8=int8)
    context = context or checkpoint.config.max_positions
    read = weights - counts.embedding * dtype.itemsize - counts.image * torch.float32.itemsize
    modes: list[dict[str, Any]] = []
    for mode in SHAPES:
        rows_T = list(steps(request_of(checkpoint, mode, guidance, 10**6), mode))
        cache_T = [sum(rows) * per_token for rows in rows_T]
        reserved = most_positions(request_of(checkpoint, mode, guidance, context)) * per_token
        fits = max(0, int((gpu.gib * GIB - WORKSPACE - weights) // reserved))
        chains = fits if max(rows[0] for rows in rows_T) <= context else 0
        chain_s = [(len(cache_T) * read / n + sum(cache_T)) / (gpu.tb_per_s * 1e12) for n in (1, max(1, chains))]
        modes.append({
            "mode": mode, "steps": len(cache_T), "rows": max(map(len, rows_T)), "reserved": reserved,
            "peak": max(cache_T), "chains": chains, "step_ms": 1000 * chain_s[0] / len(cache_T), "chain_s": chain_s,
        })  # fmt: skip
    width = f"{'int8 and ' if int8 else ''}{str(dtype).removeprefix('torch.')}"
    return {
        "gpu": gpu._asdict(), "weights_in": width, "weights": weights, "kv_per_token": per_token, "context": context,
        "modes": modes,
    }  # fmt: skip


def request_of(checkpoint: Checkpoint, name: str, guidance: str, context: int) -> Request:
    """A thought of this mode as long as the context lets it be, about a prompt of made-up ids."""
    mode, plan, vocab, prompt = mode_named(name), plan_named(guidance), checkpoint.vocab, SHAPES[name].prompt
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


def steps(request: Request, name: str) -> Iterator[list[int]]:
    """The length of each row that runs, at each step of a thought."""
    shape, vocab, kinds = SHAPES[name], request.grammar.vocab, list(request.guidance)
    word, words = min(vocab.text_ids), shape.words // (shape.pictures + 1)
    tokens: list[int] = []
    for picture in range(shape.pictures):
        forced = request.grammar.starts_with_image and not picture
        tokens += [] if forced else [*[word] * words, vocab.boi]
        tokens += [min(vocab.image_ids)] * vocab.tokens_per_image
    sequence = Sequence(request, most_pages=0)
    sequence.begin()
    for token in [*tokens, *[word] * (0 if request.grammar.stop_after_images else words)]:
        if sequence.asking:
            sequence.answer(kinds[-1] if sequence.state.images == shape.pictures else kinds[0])
        yield [len(row.ids) for row, _ in sequence.mix]
        sequence.accept([(token, None)])
