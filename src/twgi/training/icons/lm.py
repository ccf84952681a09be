"""Training of the icon world's language model from nothing (`twgi train lm recipes/icons_lm.yaml`).

The image tokenizer is read from the folder that `twgi train vq` left, the text tokenizer is made first, the rows are
made fresh (`rows.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
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
from twgi.config import load_recipe
from twgi.errors import ConfigError
from twgi.files import write_whole
from twgi.icons import chains, tasks
from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.thinking.modes import MODES, NEGATIVE_PROMPT
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.training.icons.muon import build_optimizer
from twgi.training.icons.rows import FreshRows, Mixture, RowMaker, SceneCodes
from twgi.training.icons.vq import WEIGHTS, VQRecipe
from twgi.training.loss import LossWeights
from twgi.training.objective import Objective
from twgi.training.recipe import RunRecipe
from twgi.training.train import begin, fit, learning_rate
from twgi.vocab import Vocab, image_name

MARKS_BEFORE = ("<s>", "<pad>", "</s>", "<unk>")
MARKS_AFTER = ("<eoss>", "<racm3:break>", *(f"<reserved0870{i}>" for i in range(2, 7)), "<image>")


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
    for build in islice(cycle(tasks.TASKS.values()), count):
        request = build(rng)
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
        rows = FreshRows(RowMaker(tokenizer, SceneCodes(tokenizer), recipe.mixture), seed=recipe.seed)
        rate = partial(learning_rate, steps=recipe.steps, warmup=recipe.warmup, decay_from=recipe.decay_from)
        fit(recipe, objective.to(recipe.device), optimizer, rows, rate=rate, clip=recipe.clip, autocast=recipe.bf16)
        save(out / "model", model=model, vq=vq, tokenizer=tokenizer, dtype=torch.float16, defaults=recipe.defaults)
    return out / "model"
