"""A tiny image tokenizer, few words, and codes that need no encoder."""

from collections.abc import Sequence

import numpy as np
import pytest

from twgi.icons.world import Scene
from twgi.model.config import VQConfig
from twgi.training.icons import lm
from twgi.training.icons.lm import SceneCodes

VQ = VQConfig(
    resolution=64, base_channels=32, channel_multiplier=(1, 1, 1, 1), num_res_blocks=1, attn_type="none",
    latent_channels=8, embed_dim=4, num_embeddings=32,
)  # fmt: skip
VQ_YAML = """
model: {resolution: 64, base_channels: 32, channel_multiplier: [1, 1, 1, 1], num_res_blocks: 1, attn_type: none,
  latent_channels: 8, embed_dim: 4, num_embeddings: 32}
batch: 2
plain_steps: 1
decoder_steps: 1
ground_pictures: 4
steps: 4
log_every: 1
save_every: 2
"""


class PlainCodes(SceneCodes):
    """Codes that need no encoder: code 0 is the ground, and a thing is one code everywhere."""

    def encode(self, scenes: Sequence[Scene]) -> np.ndarray:
        codes = np.zeros((len(scenes), 8, 8), np.int64)
        for i, scene in enumerate(scenes):
            for thing in scene.objects:
                codes[i, thing.row : thing.row + 3, thing.col : thing.col + 3] = 1 + len(thing.name)
        return codes.reshape(len(scenes), -1)


def few_sentences(patch: pytest.MonkeyPatch) -> None:
    """Learn the text tokenizer from fewer of them."""
    all_of_them = lm.sentences
    patch.setattr(lm, "sentences", lambda count, seed: all_of_them(200, seed))
