"""Training of the icon world's language model from nothing (`twgi train lm recipes/icons_lm.yaml`).

The image tokenizer is read from the folder that `twgi train vq` left, the text tokenizer is made first, the rows are
made fresh (`rows.py`). `out/model` is a folder that `twgi think --model` loads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from twgi.checkpoint.save import save
from twgi.config import load_recipe
from twgi.errors import ConfigError
from twgi.files import write_whole
from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.training.icons.bpe import sentences, train_bpe
from twgi.training.icons.muon import build_optimizer
from twgi.training.icons.rows import FreshRows, Mixture, RowMaker, SceneCodes
from twgi.training.icons.vq import WEIGHTS, VQRecipe, deciding
from twgi.training.loss import LossWeights
from twgi.training.objective import Objective
from twgi.training.train import Training, begin, fit, learning_rate
from twgi.vocab import Vocab


@dataclass(frozen=True, kw_only=True)
class LMRecipe:
    """What `twgi train lm` reads. The vocabulary size follows from the codes and the BPE."""

    out: str
    vq: str
    merges: int = 680
    model: dict[str, Any] = field(default_factory=dict)
    mixture: Mixture = field(default_factory=Mixture)
    defaults: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    steps: int = 4000
    warmup: int = 49
    decay_from: float = 0.6
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    log_every: int = 20
    save_every: int = 250
    bf16: bool = True
    threads: int = 1
    device: str = "cpu"


def read_vq(recipe_path: Path) -> VQModel:
    """The image tokenizer that a VQ recipe's run left, rounded to what is shipped (float16)."""
    recipe = load_recipe(VQRecipe, recipe_path)
    file = Path(recipe.out) / WEIGHTS
    if not file.is_file():
        raise ConfigError(f"{recipe.out} has no trained image tokenizer; run `twgi train vq {recipe_path}` first")
    vq = VQModel(recipe.model)
    vq.load_state_dict({name: value.half().float() for name, value in load_file(file).items()})
    return vq.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]


def text_tokenizer(folder: Path, *, codes: int, merges: int, seed: int) -> TextTokenizer:
    """The BPE of this run: made once and kept in its folder, for a resumed run must read the same ids."""
    file = folder / "tokenizer.json"
    if not file.exists():
        bpe = train_bpe(sentences(6000, seed), codes=codes, merges=merges)
        write_whole(file, bpe.to_str().encode())
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
    with begin(out, recipe, deciding(recipe)):
        text = text_tokenizer(out, codes=vq.config.num_embeddings, merges=recipe.merges, seed=recipe.seed)
        tokenizer = make_tokenizer(vq, text)
        model = Transformer(TransformerConfig(vocab_size=tokenizer.vocab.size, **recipe.model))
        model.init_weights()
        start_from_codebook(model, tokenizer.vocab, vq.quantize.embedding.weight)
        fit(_training(recipe, model, vq, tokenizer))
        save(out / "model", model=model, vq=vq, tokenizer=tokenizer, dtype=torch.float16, defaults=recipe.defaults)
    return out / "model"


def _training(recipe: LMRecipe, model: Transformer, vq: VQModel, tokenizer: MultimodalTokenizer) -> Training:
    """A step is a few batches of unequal shape; its loss is the mean over all their real targets."""
    objective = Objective(model, vq.quantize.embedding.weight, tokenizer.vocab, LossWeights(reconstruction=0))
    objective.to(recipe.device)
    optimizer = build_optimizer(
        model, matrix_lr=recipe.matrix_lr, other_lr=recipe.other_lr, weight_decay=recipe.weight_decay
    )
    maker = RowMaker(tokenizer, SceneCodes(tokenizer), recipe.mixture)
    return Training(
        out=Path(recipe.out), objective=objective, optimizer=optimizer, batches=FreshRows(maker, seed=recipe.seed),
        rate=lambda step: learning_rate(step, recipe.steps, warmup=recipe.warmup, decay_from=recipe.decay_from),
        steps=recipe.steps, seed=recipe.seed, device=torch.device(recipe.device), clip=recipe.clip, bf16=recipe.bf16,
        log_every=recipe.log_every, save_every=recipe.save_every,
    )  # fmt: skip
