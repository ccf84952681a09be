"""Our image encoder against Hugging Face's ChameleonVQVAE (which has no decoder): ids equal, latents to 1e-5."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.parity.oracle import TINY, TINY_VQ, chameleon, our_vq
from torch import Tensor

from twgi.model.config import TransformerConfig, VQConfig

pytest.importorskip("transformers", reason="the oracle of the parity tests is not installed")

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "attention_at_8": {"attn_resolutions": (8,)},
    "two_blocks_three_levels": {
        "num_res_blocks": 2,
        "channel_multiplier": (1, 1, 2),
        "embed_dim": 4,
        "latent_channels": 4,
    },
}


def random_pixels(seed: int) -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def their_latents(theirs: Any, pixels_BCHW: Tensor) -> Tensor:
    vq = theirs.model.vqmodel
    latents: Tensor = vq.quant_conv(vq.encode(pixels_BCHW).last_hidden_state).flatten(2).transpose(1, 2)
    return latents


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_codes_and_latents(options: dict[str, Any]) -> None:
    config = VQConfig(**TINY_VQ | options)
    theirs = chameleon(TransformerConfig(**TINY), config)
    codebook = their_latents(theirs, random_pixels(seed=3)).flatten(0, 1)[: config.num_embeddings]
    theirs.model.vqmodel.quantize.embedding.weight.data.copy_(codebook)  # so that many codes are met
    vq, pixels_BCHW = our_vq(config, theirs), random_pixels(seed=4)
    torch.testing.assert_close(vq.latents(pixels_BCHW), their_latents(theirs, pixels_BCHW), atol=1e-5, rtol=1e-5)
    codes_BN = vq.encode(pixels_BCHW)
    with torch.no_grad():
        assert codes_BN.flatten().equal(theirs.model.vqmodel.encode(pixels_BCHW).image_tokens)
    assert len(codes_BN.unique()) > config.num_embeddings / 2
