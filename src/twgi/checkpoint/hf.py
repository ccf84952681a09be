"""The Hugging Face layout, as the published code's fork of transformers saves it: names and settings, both directions.

Tables only: nothing here opens a file. Ours joins what is always used together (q, k and v; gate and up; the norms of
q and k), in the order of the table, along the first dimension.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from twgi.checkpoint.tensors import Shape, Tensors
from twgi.errors import CheckpointError
from twgi.files import short
from twgi.model.config import TransformerConfig, VQConfig

TENSORS: Mapping[str, tuple[str, ...]] = {
    "embed.weight": ("model.embed_tokens.weight",),
    "norm.weight": ("model.norm.weight",),
    "head.weight": ("lm_head.weight",),
}
LAYER_TENSORS: Mapping[str, tuple[str, ...]] = {
    "attention_norm.weight": ("input_layernorm.weight",),
    "attention.wqkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attention.qk_norm.weight": ("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
    "attention.qk_norm.bias": ("self_attn.q_norm.bias", "self_attn.k_norm.bias"),
    "attention.wo.weight": ("self_attn.o_proj.weight",),
    "mlp_norm.weight": ("post_attention_layernorm.weight",),
    "mlp.w_gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "mlp.w_down.weight": ("mlp.down_proj.weight",),
}
VQ_PREFIX = "model.vqmodel."
HARMLESS: Mapping[str, str] = {  # pattern of a name -> why the tensor is not needed
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq": "rotary frequencies, which rope_theta says again",
    r"model\.vqmodel\.loss\..*": "the critics that the image tokenizer was trained with",
}
_HEAD_NORM = re.compile(r"[qk]_norm\.(weight|bias)$")

CONFIG_KEYS: Mapping[str, tuple[str, Any]] = {  # ours -> (theirs, what it means when left out)
    "vocab_size": ("vocab_size", 65536),
    "hidden_size": ("hidden_size", 4096),
    "intermediate_size": ("intermediate_size", 11008),
    "num_layers": ("num_hidden_layers", 32),
    "num_heads": ("num_attention_heads", 32),
    "num_kv_heads": ("num_key_value_heads", 32),
    "max_positions": ("max_position_embeddings", 4096),
    "rope_theta": ("rope_theta", 10000.0),
    "rms_norm_eps": ("rms_norm_eps", 1e-5),
    "swin_norm": ("swin_norm", False),
}
_VQGAN_NAMES = {
    "out_channels": "out_ch", "base_channels": "ch", "channel_multiplier": "ch_mult", "latent_channels": "z_channels",
    "double_latent": "double_z", "num_embeddings": "n_embed",
}  # fmt: skip
VQ_CONFIG_KEYS: Mapping[str, tuple[str, ...]] = {  # ours -> theirs: ours again, then what the original VQGAN calls it
    ours.name: (ours.name, *filter(None, [_VQGAN_NAMES.get(ours.name)])) for ours in fields(VQConfig)
}
ONLY: Mapping[str, tuple[Any, ...]] = {  # settings of Hugging Face's that change the maths: the values we compute
    "model_type": ("chameleon",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "tie_word_embeddings": (False,),
    "rope_scaling": (None,),
    "quantization_config": (None,),
}
FORBIDDEN = ("auto_map", "trust_remote_code", "_attn_implementation_internal")  # they name code to run
MAX_SIZES = {
    "vocab_size": 2**20, "hidden_size": 2**16, "intermediate_size": 2**18, "num_layers": 1024,
    "num_heads": 1024, "num_kv_heads": 1024, "max_positions": 2**20,
}  # fmt: skip
MAX_VQ_SIZES = {
    "resolution": 2**12, "in_channels": 16, "out_channels": 16, "base_channels": 2**12, "latent_channels": 2**14,
    "num_embeddings": 2**20, "embed_dim": 2**14, "num_res_blocks": 64,
}  # fmt: skip
FLAGS = ("swin_norm", "double_latent")
FRACTIONS = ("rope_theta", "rms_norm_eps")


def names(config: TransformerConfig) -> dict[str, tuple[str, ...]]:
    """Our name of every tensor of the decoder -> its parts' names in the file."""
    table = dict(TENSORS)
    for layer in range(config.num_layers):
        for ours, theirs in LAYER_TENSORS.items():
            table[f"blocks.{layer}.{ours}"] = tuple(f"model.layers.{layer}.{name}" for name in theirs)
    return table


def part_sizes(config: TransformerConfig, ours: str, rows: int) -> tuple[int, ...]:
    """How many of a tensor's first dimension (`rows` long) each of its parts takes."""
    heads = (config.num_heads, config.num_kv_heads)
    if ours.endswith("wqkv.weight"):
        return tuple(count * config.head_dim for count in (*heads, config.num_kv_heads))
    if "qk_norm" in ours:
        return heads
    if ours.endswith("w_gate_up.weight"):
        return (config.intermediate_size, config.intermediate_size)
    return (rows,)


def shapes(config: TransformerConfig) -> dict[str, Shape]:
    """Name in the file -> shape, of every tensor of the decoder."""
    size, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_heads, config.num_kv_heads
    layer: dict[str, Shape] = {
        "input_layernorm.weight": (size,), "post_attention_layernorm.weight": (size,),
        "self_attn.q_proj.weight": (queries * head, size), "self_attn.k_proj.weight": (keys * head, size),
        "self_attn.v_proj.weight": (keys * head, size), "self_attn.o_proj.weight": (size, size),
        "self_attn.q_norm.weight": (queries, head), "self_attn.q_norm.bias": (queries, head),
        "self_attn.k_norm.weight": (keys, head), "self_attn.k_norm.bias": (keys, head),
        "mlp.gate_proj.weight": (inner, size), "mlp.up_proj.weight": (inner, size),
        "mlp.down_proj.weight": (size, inner),
    }  # fmt: skip
    out: dict[str, Shape] = {
        "model.embed_tokens.weight": (config.vocab_size, size), "model.norm.weight": (size,),
        "lm_head.weight": (config.vocab_size, size),
    }  # fmt: skip
    for number in range(config.num_layers):
        out |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return out


class HfTensors:
    """A Hugging Face folder's tensors, with one norm vector for each head (some files have one for several heads).

    What the table `HARMLESS` names is left out.
    """

    def __init__(self, config: TransformerConfig, tensors: Tensors) -> None:
        self._tensors, self.files = tensors, tensors.files
        self._heads = {name: shape for name, shape in shapes(config).items() if _HEAD_NORM.search(name)}
        self.stored = {
            name: replace(entry, shape=self._whole(name, entry.shape))
            for name, entry in tensors.stored.items()
            if not is_harmless(name)
        }

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: self._for_each_head(name, tensor) for name, tensor in self._tensors.read(names).items()}

    def _whole(self, name: str, shape: Shape) -> Shape:
        heads = self._heads.get(name)
        fits = heads is not None and shape[-1:] == heads[1:] and heads[0] % math.prod(shape[:-1]) == 0
        return heads if heads is not None and fits else shape

    def _for_each_head(self, name: str, tensor: Tensor) -> Tensor:
        heads = self._heads.get(name)
        if heads is None or tensor.shape == heads:
            return tensor
        groups = tensor.view(-1, heads[1])
        return groups.repeat_interleave(heads[0] // len(groups), dim=0)


def is_harmless(name: str) -> bool:
    """Whether a tensor may stand in a file although nothing needs it."""
    return any(re.fullmatch(pattern, name) for pattern in HARMLESS)


def split(config: TransformerConfig, ours: str, tensor: Tensor) -> dict[str, Tensor]:
    """One of our tensors -> its parts, by their names in the file."""
    sizes = part_sizes(config, ours, len(tensor))
    return dict(zip(names(config)[ours], torch.split(tensor, list(sizes)), strict=True))


def read_config(raw: Mapping[str, Any]) -> tuple[TransformerConfig, VQConfig]:
    """config.json -> both networks' sizes. Raises `CheckpointError` for what we would compute differently."""
    vq_raw, rope = raw.get("vq_config") or {}, raw.get("rope_parameters") or {}
    for key, group in (("vq_config", vq_raw), ("rope_parameters", rope)):
        if not isinstance(group, Mapping):
            raise CheckpointError(f"config.json: {key} must be a group of settings, got {short(group)}")
    found = [key for key in FORBIDDEN if key in raw or key in vq_raw]
    if found:
        raise CheckpointError(f"config.json: {found[0]} asks to run code from the checkpoint; remove it to load")
    for key, allowed in ONLY.items():
        if raw.get(key, allowed[0]) not in allowed:
            raise CheckpointError(f"config.json: {key} = {short(raw[key])} is not supported, only {allowed[0]!r} is")
    if rope.get("rope_type", "default") != "default":
        raise CheckpointError(f"config.json: rope_type {short(rope['rope_type'])} is not supported, only 'default' is")
    settings = {**raw, **rope}  # transformers 5 writes rope_theta inside the group
    values = {ours: settings.get(theirs, default) for ours, (theirs, default) in CONFIG_KEYS.items()}
    values["num_kv_heads"] = values["num_kv_heads"] or values["num_heads"]
    check_values(values, MAX_SIZES)
    return TransformerConfig(**values), read_vq_config(vq_raw)


def write_config(config: TransformerConfig, vq: VQConfig) -> dict[str, Any]:
    """The inverse of `read_config`, with both names of every setting of the image tokenizer."""
    raw = {theirs: getattr(config, ours) for ours, (theirs, _) in CONFIG_KEYS.items()}
    raw |= {key: allowed[0] for key, allowed in ONLY.items() if key != "quantization_config"}
    raw["vq_config"] = {"model_type": "chameleon_vqgan"}
    for ours, theirs in VQ_CONFIG_KEYS.items():
        value = getattr(vq, ours)
        raw["vq_config"] |= dict.fromkeys(theirs, list(value) if isinstance(value, tuple) else value)
    return {"architectures": ["ChameleonForConditionalGeneration"], **raw}


def read_vq_config(raw: Mapping[str, Any]) -> VQConfig:
    """The image tokenizer's sizes, under the names of Hugging Face or of the original VQGAN."""
    values: dict[str, Any] = {}
    for ours, theirs in VQ_CONFIG_KEYS.items():
        given = {name: raw[name] for name in theirs if name in raw}
        if not given:
            continue
        value, *others = given.values()
        if any(other != value for other in others):
            raise CheckpointError(f"config.json: vq_config contradicts itself: {short(given)}")
        values[ours] = value
    for name in ("channel_multiplier", "attn_resolutions"):
        if name in values:
            values[name] = _whole_numbers(name, values[name])
    if values.get("attn_type", "") is None:
        values["attn_type"] = "none"
    check_values(values, MAX_VQ_SIZES)
    return VQConfig(**values)


def _whole_numbers(name: str, value: Any) -> tuple[int, ...]:
    numbers = [] if value is None else value
    if not isinstance(numbers, list) or len(numbers) > 32 or any(type(n) is not int or n > 2**12 for n in numbers):
        raise CheckpointError(f"config.json: {name} must be a short list of whole numbers, got {short(value)}")
    return tuple(numbers)


def check_values(values: Mapping[str, Any], largest: Mapping[str, int], *, told_by: str = "config.json") -> None:
    """Every number is one, and not so large that building the network would hurt."""
    for name, value in values.items():
        if name in largest:
            if type(value) is not int or not 0 < value <= largest[name]:
                wanted = f"a whole number in 1..{largest[name]}"
                raise CheckpointError(f"{told_by}: {name} must be {wanted}, got {short(value)}")
        elif name in FLAGS and type(value) is not bool:
            raise CheckpointError(f"{told_by}: {name} must be true or false, got {short(value)}")
        elif name in FRACTIONS and (type(value) not in (int, float) or not 0 < value < 1e30):
            raise CheckpointError(f"{told_by}: {name} must be a number above 0, got {short(value)}")
