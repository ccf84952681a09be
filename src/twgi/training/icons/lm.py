"""Training of the icon world's language model from nothing (`twgi train lm recipes/icons_lm.yaml`).

The image tokenizer is read from the folder that `twgi train vq` left, the text tokenizer is made first. Rows are made
fresh as training goes: what step i trains on is a pure function of (seed, i).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from twgi.checkpoint.save import save
from twgi.config import build, check_one_of, load_recipe
from twgi.data.rows import TokenRow
from twgi.errors import ConfigError
from twgi.files import write_whole
from twgi.icons import chains, tasks, world
from twgi.icons.chains import Chain, Drawn
from twgi.icons.world import Placed, Scene, render
from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.thinking.modes import MODES, NEGATIVE_PROMPT
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.training.batches import collate
from twgi.training.icons.muon import build_optimizer
from twgi.training.icons.vq import WEIGHTS, VQRecipe
from twgi.training.objective import LossWeights, Objective
from twgi.training.recipe import RunRecipe
from twgi.training.train import begin, fit, learning_rate
from twgi.vocab import Vocab, image_name

MARKS_BEFORE = ("<s>", "<pad>", "</s>", "<unk>")
MARKS_AFTER = ("<eoss>", "<racm3:break>", *(f"<reserved0870{i}>" for i in range(2, 7)), "<image>")
Piece = tuple[Sequence[int], bool]  # ids, and whether they carry loss
GROUP = 8  # steps whose rows are made together, so that rows of like length meet in a batch
SIMPLE, ALL_CHAINS = ("single_object", "colors"), ("subgoal", "critique", "general")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How many rows of what; shares are of rows unless said otherwise."""

    direct_rows: int = 32
    chain_tokens: int = 3200
    unconditional: float = 0.10
    bare_prompt: float = 0.04
    pictures_only: float = 0.04
    chains: dict[str, float] = field(default_factory=lambda: {"subgoal": 0.4, "critique": 0.3, "general": 0.3})
    tasks: dict[str, float] = field(
        default_factory=lambda: {
            "single_object": 0.12, "two_object": 0.16, "counting": 0.16, "colors": 0.12, "position": 0.14,
            "color_attr": 0.16, "many": 0.07, "related": 0.07,
        }
    )  # fmt: skip
    simple_steps: int = 400  # until here, simple scenes are drawn more often

    def __post_init__(self) -> None:
        for name, shares, known in (("chains", self.chains, ALL_CHAINS), ("tasks", self.tasks, tuple(tasks.TASKS))):
            for key in shares:
                check_one_of(f"a key of mixture.{name}", key, known)
            if min(shares.values(), default=-1) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
                raise ConfigError(f"the shares of mixture.{name} must be 0 or more and come to 1, got {shares}")
        if self.direct_rows < 0 or self.chain_tokens < 1:
            raise ConfigError("mixture: direct_rows must be 0 or more, chain_tokens 1 or more")


@dataclass(frozen=True, kw_only=True)
class LMRecipe(RunRecipe):
    """What `twgi train lm` reads. The vocabulary size follows from the codes and the BPE."""

    FREE: ClassVar[tuple[str, ...]] = (*RunRecipe.FREE, "vq", "defaults")

    vq: str
    merges: int = 680
    model: dict[str, Any] = field(default_factory=dict)
    mixture: Mixture = field(default_factory=Mixture)
    defaults: dict[str, Any] = field(default_factory=dict)
    steps: int = 4000
    warmup: int = 49
    decay_from: float = 0.6
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    weight_decay: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = (self.warmup, self.decay_from, self.weight_decay, self.clip)
        if min(self.merges, self.steps) < 1 or min(self.matrix_lr, self.other_lr) <= 0 or min(numbers) < 0:
            raise ConfigError("merges, steps, matrix_lr and other_lr must be above 0, and the rest 0 or more")
        build(TransformerConfig, {"vocab_size": 2**16, **self.model}, where="model")


def read_vq(recipe_path: Path) -> VQModel:
    """The image tokenizer that a VQ recipe's run left, rounded to what is shipped (float16)."""
    recipe = load_recipe(VQRecipe, recipe_path)
    if not (file := Path(recipe.out) / WEIGHTS).is_file():
        raise ConfigError(f"{recipe.out} has no trained image tokenizer; run `twgi train vq {recipe_path}` first")
    vq = VQModel(recipe.model)
    vq.load_state_dict({name: value.half().float() for name, value in load_file(file).items()})
    return vq.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]


def sentences(count: int, seed: int) -> Iterator[str]:
    """Prompts and words of random chains of all modes, as the model will read them."""
    rng = np.random.default_rng(seed)
    for make_request in islice(cycle(tasks.TASKS.values()), count):
        request = make_request(rng)
        scene = tasks.make_scene(request, rng)
        for chain in (chains.subgoal(request, scene), chains.critique(request, scene, rng), chains.general(scene, rng)):
            yield MODES[chain.mode].prompt_text(chain.prompt).replace("<image>", "")
            yield from (part for part in chain.response if isinstance(part, str))
    yield NEGATIVE_PROMPT


def train_bpe(texts: Iterable[str], *, codes: int, merges: int) -> Tokenizer:
    """Ids: four marks, `codes` image tokens in codebook order, eoi, boi, reserved, separator, `<image>`, then text."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + merges, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    learned.train_from_iterator(texts, trainer)
    model = json.loads(learned.to_str())["model"]
    names = [*MARKS_BEFORE, *(image_name(code) for code in range(codes)), *MARKS_AFTER]
    vocab = {name: i for i, name in enumerate([*names, *sorted(model["vocab"], key=model["vocab"].get)])}
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(pair) for pair in model["merges"]]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (*MARKS_BEFORE, *MARKS_AFTER)])
    return bpe


def text_tokenizer(folder: Path, *, codes: int, merges: int, seed: int) -> TextTokenizer:
    """The BPE of this run: made once and kept in its folder, for a resumed run must read the same ids."""
    file = folder / "tokenizer.json"
    if not file.exists():
        write_whole(file, train_bpe(sentences(6000, seed), codes=codes, merges=merges).to_str().encode())
    return TextTokenizer.from_file(file)


def make_tokenizer(vq: VQModel, text: TextTokenizer) -> MultimodalTokenizer:
    """Text, marks and image tokens in Chameleon's layout, over this image tokenizer."""
    names, count = text.names, vq.config.tokens_per_image
    vocab = Vocab.from_names(names, tokens_per_image=count, size=len(names), special=text.special_ids)
    return MultimodalTokenizer(vocab, text, ImageTokenizer(vq, resolution=vq.config.resolution))


class SceneCodes:
    """Codes of a scene, laid together from the codes of its things seen alone: a thousand times faster than encoding.

    The image tokenizer gives a thing the same codes beside whatever it stands, so they differ in few cells.
    """

    def __init__(self, tokenizer: MultimodalTokenizer) -> None:
        self.tokenizer = tokenizer
        self.ground = self.encode([Scene(())])[0]
        self.alone = cache(self._alone)

    def encode(self, scenes: Sequence[Scene]) -> np.ndarray:
        """By the real encoder: int64 [scenes, tokens per image]."""
        return np.asarray(self.tokenizer.codes([render(scene) for scene in scenes]))

    def _alone(self, col: int, row: int) -> np.ndarray:
        """Codes of every coloured icon alone at this place: [name, colour, N]."""
        looks = [(name, color) for name in world.NAMES for color in world.COLORS]
        scenes = [Scene((Placed(name, color, col, row),)) for name, color in looks]
        parts = [self.encode(scenes[i : i + 100]) for i in range(0, len(scenes), 100)]
        return np.concatenate(parts).reshape(len(world.NAMES), len(world.COLORS), -1).astype(np.int32)

    def __call__(self, scene: Scene) -> np.ndarray:
        codes = self.ground.copy()
        for thing in scene.objects:
            look = world.NAMES.index(thing.name), tasks.COLOR_NAMES.index(thing.color)
            alone = self.alone(thing.col, thing.row)[look]
            changed = alone != self.ground
            codes[changed] = alone[changed]
        return codes


class RowMaker:
    """Random rows of every kind, and batches of them."""

    def __init__(self, tokenizer: MultimodalTokenizer, codes: SceneCodes, mixture: Mixture, *, seed: int) -> None:
        self.tokenizer, self.codes, self.mixture, self.seed = tokenizer, codes, mixture, seed
        self.group = lru_cache(maxsize=2)(self._group)
        self.words = lru_cache(maxsize=50_000)(lambda text: tuple(tokenizer.text.encode(text)))

    def image(self, scene: Scene, *, learn: bool, boi: bool = False) -> list[Piece]:
        """A picture, and whether its tokens and the mark before them carry loss."""
        ids = self.tokenizer.image_block(self.codes(scene).tolist())
        return [(ids[:1], boi), (ids[1:], learn)]

    def prompt_ids(self, chain: Chain) -> list[int]:
        pictures = [self.codes(scene).tolist() for scene in chain.pictures]
        return self.tokenizer.encode_prompt(MODES[chain.mode].prompt_text(chain.prompt), pictures)

    def row(self, chain: Chain) -> TokenRow:
        """The whole row: loss on the response alone, and there not on pictures that are only context."""
        pieces: list[Piece] = [(self.prompt_ids(chain), False)]
        for part in chain.response:
            if isinstance(part, Drawn):
                pieces += self.image(part.scene, learn=part.learn, boi=True)
            else:
                pieces.append((self.words(part), True))
        return joined([*pieces, ([self.tokenizer.vocab.eos], True)], chain.mode)

    def bare(self, before: Sequence[int], scene: Scene) -> TokenRow:
        """A condition row of guidance: whatever comes before, then the picture."""
        return joined([(before, False), *self.image(scene, learn=True)], "picture")

    def pictures(self, chain: Chain) -> TokenRow:
        """What the image branch of guidance reads: bos and the pictures of the response."""
        drawn = [part for part in chain.response if isinstance(part, Drawn)]
        pieces = [piece for part in drawn for piece in self.image(part.scene, learn=part.learn)]
        return joined([([self.tokenizer.vocab.bos], False), *pieces], "pictures")

    def request(self, rng: np.random.Generator, step: int) -> tasks.SceneRequest:
        more = SIMPLE if step < self.mixture.simple_steps else ()
        weights = {task: weight * (4 if task in more else 1) for task, weight in self.mixture.tasks.items()}
        shares = np.array(list(weights.values()))
        return tasks.TASKS[list(weights)[rng.choice(len(shares), p=shares / shares.sum())]](rng)

    def direct_row(self, rng: np.random.Generator, step: int) -> TokenRow:
        request = self.request(rng, step)
        scene = tasks.make_scene(request, rng)
        chance = rng.random()
        if chance < self.mixture.unconditional:
            return self.bare([], scene)
        if chance < self.mixture.unconditional + self.mixture.bare_prompt:
            return self.bare(self.words(request.prompt), scene)
        return self.row(chains.direct(request, scene))

    def chain_row(self, rng: np.random.Generator, step: int) -> TokenRow:
        request = self.request(rng, step)
        scene = tasks.make_scene(request, rng)
        shares = self.mixture.chains
        match str(rng.choice(list(shares), p=list(shares.values()))):
            case "subgoal":
                chain = chains.subgoal(request, scene)
            case "critique":
                chain = chains.critique(request, scene, rng)
            case _:
                chain = chains.general(scene, rng)
        return self.pictures(chain) if rng.random() < self.mixture.pictures_only else self.row(chain)

    def batches(self, step: int) -> list[dict[str, Any]]:
        """One batch of direct rows, and one of chains of like length."""
        parts = self.group(step // GROUP)[step % GROUP]
        return [collate([[row] for row in rows], self.tokenizer.vocab.pad) for rows in parts if rows]

    def _group(self, group: int) -> list[tuple[list[TokenRow], list[TokenRow]]]:
        """Chains are sorted by length and cut into batches of about equal numbers of tokens."""
        rng, step, mixture = np.random.default_rng([self.seed, group]), group * GROUP, self.mixture
        direct = [self.direct_row(rng, step) for _ in range(mixture.direct_rows * GROUP)]
        chained: list[TokenRow] = []
        while sum(len(row.ids) for row in chained) < mixture.chain_tokens * GROUP:
            chained.append(self.chain_row(rng, step))
        chained.sort(key=lambda row: len(row.ids))
        ends = np.cumsum([len(row.ids) for row in chained])
        part = (ends - 1) * GROUP // ends[-1]
        batches = [[row for row, p in zip(chained, part, strict=True) if p == i] for i in range(GROUP)]
        return [(direct[i::GROUP], batches[place]) for i, place in enumerate(rng.permutation(GROUP))]


def joined(pieces: Sequence[Piece], source: str) -> TokenRow:
    lengths = [len(ids) for ids, _ in pieces]
    ids = np.concatenate([np.array(ids, np.int64) for ids, _ in pieces])
    return TokenRow(ids=ids, learn=np.repeat([learn for _, learn in pieces], lengths), source=source)


def start_from_codebook(model: Transformer, vocab: Vocab, codebook_KD: Tensor) -> None:
    """Image rows of embedding and head begin as projected code vectors: codes that look alike begin alike."""
    code = F.normalize(codebook_KD - codebook_KD.mean(0)) * codebook_KD.shape[1] ** 0.5
    ids = torch.tensor(vocab.image_tokens)
    with torch.no_grad():
        for table in (model.embed.weight, model.head.weight):
            projection = torch.randn(code.shape[1], table.shape[1]) * 0.018 / code.shape[1] ** 0.5
            table[ids] = code @ projection + 0.009 * torch.randn(len(ids), table.shape[1])


def run_lm(recipe_path: str | Path, overrides: list[str] | None = None) -> Path:
    """Trains to the recipe's last step, resuming from its newest checkpoint; returns the folder of the model."""
    recipe = load_recipe(LMRecipe, recipe_path, overrides or [])
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    out, vq = Path(recipe.out), read_vq(Path(recipe.vq))
    with begin(recipe, {}):
        text = text_tokenizer(out, codes=vq.config.num_embeddings, merges=recipe.merges, seed=recipe.seed)
        tokenizer = make_tokenizer(vq, text)
        model = Transformer(TransformerConfig(vocab_size=tokenizer.vocab.size, **recipe.model))
        model.init_weights()
        start_from_codebook(model, tokenizer.vocab, vq.quantize.embedding.weight)
        objective = Objective(model, vq.quantize.embedding.weight, tokenizer.vocab, LossWeights(reconstruction=0))
        rates = {"matrix_lr": recipe.matrix_lr, "other_lr": recipe.other_lr}
        optimizer = build_optimizer(model, **rates, weight_decay=recipe.weight_decay)
        maker = RowMaker(tokenizer, SceneCodes(tokenizer), recipe.mixture, seed=recipe.seed)
        rate = partial(learning_rate, steps=recipe.steps, warmup=recipe.warmup, decay_from=recipe.decay_from)
        objective.to(recipe.device)
        fit(recipe, objective, optimizer, maker.batches, rate=rate, clip=recipe.clip, autocast=recipe.bf16)
        save(out / "model", model=model, vq=vq, tokenizer=tokenizer, dtype=torch.float16, defaults=recipe.defaults)
    return out / "model"
