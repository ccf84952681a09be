"""One decoding step of our decoder against `transformers`' Chameleon: same weights, same machine, same run.

    python benchmarks/decode_step.py --hidden 256 --layers 6 --context 300 --rows 1 2 5 32

A step gives every row one new token and computes its logits. Theirs is `model.model` and `lm_head` with a DynamicCache
on a rectangular batch, its best case: ours takes ragged rows as well. Processor time, so that a busy machine
matters less; trust the ratio more than the milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from twgi.checkpoint import hf
from twgi.decoding.cache import KVCache
from twgi.decoding.pages import PAGE, Pages, Row
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    config = TransformerConfig(
        vocab_size=args.vocab, hidden_size=args.hidden, intermediate_size=3 * args.hidden, num_layers=args.layers,
        num_heads=args.hidden // 64, num_kv_heads=args.hidden // 64, max_positions=2 * args.context,
    )  # fmt: skip
    theirs = chameleon(config)
    model = same_weights(config, theirs).pack()
    print(f"hidden {args.hidden}, {args.layers} layers, context {args.context}, {args.threads} thread(s), float32")
    print("rows   ours ms   transformers ms   ratio   largest difference")
    for rows in args.rows:
        tokens = torch.randint(0, args.vocab, (rows, args.context))
        (ours_ms, ours), (their_ms, expected) = in_turn(
            our_step(model, tokens), their_step(theirs, tokens), repeats=args.repeats
        )
        print(
            f"{rows:4} {ours_ms:9.2f} {their_ms:17.2f} {their_ms / ours_ms:7.2f}   {(ours - expected).abs().max():.1e}"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--context", type=int, default=300)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 5, 32])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    return parser.parse_args()


def chameleon(config: TransformerConfig) -> Any:
    """transformers' model with random weights and the smallest image tokenizer."""
    from transformers import ChameleonConfig, ChameleonForConditionalGeneration

    vq = VQConfig(resolution=2, base_channels=32, channel_multiplier=(1,), num_res_blocks=1, latent_channels=4,
                  num_embeddings=4, embed_dim=4)  # fmt: skip
    raw = hf.write_config(config, vq) | {"vocabulary_map": {"<image>": 3}}
    drop = ("architectures", "model_type", "quantization_config", "rope_scaling")
    settings = {key: value for key, value in raw.items() if key not in drop}
    return ChameleonForConditionalGeneration(ChameleonConfig(**settings)).eval().requires_grad_(False)


def same_weights(config: TransformerConfig, theirs: Any) -> Transformer:
    tensors = theirs.state_dict()
    model = Transformer(config).eval().requires_grad_(False)
    names = hf.names(config).items()
    model.load_state_dict({name: torch.cat([tensors[part] for part in parts]) for name, parts in names})
    return model


def our_step(model: Transformer, tokens_RT: Tensor) -> Callable[[], Tensor]:
    """A function that appends one token to each row and forgets it again; logits RV."""
    rows, length = tokens_RT.shape
    pages = Pages(rows * (length + PAGE))
    cache, opened = KVCache(model.config, pages), [Row(ids, most=length + 1) for ids in tokens_RT.tolist()]
    for row in opened:
        pages.open(row)
    model.forward_cached(tokens_RT.flatten(), cache.step([(row, length) for row in opened]))

    def step() -> Tensor:
        logits_RV = model.logits(model.forward_cached(tokens_RT[:, 0], cache.step([(row, 1) for row in opened])))
        for row in opened:
            row.read = length
        return logits_RV

    return step


def their_step(theirs: Any, tokens_RT: Tensor) -> Callable[[], Tensor]:
    from transformers import DynamicCache

    cache = DynamicCache(config=theirs.config)

    @torch.inference_mode()
    def step() -> Tensor:
        out = theirs.model(input_ids=tokens_RT[:, :1], past_key_values=cache, use_cache=True)
        cache.crop(-1)
        logits: Tensor = theirs.lm_head(out.last_hidden_state)[:, -1]
        return logits

    with torch.inference_mode():
        theirs.model(input_ids=tokens_RT, past_key_values=cache, use_cache=True)
    return step


def in_turn(*steps: Callable[[], Tensor], repeats: int) -> list[tuple[float, Tensor]]:
    """(median milliseconds of processor time, result) of each; in turn, so that other work slows all alike."""
    results = [step() for step in steps]
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats):
        for taken, step in zip(times, steps, strict=True):
            start = time.process_time()
            step()
            taken.append(1000 * (time.process_time() - start))
    return [(statistics.median(taken), result) for taken, result in zip(times, results, strict=True)]


if __name__ == "__main__":
    main()
