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
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(f"there is no device {str(name)!r} here: the last one is cuda:{count - 1}")
    return device


def check_memory(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, *, int8: bool) -> None:
    """Refuse what cannot fit: `ConfigError` with what is needed, what is free, and what would need less."""
    config, weights = checkpoint.config, weight_bytes(sizes(checkpoint), dtype, int8=int8)
    free, rotary = free_memory(device), 2 * config.head_dim * torch.float32.itemsize
    cache = config.max_positions * (kv_bytes_per_token(config, dtype) + rotary)  # of one thought of the whole context
    if free is None or weights + cache <= free:
        return
    ways = ["dtype bfloat16"] * (dtype == torch.float32)
    if cache > weights or not int8:
        ways.append("a shorter context" if cache > weights else "int8")
    advice = f"; less is needed with {' or '.join(ways)}" if ways else "; free some, or use another device"
    needs = f"the weights need {weights / GB:.1f} GB and a thought of {config.max_positions} tokens {cache / GB:.1f} GB"
    raise ConfigError(f"{checkpoint.name}: {needs}, and {free / GB:.1f} GB are free on {device}{advice}")


def free_memory(device: torch.device) -> int | None:
    """Bytes that could be used now; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        import resource

        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError, StopIteration):
        return None
    return free if limit == resource.RLIM_INFINITY else max(0, min(free, limit - used))
