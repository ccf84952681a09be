"""Training of the icon world's image tokenizer (`twgi train vq recipes/icons_vq.yaml`).

Three phases: the autoencoder without quantisation; quantised training, from codes that are k-means of the latents and
follow them by moving averages, dead ones revived; then the decoder alone, codes and encoder fixed.
A *consistency* term pulls the latent of a cell towards the average latent of the same piece of the same coloured icon
elsewhere, so that a thing has the same tokens wherever and beside whatever it stands, and can be copied.
Data is a pure function of (seed, step).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from twgi.checkpoint.save import write_tensors
from twgi.config import load_recipe
from twgi.errors import ConfigError
from twgi.icons import world
from twgi.model.config import VQConfig
from twgi.model.vqvae import VQModel
from twgi.training.icons.muon import MuonAdamW
from twgi.training.objective import Batch, LossModule, Terms
from twgi.training.recipe import RunRecipe
from twgi.training.sharding import device_for_training
from twgi.training.train import begin, fit

WEIGHTS = "vq.safetensors"
PIECES = world.SPAN**2
KEYS = len(world.NAMES) * len(world.COLORS) * PIECES + 1  # every piece of every coloured icon, and the ground


@dataclass(frozen=True, kw_only=True)
class VQRecipe(RunRecipe):
    """What `twgi train vq` reads. Steps count over all phases: plain first, the decoder alone last."""

    FREE: ClassVar[tuple[str, ...]] = (*RunRecipe.FREE, "compile")

    model: VQConfig = field(default_factory=VQConfig)
    batch: int = 32
    plain_steps: int = 400
    decoder_steps: int = 200
    steps: int = 1350
    matrix_lr: float = 0.02
    lr: float = 2e-3
    warmup: int = 50
    object_weight: float = 4.0
    consistency: float = 0.5
    commitment: float = 0.5
    tight_from: int = 800  # from this step the terms that make codes independent of what stands around are tight
    tight_consistency: float = 1.0
    tight_commitment: float = 2.0
    code_decay: float = 0.97
    ground_pictures: int = 512  # looked at to find the codes that stand for nothing but ground
    log_every: int = 50
    save_every: int = 200
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = (self.batch, self.plain_steps, self.decoder_steps, self.warmup, self.ground_pictures)
        if min(counts) < 1 or self.plain_steps + self.decoder_steps >= self.steps:
            raise ConfigError("batch, warmup, ground_pictures and the steps of each phase must be 1 or more")
        if min(self.lr, self.matrix_lr) <= 0 or not 0 <= self.code_decay < 1:
            raise ConfigError("lr and matrix_lr must be above 0, and code_decay in [0, 1)")
        if (self.model.grid, self.model.resolution) != (world.GRID, world.GRID * world.CELL_PX):
            raise ConfigError(f"model: the icon world has {world.GRID} x {world.GRID} cells of {world.CELL_PX} pixels")

    @property
    def settled(self) -> int:
        """The step from which encoder and codes stay as they are."""
        return self.steps - self.decoder_steps

    def weights(self, step: int) -> tuple[float, float]:
        """Of consistency and commitment; consistency grows while the model learns to see at all."""
        if step >= self.tight_from:
            return self.tight_consistency, self.tight_commitment
        return self.consistency * min(1.0, step / self.plain_steps), self.commitment

    def rate(self, step: int) -> float:
        """Warm-up (again where quantisation begins), then cosine to 5 %; decoder alone: 30 % down to 0."""
        if step >= self.settled:
            return 0.3 * (self.steps - step) / self.decoder_steps
        since = step if step < self.plain_steps else step - self.plain_steps
        cosine = 0.5 * (1 + np.cos(np.pi * step / self.settled))
        return float(min(1.0, (since + 1) / self.warmup) * (0.05 + 0.95 * cosine))


def sample_scene(rng: np.random.Generator) -> world.Scene:
    """Zero to four random things, at most one in a quadrant."""
    count = int(rng.choice([0, 1, 2, 3, 4], p=[0.02, 0.28, 0.25, 0.15, 0.30]))
    quadrants = rng.permutation(4)[:count]
    names, colors = rng.integers(len(world.NAMES), size=count), rng.integers(len(world.COLORS), size=count)
    jitter = rng.integers(2, size=(count, 2))
    return world.Scene(tuple(
        world.Placed(world.NAMES[n], list(world.COLORS)[c], int(q % 2 * 4 + j[0]), int(q // 2 * 4 + j[1]))
        for n, c, q, j in zip(names, colors, quadrants, jitter, strict=True)
    ))  # fmt: skip


def make_batch(seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
    """Pixels in -1..1 [B, 3, H, W] (channels last) and keys, int64 [B, N].

    A key says which piece of which coloured icon a cell shows; KEYS - 1 is the ground.
    """
    rng = np.random.default_rng([seed, step + 1])
    scenes = [sample_scene(rng) for _ in range(size)]
    keys = np.full((size, world.GRID, world.GRID), KEYS - 1, np.int64)
    for number, scene in enumerate(scenes):
        for thing in scene.objects:
            look = world.NAMES.index(thing.name) * len(world.COLORS) + list(world.COLORS).index(thing.color)
            spot = keys[number, thing.row : thing.row + world.SPAN, thing.col : thing.col + world.SPAN]
            spot[:] = look * PIECES + np.arange(PIECES).reshape(world.SPAN, world.SPAN)
    pixels = torch.from_numpy(np.stack([np.asarray(world.render(scene)) for scene in scenes]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, torch.from_numpy(keys).flatten(1)


def kmeans(points_ND: Tensor, k: int, rng: np.random.Generator, rounds: int = 12) -> Tensor:
    """Lloyd's algorithm from k random points; empty clusters restart at random points."""
    centres = points_ND[torch.from_numpy(rng.choice(len(points_ND), k, replace=len(points_ND) < k))].clone()
    for _ in range(rounds):
        hits, total = sums_by(torch.cdist(points_ND, centres).argmin(1), points_ND, k)
        empty = hits == 0
        centres = total / hits.clamp(min=1)[:, None]
        centres[empty] = points_ND[torch.from_numpy(rng.integers(len(points_ND), size=int(empty.sum())))]
    return centres


def sums_by(keys_N: Tensor, z_ND: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """How many latents each of `count` keys has, and their sum."""
    hits = z_ND.new_zeros(count).index_add_(0, keys_N, torch.ones_like(keys_N, dtype=z_ND.dtype))
    return hits, z_ND.new_zeros(count, z_ND.shape[1]).index_add_(0, keys_N, z_ND)


class VQObjective(LossModule):
    """The image tokenizer, the loss of each phase, and moving averages: each key's mean latent, each code's latents."""

    def __init__(self, recipe: VQRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.model = VQModel(recipe.model).to(recipe.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.codebook = self.model.quantize.embedding.weight.requires_grad_(False).detach()
        self.prototype, self.seen = self.codebook.new_zeros(KEYS, recipe.model.embed_dim), self.codebook.new_zeros(KEYS)
        self.hits, self.sum = self.codebook.new_ones(len(self.codebook)), torch.zeros_like(self.codebook)
        self.encode, self.decode = self.model.latents, self.model.decode_latents
        if recipe.compile:
            self.encode, self.decode = torch.compile(self.encode), torch.compile(self.decode)

    def moving(self) -> dict[str, Tensor]:
        """The codebook, and what it follows."""
        averages = {"prototype": self.prototype, "seen": self.seen, "count": self.hits, "sum": self.sum}
        return {"codebook": self.codebook, **averages}

    def optimizer(self) -> MuonAdamW:
        """Muon on the convolutions between the first and the last, AdamW on the rest; the codebook follows averages."""
        inner, rest = [], []
        for name, weight in self.model.named_parameters():
            if weight.ndim == 4 and not name.endswith(("conv_in.weight", "decoder.conv_out.weight")):
                inner.append(weight)
            elif not name.startswith("quantize."):
                rest.append(weight)
        matrices = {"params": inner, "lr": self.recipe.matrix_lr, "parts": 1}
        return MuonAdamW([matrices, {"params": rest, "lr": self.recipe.lr}])

    def batches(self, step: int) -> list[dict[str, Any]]:
        """One batch of fresh scenes; where a phase begins, the codes are made ready for it first."""
        r = self.recipe
        self.rng = np.random.default_rng([r.seed, step, 1])
        if step == r.plain_steps:
            self.codebook.copy_(kmeans(self.prototype[self.seen > 0], len(self.codebook), self.rng))
            self.hits.fill_(1.0)
            self.sum.copy_(self.codebook)
        if step == r.settled:
            merge_ground_codes(self.model, r.seed, r.ground_pictures)
        pixels, keys_BN = make_batch(r.seed, step, r.batch)
        pixels = pixels.to(memory_format=torch.channels_last)
        return [{"pixels": pixels, "keys": keys_BN, "step": step, "sources": ["fresh scenes"]}]

    def forward(self, batch: Batch) -> Terms:
        """The terms of the loss; and, of no weight, the share of codes that agree, and of how many were revived."""
        r, pixels, keys_BN = self.recipe, batch["pixels"], batch["keys"]
        terms: Terms = {}
        if batch["step"] >= r.settled:
            z_BND = code_BND = self.model.quantize.embedding(self.model.encode(pixels)).detach()
        else:
            with torch.autocast(r.device, torch.bfloat16, enabled=r.bf16):
                z_BND = self.encode(pixels).float()
            terms, code_BND = self._latent_losses(z_BND, keys_BN, batch["step"])
        with torch.autocast(r.device, torch.bfloat16, enabled=r.bf16):
            error = self.decode(z_BND + (code_BND - z_BND).detach()).float() - pixels
        on_object = (keys_BN != KEYS - 1).view(-1, 1, world.GRID, world.GRID).float()
        weight = 1 + (r.object_weight - 1) * F.interpolate(on_object, scale_factor=world.CELL_PX, mode="nearest")
        return terms | {"pixels": (weight * (error.abs() + error.square())).sum() / (weight.sum() * 3)}

    def _latent_losses(self, z_BND: Tensor, keys_BN: Tensor, step: int) -> tuple[Terms, Tensor]:
        """Consistency and commitment terms, and what the decoder is given for each cell."""
        z_ND, keys_N = z_BND.flatten(0, 1), keys_BN.flatten()
        scale = z_ND.detach().var(0).mean()
        self._see(z_ND.detach(), keys_N)
        spread = (z_ND - self.prototype[keys_N]).square().mean() / scale
        consistency, commitment = self.recipe.weights(step)
        terms = {"consistency": consistency * spread}
        if step < self.recipe.plain_steps:
            return terms, z_BND
        with torch.no_grad():
            codes_N = self.model.quantize.nearest(z_ND)
            home_N = self.model.quantize.nearest(self.prototype)[keys_N]
            code_ND, home_ND = self.codebook[codes_N], self.codebook[home_N]
            revived = self._follow(z_ND.detach(), codes_N)
        terms["commitment"] = commitment * (z_ND - home_ND).square().mean() / scale
        told = {"agreement": (codes_N == home_N).float().mean(), "revived": torch.tensor(float(revived))}
        return terms | told, code_ND.view_as(z_BND)

    def _see(self, z_ND: Tensor, keys_N: Tensor) -> None:
        """Moves each key's prototype towards the mean of its latents in this batch."""
        hits, total = sums_by(keys_N, z_ND, KEYS)
        here = hits > 0
        rate = torch.where(self.seen[here] > 0, 0.2, 1.0)[:, None]
        self.prototype[here] += rate * (total[here] / hits[here, None] - self.prototype[here])
        self.seen += hits

    def _follow(self, z_ND: Tensor, codes_N: Tensor) -> int:
        """Moves codes to the mean of their latents; unused codes restart at random prototypes. Returns how many did."""
        for average, now in zip((self.hits, self.sum), sums_by(codes_N, z_ND, len(self.codebook)), strict=True):
            average.mul_(self.recipe.code_decay).add_(now, alpha=1 - self.recipe.code_decay)
        dead = (self.hits < 0.01).nonzero()[:, 0]
        if len(dead):
            fresh = self.prototype[self.seen > 0]
            self.sum[dead] = fresh[torch.from_numpy(self.rng.integers(len(fresh), size=len(dead)))]
            self.hits[dead] = 1.0
        self.codebook.copy_(self.sum / self.hits[:, None])
        return len(dead)

    def count(self, batch: Batch) -> Tensor:
        """A step is one batch, whose terms are means already."""
        return torch.ones(1, dtype=torch.int64)

    def total(self, terms: Terms, counts: Tensor) -> Tensor:
        """The sum of all terms that have a weight."""
        return torch.stack([terms[name] for name in ("consistency", "commitment", "pixels") if name in terms]).sum()


@torch.no_grad()
def merge_ground_codes(model: VQModel, seed: int, pictures: int) -> None:
    """Gives the codes that stand for little but ground one vector, so that ground is one token: the first of them."""
    pixels, keys_BN = make_batch(seed, -1, pictures)
    device = model.quantize.embedding.weight.device
    parts = [model.encode(p.to(device, memory_format=torch.channels_last)).cpu() for p in pixels.split(64)]
    codes_N, ground_N = torch.cat(parts).flatten(), (keys_BN == KEYS - 1).flatten()
    table = model.quantize.embedding.weight
    used = torch.bincount(codes_N, minlength=len(table))
    on_ground = torch.bincount(codes_N[ground_N], minlength=len(table))
    alike = ((2 * on_ground >= used) & (used > 0)).nonzero()[:, 0]
    table[alike] = table[on_ground.argmax()].clone()


def run_vq(recipe_path: str | Path, overrides: list[str] | None = None) -> Path:
    """Trains, or goes on, to the recipe's last step; returns the folder of the run, with `vq.safetensors`."""
    recipe = load_recipe(VQRecipe, recipe_path, overrides or [])
    torch.set_num_threads(recipe.threads)
    device_for_training(recipe.device)
    objective = VQObjective(recipe)
    with begin(recipe, {}):
        fit(recipe, objective, objective.optimizer(), objective.batches, rate=recipe.rate, clip=1.0, autocast=False)
        weights = {name: value.contiguous() for name, value in objective.model.state_dict().items()}
        write_tensors(Path(recipe.out) / WEIGHTS, weights)
    return Path(recipe.out)
