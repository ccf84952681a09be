"""Training of the icon world's language model (`twgi train lm recipes/icons_lm.yaml`), on Hugging Face's Trainer.

The image tokenizer is read from the folder that `twgi train vq` left, the text tokenizer is made first, the rows are
made fresh (`rows.py`). `out/model` is a folder that `twgi think --model` loads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from twgi.checkpoint.save import save
from twgi.config import load_recipe
from twgi.errors import ConfigError
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.training.bpe import sentences, train_bpe
from twgi.training.checkpoints import newest_checkpoint, step_of
from twgi.training.loss import token_loss_sum
from twgi.training.optimizer import build_optimizer
from twgi.training.rows import Mixture, RowMaker, SceneCodes, Steps
from twgi.training.state import load_state
from twgi.training.trainer import MetricsFile, SafeTrainer
from twgi.training.vq import VQRecipe
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
    warmup: int = 50
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
    state = load_state(Path(recipe.out))
    if state is None:
        raise ConfigError(f"{recipe.out} has no trained image tokenizer; run `twgi train vq {recipe_path}` first")
    vq = VQModel(recipe.model)
    vq.load_state_dict({name: value.half().float() for name, value in state["model"].items()})
    return vq.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # type: ignore[call-overload]


def text_tokenizer(folder: Path, *, codes: int, merges: int, seed: int) -> TextTokenizer:
    """The BPE of this run: made once and kept in its folder, for a resumed run must read the same ids."""
    file = folder / "tokenizer.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(train_bpe(sentences(6000, seed), codes=codes, merges=merges).to_str(), encoding="utf-8")
    return TextTokenizer.from_file(file)


def make_tokenizer(vq: VQModel, text: TextTokenizer) -> MultimodalTokenizer:
    """Text, marks and image tokens in Chameleon's layout, over this image tokenizer."""
    config: VQConfig = vq.config
    names = text.names
    vocab = Vocab.from_names(names, tokens_per_image=config.tokens_per_image, size=len(names), special=text.special_ids)
    return MultimodalTokenizer(vocab, text, ImageTokenizer(vq, resolution=config.resolution))


def start_from_codebook(model: Transformer, vocab: Vocab, codebook_KD: Tensor) -> None:
    """Image rows of embedding and head begin as projected code vectors: codes that look alike begin alike."""
    code = F.normalize(codebook_KD - codebook_KD.mean(0)) * codebook_KD.shape[1] ** 0.5
    ids = torch.tensor(vocab.image_tokens)
    with torch.no_grad():
        for table in (model.embed.weight, model.head.weight):
            projection = torch.randn(code.shape[1], table.shape[1]) * 0.018 / code.shape[1] ** 0.5
            table[ids] = code @ projection + 0.009 * torch.randn(len(ids), table.shape[1])


def schedule(recipe: LMRecipe, step: int) -> float:
    """Linear warm-up, constant, then linear to nothing from `decay_from` of the steps."""
    left = (recipe.steps - step) / (recipe.steps * (1 - recipe.decay_from))
    return min(1.0, (step + 1) / recipe.warmup, max(left, 0.0))


class Objective(torch.nn.Module):
    """The model and its loss: what the Trainer sees (it would write into the `config` of a bare model)."""

    def __init__(self, decoder: Transformer) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        return token_loss_sum(self.decoder(ids), labels, self.decoder.head)


class LMTrainer(SafeTrainer):
    """A step is a few batches of unequal shape; its loss is the mean over all their real targets."""

    def __init__(self, recipe: LMRecipe, first_step: int, **options: Any) -> None:
        super().__init__(**options)
        self.recipe, self.first_step = recipe, first_step
        self.model_accepts_loss_kwargs = True  # the loss is already a mean over the step

    def get_train_dataloader(self) -> DataLoader[Any]:
        steps = range(self.first_step, len(self.train_dataset))
        return DataLoader(self.train_dataset, batch_size=None, sampler=steps)

    def training_step(self, model: torch.nn.Module, inputs: list[dict[str, Tensor]], *_: Any) -> Tensor:
        targets = sum(int((batch["labels"][:, 1:] >= 0).sum()) for batch in inputs)
        total = torch.zeros((), device=self.args.device)
        for batch in inputs:
            ids, labels = (batch[name].to(self.args.device) for name in ("ids", "labels"))
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.recipe.bf16):
                loss = model(ids, labels) / targets
            loss.backward()
            total += loss.detach()
        if not math.isfinite(float(total)):
            raise FloatingPointError(f"the loss is {float(total)} at step {self.state.global_step}")
        return total


def run_lm(recipe_path: str | Path, overrides: list[str] | None = None) -> Path:
    """Trains to the recipe's last step, resuming from its newest checkpoint; returns the folder of the model."""
    recipe = load_recipe(LMRecipe, recipe_path, overrides or [])
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    vq = read_vq(Path(recipe.vq))
    codes = vq.config.num_embeddings
    text = text_tokenizer(Path(recipe.out), codes=codes, merges=recipe.merges, seed=recipe.seed)
    tokenizer = make_tokenizer(vq, text)
    config = TransformerConfig(vocab_size=tokenizer.vocab.size, **recipe.model)
    model = Transformer(config)
    model.init_weights()
    start_from_codebook(model, tokenizer.vocab, vq.quantize.embedding.weight)
    _train(recipe, model, tokenizer)
    folder = Path(recipe.out) / "model"
    save(folder, model=model, vq=vq, tokenizer=tokenizer, dtype=torch.float16, defaults=recipe.defaults)
    return folder


def _train(recipe: LMRecipe, model: Transformer, tokenizer: MultimodalTokenizer) -> None:
    out = Path(recipe.out)
    checkpoint = newest_checkpoint(out)
    first = step_of(checkpoint) if checkpoint else 0
    maker = RowMaker(tokenizer, SceneCodes(tokenizer), recipe.mixture)
    optimizer = build_optimizer(
        model, matrix_lr=recipe.matrix_lr, other_lr=recipe.other_lr, weight_decay=recipe.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(recipe, step))
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=recipe.steps, max_grad_norm=recipe.clip, report_to=[],
        use_cpu=recipe.device == "cpu",
        logging_steps=recipe.log_every, save_steps=recipe.save_every, save_total_limit=2, ignore_data_skip=True,
        disable_tqdm=True, remove_unused_columns=False, seed=recipe.seed,
    )  # fmt: skip
    trainer = LMTrainer(
        recipe, first, model=Objective(model), args=arguments,
        train_dataset=Steps(maker, seed=recipe.seed, steps=recipe.steps),
        optimizers=(optimizer, scheduler), callbacks=[MetricsFile(out / "metrics.jsonl")],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
