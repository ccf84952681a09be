"""LoRA adapters through peft: small matrices beside the decoder's, and the rows of image tokens trained in full.

An adapter folder is peft's, over our names of the decoder's modules. Low-rank changes alone leave the embeddings of
image tokens where they are, which is where adapters for models of this kind most often fail; so those rows train too.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twgi.checkpoint.layout import naming
from twgi.checkpoint.load import Loaded
from twgi.checkpoint.quantize import hush_torchao
from twgi.checkpoint.save import write_tensors
from twgi.checkpoint.tensors import SafetensorsFiles, check_tensors, read_json
from twgi.config import build
from twgi.errors import CheckpointError, ConfigError
from twgi.files import short, write_json
from twgi.model.transformer import Transformer
from twgi.vocab import Vocab

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
MATRICES = ("wqkv", "wo", "w_gate_up", "w_down")
OURS = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "targets": "target_modules"}  # and peft's names
ROWS, BASE = "trainable_token_indices", "revision"  # BASE: the hash of the model that the adapter belongs to
IDLE = frozenset({*OURS.values(), ROWS, BASE, "base_model_name_or_path", "auto_mapping", "inference_mode", "task_type",
                  "peft_version", "runtime_config", "init_lora_weights"})  # fmt: skip
"""Keys of peft's that are looked at by name, or change nothing; any other must be as peft has it for plain LoRA."""
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "default")


@dataclass(frozen=True, kw_only=True)
class Lora:
    """An adapter's size and place: `alpha` / `rank` scales it; `image_rows` are those of embedding and head."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = MATRICES
    image_rows: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < math.inf or not 0 <= self.dropout < 1:
            raise ConfigError(f"lora needs rank >= 1, alpha > 0 and dropout in [0, 1), got {self}")
        unknown = [name for name in self.targets if name not in MATRICES]
        if unknown or not self.targets:
            raise ConfigError(f"lora.targets must be some of {', '.join(MATRICES)}, got {', '.join(self.targets)}")
        object.__setattr__(self, "targets", tuple(name for name in MATRICES if name in self.targets))

    def describe(self, vocab: Vocab) -> str:
        rows = f"{len(_rows(vocab))} rows of image tokens in embedding and head train in full"
        frozen = "embedding and head are FROZEN: new kinds of pictures are hard to learn so (lora.image_rows)"
        return f"LoRA of rank {self.rank} on {', '.join(self.targets)}; {rows if self.image_rows else frozen}"


def _rows(vocab: Vocab) -> list[int]:
    """Image tokens, and the marks around them."""
    return sorted([*vocab.image_tokens, vocab.boi, vocab.eoi])


def _trained_rows(lora: Lora, vocab: Vocab) -> dict[str, list[int]] | None:
    return {"embed": _rows(vocab), "head": _rows(vocab)} if lora.image_rows else None


def attach(decoder: Transformer, lora: Lora, vocab: Vocab) -> Any:
    """Put an untrained adapter into the decoder (in place; it computes the same as before); returns peft's handle."""
    peft = need_peft()
    if lora.rank > decoder.config.hidden_size:
        raise ConfigError(f"lora.rank must be at most the model's {decoder.config.hidden_size}, got {lora.rank}")
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets),
        trainable_token_indices=_trained_rows(lora, vocab),
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):  # remarks on models that are not Hugging Face's
        return peft.get_peft_model(decoder, config)


def read_lora(folder: Path) -> Lora:
    """The settings of a stored adapter. Raises `CheckpointError` where there is none, or one of another kind."""
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no {name}, so it is not an adapter")
    said, plain = read_json(folder / CONFIG), need_peft().LoraConfig().to_dict()
    other = [key for key, value in said.items() if key not in IDLE and value and value != plain.get(key)]
    if said.get("init_lora_weights", True) not in (True, False, "gaussian"):  # the rest begin by changing the model
        other.append("init_lora_weights")
    if other or said.get("peft_type") != "LORA":
        asks = f" (it has {other[0]:.40})" if other else ""
        raise CheckpointError(f"{folder / CONFIG} asks for a kind of adapter that is not plain LoRA{asks}")
    values = {ours: said.get(theirs) for ours, theirs in OURS.items()} | {"image_rows": said.get(ROWS) is not None}
    with naming(folder):
        return build(Lora, values, where=str(folder / CONFIG))


def base_of(folder: Path) -> str | None:
    """The hash of the model that an adapter was trained on; None where it does not say."""
    told = read_json(folder / CONFIG).get(BASE)
    return told if isinstance(told, str) and re.fullmatch("[0-9a-f]{64}", told) else None


def load_adapter(loaded: Loaded, folder: Path) -> Any:
    """Put a trained adapter into a checkpoint's decoder, in place; returns peft's handle.

    Raises `CheckpointError` where it was trained on another model, or one of its tensors is missing, unexpected, of
    another shape, or not finite.
    """
    lora, decoder, vocab, base = read_lora(folder), loaded.model, loaded.tokenizer.vocab, base_of(folder)
    if base not in (None, loaded.sha256):
        name = read_json(folder / CONFIG).get("base_model_name_or_path")
        hashes = f"the hash of its model {short(name)} was {base:.12}, that of {loaded.name} is {loaded.sha256:.12}"
        raise CheckpointError(f"{folder}: this adapter was trained on another model: {hashes}")
    if read_json(folder / CONFIG).get(ROWS) != _trained_rows(lora, vocab):
        raise CheckpointError(f"{folder}: its rows of image tokens ({ROWS}) are not those of {loaded.name}")
    tensors = _read_tensors(folder / TENSORS)
    with naming(folder):
        handle = attach(decoder, lora, vocab)
    peft, found = need_peft(), {name: tuple(value.shape) for name, value in tensors.items()}
    expected = peft.get_peft_model_state_dict(handle, save_embedding_layers=False)
    shapes = {name: tuple(value.shape) for name, value in expected.items()}
    check_tensors(folder / TENSORS, shapes, found, told_by=f"{loaded.name} with {CONFIG}")
    peft.set_peft_model_state_dict(handle, tensors)
    return handle


def _read_tensors(file: Path) -> dict[str, Tensor]:
    """All of an adapter's tensors, by peft's names, without those of what was wrapped around its modules."""
    stored = SafetensorsFiles([file])
    tensors = {}
    for name, value in stored.read(stored.stored).items():
        plain = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if plain in tensors:
            raise CheckpointError(f"{file}: {plain} stands there twice")
        if not value.isfinite().all():
            raise CheckpointError(f"{file}: {name} holds values that are no numbers")
        tensors[plain] = value
    return tensors


def save_adapter(folder: Path, handle: Any, weights: Mapping[str, Tensor], *, model: str, sha256: str) -> None:
    """Write an adapter as peft does, the same bytes each time; `model` is what it was trained on, of that hash."""
    said = handle.active_peft_config.to_dict()
    said |= {"base_model_name_or_path": model, BASE: sha256, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in said.items()}
    tensors = need_peft().get_peft_model_state_dict(handle, state_dict=dict(weights), save_embedding_layers=False)
    write_tensors(folder / TENSORS, tensors)
    write_json(folder / CONFIG, plain)


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
