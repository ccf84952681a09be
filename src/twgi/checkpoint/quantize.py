"""Weights as 8-bit integers: half the memory of bfloat16, a little other numbers."""

from __future__ import annotations

import logging

from torch import nn

from twgi.errors import ConfigError


def hush_torchao() -> None:
    """When it is imported, by peft too, torchao complains about its parts for other hardware: keep that from users."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def require_torchao() -> None:
    """Raise `ConfigError` where torchao is not installed."""
    hush_torchao()
    try:
        import torchao.quantization  # noqa: F401
    except ImportError as error:
        raise ConfigError("int8 needs torchao: pip install 'twgi[quant]'") from error


def quantize_block(block: nn.Module) -> None:
    """Turn the matrices of one block of the decoder into int8 with one scale for each row, where they are.

    Block by block, a whole copy of the model in full width is never in memory. Call `require_torchao` first.
    """
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(block, Int8WeightOnlyConfig(set_inductor_config=False))
