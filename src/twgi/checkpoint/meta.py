"""Meta's own layout of Chameleon, and Anole's: names, settings and shards, both directions.

::

    models/7b/consolidated.pth      or consolidated.00.pth, consolidated.01.pth, ...: one per model-parallel shard
    models/7b/params.json
    tokenizer/text_tokenizer.json, vqgan.ckpt, vqgan.yaml

Rotary pairs are neighbours there and halves in the Hugging Face layout, so the rows of the query and key projections
differ in order inside each head, and so do the vectors of the query and key norms. A shard has one such vector for all
its heads. Where training has made them differ inside a shard, we write (and read) one for each head, as a matrix, which
Meta's own programs do not know. Names on the left of a table are Hugging Face's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from twgi.checkpoint import hf
from twgi.checkpoint.tensors import Shape, Stored, TorchFile, check_tensors, read_json
from twgi.config import read_yaml
from twgi.errors import CheckpointError
from twgi.files import short
from twgi.model.config import TransformerConfig, VQConfig

JOIN_ROWS, JOIN_COLUMNS, EQUAL, ROTARY_ROWS, HEAD_VECTOR = "rows", "columns", "equal", "rotary rows", "head vector"

TENSORS: Mapping[str, tuple[str, str]] = {  # theirs -> (Meta's, how shards make one)
    "model.embed_tokens.weight": ("tok_embeddings.weight", JOIN_COLUMNS),
    "model.norm.weight": ("norm.weight", EQUAL),
    "lm_head.weight": ("output.weight", JOIN_ROWS),
}
LAYER_TENSORS: Mapping[str, tuple[str, str]] = {
    "input_layernorm.weight": ("attention_norm.weight", EQUAL),
    "self_attn.q_proj.weight": ("attention.wq.weight", ROTARY_ROWS),
    "self_attn.k_proj.weight": ("attention.wk.weight", ROTARY_ROWS),
    "self_attn.v_proj.weight": ("attention.wv.weight", JOIN_ROWS),
    "self_attn.o_proj.weight": ("attention.wo.weight", JOIN_COLUMNS),
    "self_attn.q_norm.weight": ("attention.q_normalization.weight", HEAD_VECTOR),
    "self_attn.q_norm.bias": ("attention.q_normalization.bias", HEAD_VECTOR),
    "self_attn.k_norm.weight": ("attention.k_normalization.weight", HEAD_VECTOR),
    "self_attn.k_norm.bias": ("attention.k_normalization.bias", HEAD_VECTOR),
    "post_attention_layernorm.weight": ("ffn_norm.weight", EQUAL),
    "mlp.gate_proj.weight": ("feed_forward.w1.weight", JOIN_ROWS),
    "mlp.down_proj.weight": ("feed_forward.w2.weight", JOIN_COLUMNS),
    "mlp.up_proj.weight": ("feed_forward.w3.weight", JOIN_ROWS),
}
HARMLESS = {"rope.freqs": "rotary frequencies, which rope_theta in params.json says again"}
LONG_CONTEXT = 16384  # positions where rope_theta is above its default; 4096 else (the published converter's rule)


def names(config: TransformerConfig) -> dict[str, tuple[str, str]]:
    """Hugging Face's name of every tensor of the decoder -> (Meta's name, how shards make one)."""
    table = dict(TENSORS)
    for layer in range(config.num_layers):
        for theirs, (meta, how) in LAYER_TENSORS.items():
            table[f"model.layers.{layer}.{theirs}"] = (f"layers.{layer}.{meta}", how)
    return table


def read_params(folder: Path, shards: Sequence[TorchFile]) -> TransformerConfig:
    """Sizes from `params.json`; the width of the vocabulary, where it does not say, from the shards."""
    file = folder / "params.json"
    outer = read_json(file) | read_json(folder / "consolidate_params.json", optional=True)
    params = outer.get("model", outer)
    if not isinstance(params, dict) or not {"dim", "n_layers", "n_heads"} <= params.keys():
        raise CheckpointError(f"{file}: needs dim, n_layers and n_heads under 'model'")
    if params.get("qk_normalization", True) is not True:
        raise CheckpointError(f"{file}: a model without qk_normalization is not a Chameleon")
    theta, vocabulary = params.get("rope_theta", 10000.0), params.get("vocab_size", -1)
    if vocabulary == -1:
        embedding = shards[0].stored.get("tok_embeddings.weight")
        vocabulary = embedding.shape[0] if embedding is not None and embedding.shape else 0
    values = {
        "vocab_size": vocabulary, "hidden_size": params["dim"],
        "num_layers": params["n_layers"], "num_heads": params["n_heads"],
        "num_kv_heads": params.get("n_kv_heads") or params["n_heads"], "rope_theta": theta,
        "rms_norm_eps": params.get("norm_eps", 1e-5), "swin_norm": params.get("swin_norm", False),
    }  # fmt: skip
    hf.check_values(values, hf.MAX_SIZES, told_by=str(file))
    inner = _intermediate_size(params, file)
    return TransformerConfig(**values, intermediate_size=inner, max_positions=LONG_CONTEXT if theta > 1e4 else 4096)


def _intermediate_size(params: Mapping[str, Any], file: Path) -> int:
    """Two thirds of four times the width, times a factor, rounded up to a multiple."""
    factor, multiple = params.get("ffn_dim_multiplier") or 1, params.get("multiple_of", 256)
    numbers = type(multiple) is int and type(factor) in (int, float)
    if not numbers or not 0 < multiple <= 2**18 or not 0 < factor < 100:
        said = f"multiple_of {short(multiple)} or ffn_dim_multiplier {short(factor)}"
        raise CheckpointError(f"{file}: {said} is no size")
    return -(-int(factor * int(8 * params["dim"] / 3)) // multiple) * multiple


def write_params(config: TransformerConfig, shards: int) -> dict[str, Any]:
    """The inverse of `read_params`; ffn_dim_multiplier and multiple_of are the usual ones, else ones that fit."""
    factor, multiple = 1.0, 256
    if _intermediate_size({"dim": config.hidden_size}, Path()) != config.intermediate_size:
        factor, multiple = (config.intermediate_size + 0.5) / int(8 * config.hidden_size / 3), 1
    model = {
        "dim": config.hidden_size, "n_layers": config.num_layers, "n_heads": config.num_heads,
        "n_kv_heads": config.num_kv_heads, "vocab_size": config.vocab_size, "multiple_of": multiple,
        "ffn_dim_multiplier": factor, "norm_eps": config.rms_norm_eps, "rope_theta": config.rope_theta,
        "qk_normalization": True, "swin_norm": config.swin_norm,
    }  # fmt: skip
    return {"model": model, "model_parallel_size": shards}


def read_vqgan(file: Path) -> VQConfig:
    """The image tokenizer's sizes from `vqgan.yaml`."""
    content = read_yaml(file)
    try:
        params = content["model"]["params"]
        return hf.read_vq_config({"embed_dim": params["embed_dim"], "n_embed": params["n_embed"], **params["ddconfig"]})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: needs embed_dim, n_embed and ddconfig under model.params") from error


def write_vqgan(config: VQConfig) -> str:
    """The inverse of `read_vqgan`, as YAML."""
    sizes = {theirs[-1]: getattr(config, ours) for ours, theirs in hf.VQ_CONFIG_KEYS.items()}
    sizes = {name: list(value) if isinstance(value, tuple) else value for name, value in sizes.items()}
    outer = {name: sizes.pop(name) for name in ("embed_dim", "n_embed")}
    return yaml.safe_dump({"model": {"params": {**outer, "ddconfig": sizes}}}, sort_keys=False)


class MetaTensors:
    """Meta's shards, seen under Hugging Face's names and in its order.

    Raises `CheckpointError` where a shard lacks a tensor, has one that nobody knows, or one of another shape.
    """

    def __init__(self, config: TransformerConfig, shards: Sequence[TorchFile]) -> None:
        self._config, self._shards, self._table, self._shapes = config, shards, names(config), hf.shapes(config)
        self.files = tuple(file for shard in shards for file in shard.files)
        for shard in shards:
            self._check(shard)
        first = {name: shards[0].stored[meta] for name, (meta, _) in self._table.items()}
        self.stored = {name: Stored(self._shapes[name], part.dtype, part.file) for name, part in first.items()}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        wanted = list(names)
        parts = [shard.read([self._table[name][0] for name in wanted]) for shard in self._shards]
        return {name: self._joined(name, [part[self._table[name][0]] for part in parts]) for name in wanted}

    def _check(self, shard: TorchFile) -> None:
        (file,) = shard.files
        found = {name: entry.shape for name, entry in shard.stored.items() if name not in HARMLESS}
        expected = {meta: self._part_shape(name, found.get(meta, ())) for name, (meta, _) in self._table.items()}
        check_tensors(file, expected, found, told_by="params.json")

    def _part_shape(self, name: str, found: Shape) -> Shape:
        shape, how, count = self._shapes[name], self._table[name][1], len(self._shards)
        if how == HEAD_VECTOR:
            return (shape[0] // count, shape[1]) if len(found) == 2 else (shape[1],)
        if how == JOIN_COLUMNS:
            return (shape[0], shape[1] // count)
        return shape if how == EQUAL else (shape[0] // count, *shape[1:])

    def _joined(self, name: str, parts: list[Tensor]) -> Tensor:
        how, config = self._table[name][1], self._config
        if how == EQUAL:
            equal = all(torch.equal(part, parts[0]) for part in parts[1:])
            return parts[0] if equal else torch.stack(parts).mean(dim=0)  # as the published converter does
        if how == HEAD_VECTOR:
            heads, size = self._shapes[name][0] // len(parts), self._shapes[name][1]
            rows = [to_halves(part.reshape(-1), part.numel() // size).view(-1, size) for part in parts]
            return torch.cat([row.expand(heads, -1) for row in rows])
        joined = torch.cat(parts, dim=1 if how == JOIN_COLUMNS else 0) if len(parts) > 1 else parts[0]
        return to_halves(joined, len(joined) // config.head_dim) if how == ROTARY_ROWS else joined


def split(config: TransformerConfig, tensors: Mapping[str, Tensor], shards: int) -> list[dict[str, Tensor]]:
    """Hugging Face's tensors -> those of each of Meta's shards; the inverse of `MetaTensors`, bit for bit."""
    out: list[dict[str, Tensor]] = [{} for _ in range(shards)]
    for name, (meta, how) in names(config).items():
        for shard, part in zip(out, _parts(config, how, tensors[name], shards), strict=True):
            shard[meta] = part.contiguous()
    return out


def _parts(config: TransformerConfig, how: str, tensor: Tensor, shards: int) -> Sequence[Tensor]:
    if how == EQUAL:
        return [tensor] * shards
    if how == HEAD_VECTOR:
        parts = [(part, to_neighbours(part.reshape(-1), len(part)).view(part.shape)) for part in tensor.chunk(shards)]
        return [turned[0] if _all_the_same(part) else turned for part, turned in parts]
    if how == ROTARY_ROWS:
        tensor = to_neighbours(tensor, len(tensor) // config.head_dim)
    return tensor.chunk(shards, dim=1 if how == JOIN_COLUMNS else 0)


def shards_needed(config: TransformerConfig, tensors: Mapping[str, Tensor]) -> int:
    """The fewest shards in which all heads of a shard have one norm; 1 where no number of shards does it."""
    counts = (count for count in range(1, config.num_kv_heads + 1) if divides(config, count))
    return next((count for count in counts if one_norm_in_each(config, tensors, count)), 1)


def one_norm_in_each(config: TransformerConfig, tensors: Mapping[str, Tensor], shards: int) -> bool:
    """Whether the heads of each of so many shards have the same norms, as Meta's own programs need it."""
    vectors = [tensors[name] for name, (_, how) in names(config).items() if how == HEAD_VECTOR]
    return all(_all_the_same(part) for vector in vectors for part in vector.chunk(shards))


def divides(config: TransformerConfig, shards: int) -> bool:
    """Whether a model can be cut into so many shards."""
    sizes = (config.num_kv_heads, config.hidden_size, config.intermediate_size, config.vocab_size, config.num_heads)
    return all(size % shards == 0 for size in sizes)


def _all_the_same(rows: Tensor) -> bool:
    return bool((rows == rows[:1]).all())


def to_halves(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head from neighbouring rotary pairs to halves; a vector is one head."""
    shape = tensor.shape
    return tensor.view(heads, shape[0] // heads // 2, 2, *shape[1:]).transpose(1, 2).reshape(shape)


def to_neighbours(tensor: Tensor, heads: int) -> Tensor:
    """The inverse of `to_halves`."""
    shape = tensor.shape
    return tensor.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).transpose(1, 2).reshape(shape)
