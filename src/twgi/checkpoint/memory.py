"""How much memory a checkpoint takes, and whether a device has it: known before anything is loaded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from twgi.checkpoint import hf
from twgi.checkpoint.layout import Checkpoint
from twgi.errors import ConfigError
from twgi.model.config import TransformerConfig

GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers of weights: of the blocks and the final norm, of the embedding, of the head, of the image part."""

    body: int
    embedding: int
    head: int
    image: int

    @property
    def language(self) -> int:
        return self.body + self.embedding + self.head


def sizes(checkpoint: Checkpoint) -> Sizes:
    """Count the weights by what the files say."""
    counts, parts = Counter[str](), {"model.embed_tokens.weight": "embedding", "lm_head.weight": "head"}
    for name, entry in checkpoint.tensors.stored.items():
        part = "image" if name.startswith(hf.VQ_PREFIX) else parts.get(name, "body")
        counts[part] += torch.Size(entry.shape).numel()
    return Sizes(body=counts["body"], embedding=counts["embedding"], head=counts["head"], image=counts["image"])


def weight_bytes(counts: Sizes, dtype: torch.dtype, *, int8: bool) -> int:
    """Bytes of all weights once loaded: the image part in float32, the blocks as int8 where that is asked for."""
    body = counts.body if int8 else counts.body * dtype.itemsize
    return body + (counts.embedding + counts.head) * dtype.itemsize + counts.image * torch.float32.itemsize


def kv_bytes_per_token(config: TransformerConfig, dtype: torch.dtype) -> int:
    """Keys and values of one position in all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize


def known_device(name: str | torch.device) -> torch.device:
    """The device of this name; ConfigError where torch does not know it, or has none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {str(name)!r}; use cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is to be seen here; use device cpu, or install a CUDA build of torch")
    return device


def check_memory(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, *, int8: bool) -> None:
    """Refuse what cannot fit: `ConfigError` with what is needed, what is free, and what would need less."""
    needed, free = weight_bytes(sizes(checkpoint), dtype, int8=int8), free_memory(device)
    if free is None or needed <= free:
        return
    ways = [] if int8 else ["int8"]
    if dtype == torch.float32:
        ways.insert(0, "dtype bfloat16")
    advice = f"; less is needed with {' or '.join(ways)}" if ways else "; free some, or use another device"
    raise ConfigError(
        f"{checkpoint.name}: the weights need {needed / GB:.1f} GB and {free / GB:.1f} GB are free on {device}{advice}"
    )


def free_memory(device: torch.device) -> int | None:
    """Bytes that could be used now; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
