"""Whole thoughts: our engine against the published procedure, same weights, same machine, same run.

    python benchmarks/think.py --mode subgoal --prompts 1 --guidance paper
    python benchmarks/think.py --mode subgoal --prompts 32 --guidance paper --sample 6

The procedure is our own writing of the published inference on `transformers`' Chameleon with a DynamicCache: one
prompt at a time, a new prefill for each segment, every branch of the guidance a left-padded row (those of weight zero
too), nothing kept between segments. It leaves out what `generate` costs beside that, so it flatters the procedure. It
draws with our noise, so that tokens can be compared; left padding changes its logits in the last bits. Both decode
their pictures with the same decoder. The two take turns; each round has other prompts and the other order.

Trust the ratio of processor times. With many prompts the procedure thinks about `--sample` of them. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twgi.checkpoint import hf
from twgi.checkpoint.load import Loaded, load
from twgi.decoding.grammar import Choice, State, allowed_ids
from twgi.decoding.guidance import SCALES_OF, Branch, branch_ids
from twgi.decoding.sampler import combined, draw
from twgi.decoding.sequence import Noise
from twgi.icons import tasks
from twgi.model.config import VQConfig
from twgi.model.transformer import Transformer
from twgi.thinking.events import Task
from twgi.thinking.request import ModelFacts, Planned, plan
from twgi.thinking.settings import Settings
from twgi.thinking.thinker import Thinker
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.trace import ImageSegment, Trace

BRANCH_OF = {"full": Branch.FULL, "image": Branch.IMAGE, "negative": Branch.NEGATIVE, "prompt": Branch.PROMPT}
SHAPES = {"icons": None, "150m": {"hidden_size": 1024, "intermediate_size": 3072, "num_layers": 12, "num_heads": 16,
                                  "num_kv_heads": 16}}  # fmt: skip
KINDS_OF_PROMPT = [tasks.TASKS[name] for name in ("two_object", "color_attr", "counting", "position")]


def main() -> None:
    args = parse()
    loaded = of_shape(load("icons", device=args.device, threads=args.threads), args.shape)
    published = Published(chameleon(loaded.model), loaded.tokenizer)
    if args.device == "cpu" and loaded.model.packed is None:
        loaded.model.pack()
    rng = np.random.default_rng(0)
    settings = Settings(mode=args.mode, guidance="paper" if args.guidance == "paper" else None)
    args.sample = min(args.sample, args.prompts)
    facts, rounds = ModelFacts(loaded.tokenizer, loaded.model.config.max_positions, loaded), list[dict[str, Any]]()
    for seed in range(args.rounds + 1):  # the first warms up
        prompts = [KINDS_OF_PROMPT[(i + seed) % 4](rng).prompt for i in range(args.prompts)]
        of_round = [Task(prompt=prompt, seed=seed, settings=settings) for prompt in prompts]
        theirs = [of_round[i * len(prompts) // args.sample] for i in range(args.sample)][: len(prompts)]

        def engine(tasks: Sequence[Task] = of_round) -> list[list[int]]:
            return think(loaded, tasks)

        def procedure(tasks: Sequence[Task] = theirs) -> list[list[int]]:
            return [published.think(plan(0, task, facts)) for task in tasks]

        ours, other = in_turn(engine, procedure, swapped=seed % 2 == 0)
        rounds.append(compared(of_round, theirs, ours, other))
        print(" ".join(f"{name} {value:.4g}" for name, value in rounds[-1].items()), flush=True)
    report(args, rounds[1:])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="subgoal")
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--sample", type=int, default=4, help="prompts that the published procedure thinks about")
    parser.add_argument("--guidance", choices=("paper", "own"), default="paper")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="icons")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def of_shape(loaded: Loaded, shape: str) -> Loaded:
    """The bundled model, or random weights of another shape that end a text with a picture soon."""
    sizes = SHAPES[shape]
    if sizes is None:
        return loaded
    weight = loaded.model.embed.weight
    config = replace(loaded.model.config, **sizes)  # type: ignore[arg-type]
    model = Transformer(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.normal_(0.0, 0.02, generator=generator).add_(float(name.endswith("norm.weight")))
        vocab = loaded.tokenizer.vocab
        model.head.weight[[vocab.boi, vocab.eos]] *= 12
    return replace(loaded, model=model.to(weight.device, weight.dtype).eval().requires_grad_(False))


def chameleon(model: Transformer) -> Any:
    """transformers' model with our weights and the smallest image tokenizer."""
    from transformers import ChameleonConfig, ChameleonForConditionalGeneration

    vq = VQConfig(resolution=2, base_channels=32, channel_multiplier=(1,), num_res_blocks=1, latent_channels=4,
                  num_embeddings=4, embed_dim=4)  # fmt: skip
    raw = hf.write_config(model.config, vq) | {"vocabulary_map": {"<image>": 3}}
    drop = ("architectures", "model_type", "quantization_config", "rope_scaling")
    settings = {key: value for key, value in raw.items() if key not in drop}
    theirs = ChameleonForConditionalGeneration(ChameleonConfig(**settings)).eval().requires_grad_(False)
    state: dict[str, Tensor] = {}
    for name, parts in hf.names(model.config).items():
        tensor = model.get_parameter(name)
        sizes = hf.part_sizes(model.config, name, len(tensor))
        state |= dict(zip(parts, tensor.split(list(sizes)), strict=True))
    missing = theirs.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all("vqmodel" in name for name in missing.missing_keys)
    return theirs.to(model.embed.weight.device, model.embed.weight.dtype)


class Published:
    """The published procedure: a thought of one prompt, segment by segment."""

    def __init__(self, theirs: Any, tokenizer: MultimodalTokenizer) -> None:
        self.theirs, self.tokenizer, self.vocab = theirs, tokenizer, tokenizer.vocab
        self.device = theirs.lm_head.weight.device
        self.ids = {c: torch.tensor(allowed_ids(self.vocab, c), device=self.device) for c in Choice}

    @torch.inference_mode()
    def think(self, planned: Planned) -> list[int]:
        """The tokens of the thought."""
        request, grammar = planned.request, planned.request.grammar
        self.noise = Noise(seed=request.seed, prompt=request.prompt, sample=request.sample)
        tokens, words, state = list[int](), list[int](), State()
        while state.finish is None:
            forced = grammar.forced(state)
            if forced is not None:
                segment = [forced]
            elif state.in_image:
                kind = planned.kind_of(state.images - 1, self.tokenizer.text.decode(words))
                segment = [*self._picture(planned, kind, [*request.prompt, *tokens]), self.vocab.eoi]
                self.tokenizer.draw([ImageSegment(tokens=(self.vocab.boi, *segment))])
                words.clear()
            else:
                segment = self._text(planned, tokens, state)
                words += [token for token in segment if token != self.vocab.boi]
            tokens += segment
            for token in segment:
                state = grammar.advance(state, token)
        return tokens

    def _text(self, planned: Planned, tokens: Sequence[int], state: State) -> list[int]:
        request, written = planned.request, list[int]()
        rows = Rows(self.theirs, [[*request.prompt, *tokens]])
        while True:
            position = len(request.prompt) + len(tokens) + len(written)
            token = self._draw(rows.logits, [1.0], request.grammar.choice(state), request.text, position)
            written.append(token)
            state = request.grammar.advance(state, token)
            if state.finish is not None or state.in_image:
                return written
            rows.append(token)

    def _picture(self, planned: Planned, kind: str, history: Sequence[int]) -> list[int]:
        request, told, drawn = planned.request, planned.request.conditions, list[int]()
        weights = planned.settings.plan.for_picture(kind).weights
        scheme = planned.settings.plan.scales[kind].scheme
        branches = [Branch.UNCONDITIONAL, *(BRANCH_OF[name] for name in SCALES_OF[scheme])]
        rows = Rows(
            self.theirs,
            [
                branch_ids(one, history, prompt=told.prompt, negative=told.negative, vocab=self.vocab, bos=told.bos)
                for one in branches
            ],
        )
        while True:
            by_row = [weights.get(one, 0.0) for one in branches]
            drawn.append(self._draw(rows.logits, by_row, Choice.IMAGE, request.image, len(history) + len(drawn)))
            if len(drawn) == self.vocab.tokens_per_image:
                return drawn
            rows.append(drawn[-1])

    def _draw(self, logits: Tensor, weights: Sequence[float], choice: Choice, by: Any, position: int) -> int:
        ids, start = self.ids[choice], torch.tensor([self.noise.start(position)], device=self.device)
        return int(draw(combined(logits[:, ids], [list(enumerate(weights))]), ids, by, start).tokens_R)


class Rows:
    """Left-padded rows and their cache; `logits` are those after the last token."""

    def __init__(self, theirs: Any, rows: Sequence[Sequence[int]]) -> None:
        from transformers import DynamicCache

        self.theirs, self.device = theirs, theirs.lm_head.weight.device
        longest = max(map(len, rows))
        self.cache = DynamicCache(config=theirs.config)
        self.mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=self.device)
        ids = torch.tensor([[1] * (longest - len(row)) + [*row] for row in rows], device=self.device)
        self._read(ids, (self.mask.cumsum(-1) - 1).clamp(min=0))

    def append(self, token: int) -> None:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        self._read(torch.full((len(self.mask), 1), token, device=self.device), self.mask.sum(-1, keepdim=True) - 1)

    def _read(self, ids: Tensor, positions: Tensor) -> None:
        mask = self.mask if bool((self.mask == 0).any()) else None
        out = self.theirs.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self.cache, use_cache=True
        )
        self.logits = self.theirs.lm_head(out.last_hidden_state[:, -1])


Timed = tuple[list[list[int]], float, float]
"""The tokens of each thought, seconds of processor time and of the clock."""


def think(loaded: Loaded, of_round: Sequence[Task]) -> list[list[int]]:
    """The engine's tokens, all thoughts together, nothing known of earlier rounds."""
    thinker = Thinker(loaded.model, loaded.tokenizer, loaded)
    found = dict(thinker.think_many(of_round, batch=len(of_round)))
    traces = [found[i] for i in range(len(of_round))]
    assert all(isinstance(trace, Trace) for trace in traces), traces
    return [[*one.tokens, *ended(one)] for one in traces if isinstance(one, Trace)]


def ended(trace: Trace) -> list[int]:
    return [] if trace.end_token is None else [trace.end_token]


def in_turn(*jobs: Callable[[], list[list[int]]], swapped: bool) -> list[Timed]:
    found: dict[int, Timed] = {}
    for place in sorted(range(len(jobs)), reverse=swapped):
        wall, cpu = time.perf_counter(), time.process_time()
        tokens = jobs[place]()
        found[place] = tokens, time.process_time() - cpu, time.perf_counter() - wall
    return [found[place] for place in range(len(jobs))]


def compared(of_round: Sequence[Task], theirs: Sequence[Task], ours: Timed, other: Timed) -> dict[str, float]:
    """Seconds a thought of both, their ratios, and how many thoughts of both are the same."""
    own = {id(task): tokens for task, tokens in zip(of_round, ours[0], strict=True)}
    equal = sum(own[id(task)] == tokens for task, tokens in zip(theirs, other[0], strict=True))
    out = {"thoughts": len(ours[0]), "tokens": sum(map(len, ours[0])) / len(ours[0]), "sampled": len(theirs)}
    out |= {"sampled_tokens": sum(map(len, other[0])) / len(theirs), "equal": equal}
    for place, name in ((1, "cpu"), (2, "wall")):
        mine, yours = ours[place] / len(ours[0]), other[place] / len(theirs)  # type: ignore[operator]
        out |= {f"{name}_engine": mine, f"{name}_published": yours, f"{name}_ratio": yours / mine}
    return out


def report(args: argparse.Namespace, rounds: Sequence[dict[str, float]]) -> None:
    result: dict[str, Any] = dict(vars(args))
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        result[name] = round(statistics.median(values), 4)
        if name.endswith("ratio"):
            result[f"{name}_range"] = [round(min(values), 2), round(max(values), 2)]
    result["equal"], result["sampled"] = (sum(int(one[name]) for one in rounds) for name in ("equal", "sampled"))
    print(f"{args.mode}, {args.prompts} prompt(s), {args.guidance} guidance, {args.shape}, {args.device}")
    for name in ("cpu", "wall"):
        low, high = result[f"{name}_ratio_range"]
        print(
            f"{name}: published {result[f'{name}_published']:.3f} s a thought, engine {result[f'{name}_engine']:.3f}, "
            f"ratio {result[f'{name}_ratio']:.2f} ({low} to {high})"
        )
    print(f"equal tokens: {result['equal']} of {result['sampled']} thoughts")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
