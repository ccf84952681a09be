"""LoRA adapters through peft: small matrices beside the decoder's, and the rows of image tokens trained in full.

An adapter folder is peft's, over our names of the decoder's modules. Low-rank changes alone leave the embeddings of
image tokens where they are, which is where adapters for models of this kind most often fail; so those rows train too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twgi.checkpoint.quantize import hush_torchao
from twgi.errors import CheckpointError, ConfigError
from twgi.model.transformer import Transformer
from twgi.vocab import Vocab

MATRICES = ("wqkv", "wo", "w_gate_up", "w_down")
OTHER_KINDS = ("lora_bias", "fan_in_fan_out", "modules_to_save", "target_parameters")  # `merged` does not add them up


@dataclass(frozen=True, kw_only=True)
class Lora:
    """An adapter's size and place: `alpha` / `rank` scales it; `image_rows` are those of embedding and head."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = MATRICES
    image_rows: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ConfigError(f"lora needs rank >= 1, alpha > 0 and dropout in [0, 1), got {self}")
        unknown = [name for name in self.targets if name not in MATRICES]
        if unknown or not self.targets:
            raise ConfigError(f"lora.targets must be some of {', '.join(MATRICES)}, got {', '.join(self.targets)}")

    def describe(self, vocab: Vocab) -> str:
        rows = f"{len(_rows(vocab))} rows of image tokens in embedding and head train in full"
        frozen = "embedding and head are FROZEN: new kinds of pictures are hard to learn so (lora.image_rows)"
        return f"LoRA of rank {self.rank} on {', '.join(self.targets)}; {rows if self.image_rows else frozen}"


def _rows(vocab: Vocab) -> list[int]:
    """Image tokens, and the marks around them."""
    return sorted([*vocab.image_tokens, vocab.boi, vocab.eoi])


def attach(decoder: Transformer, lora: Lora, vocab: Vocab) -> Any:
    """Put an untrained adapter into the decoder (in place; it computes the same as before); returns peft's handle."""
    peft = need_peft()
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets),
        trainable_token_indices={"embed": _rows(vocab), "head": _rows(vocab)} if lora.image_rows else None,
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):  # remarks on models that are not Hugging Face's
        return peft.get_peft_model(decoder, config)


def load_adapter(decoder: Transformer, folder: Path, *, trainable: bool = False) -> Any:
    """Put a trained adapter into the decoder, in place; returns peft's handle. `CheckpointError` where none fits."""
    peft = need_peft()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no {name}, so it is not an adapter")
    try:
        with warnings.catch_warnings(action="ignore"):
            handle = peft.PeftModel.from_pretrained(decoder, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder}: the adapter does not fit this model ({error})") from error
    config = handle.active_peft_config
    others = [getattr(config, name, None) for name in OTHER_KINDS]
    others += [getattr(module, "lora_variant", None) for module in handle.modules()]
    if config.peft_type != "LORA" or config.bias != "none" or any(others):
        raise CheckpointError(f"{folder}: adapter_config.json asks for a kind of adapter that is not plain LoRA")
    return handle


def merged(decoder: Transformer, name: str, whole: Callable[[Tensor], Tensor]) -> Tensor:
    """One of the decoder's own tensors, named as without an adapter, with the adapter's changes in it.

    `whole` gives the whole of a parameter that may be spread over processes; all of them must call this for the same
    names in the same order.
    """
    path, _, field = name.rpartition(".")
    layer: Any = decoder.get_submodule(path)
    tokens = getattr(layer, "token_adapter", None)
    if tokens is not None:
        weight = whole(tokens.base_layer.weight)
        for adapter in tokens.active_adapters:
            rows = whole(tokens.trainable_tokens_delta[adapter])
            index = torch.tensor(tokens.token_indices[adapter], device=weight.device)
            weight = weight.to(rows.dtype).index_copy(0, index, rows)
        return weight
    if not hasattr(layer, "lora_A"):
        return whole(getattr(layer, field))
    weight = whole(layer.base_layer.weight)
    for adapter in layer.active_adapters:
        product = whole(layer.lora_B[adapter].weight) @ whole(layer.lora_A[adapter].weight)
        weight = weight + product * layer.scaling[adapter]
    return weight


def head_weight(decoder: Transformer) -> Tensor:
    """The head's matrix, with the rows that an adapter has for it; once, where it is used piece by piece."""
    adapter: Any = getattr(decoder.head, "token_adapter", None)
    return decoder.head.weight if adapter is None else adapter.get_merged_weights(adapter.active_adapters)


def need_peft() -> Any:
    """The package, or what to install."""
    hush_torchao()
    try:
        import peft
    except ImportError as error:
        raise ConfigError("method lora needs the package peft: pip install 'twgi[train]'") from error
    return peft
