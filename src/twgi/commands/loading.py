"""Load a model for a command: options as people give them, a bar while it takes long, remarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twgi.commands.options import CfgRows, Compat, Context, Device, Dtype, Int8, Model, Vq
from twgi.console import bytes_bar, complain
from twgi.decoding.compat import PUBLISHED_LENGTH, Quirk, parse_compat
from twgi.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from twgi.thinking.thinker import Thinker

DTYPES = ("float32", "bfloat16", "float16")
ROWS = ("parallel", "serial")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What to load, and how. The same words as the options of the command line."""

    model: Model = "icons"
    device: Device = "cpu"
    dtype: Dtype = None
    vq: Vq = None
    context: Context = None
    int8: Int8 = False
    cfg_rows: CfgRows = "parallel"
    compat: Compat = ""

    def __post_init__(self) -> None:
        parse_compat(self.compat)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {self.dtype!r}; known are {', '.join(DTYPES)}")
        if self.cfg_rows not in ROWS:
            raise ConfigError(f"cfg-rows must be {' or '.join(ROWS)}, got {self.cfg_rows!r}")

    @property
    def torch_dtype(self) -> torch.dtype | None:
        import torch

        return getattr(torch, self.dtype) if self.dtype else None

    def loading(self) -> dict[str, Any]:
        """What `twgi.load` is to be told beside the model's name."""
        long = self.context is None and Quirk.PUBLISHED_LIMITS in parse_compat(self.compat)
        return {
            "dtype": self.torch_dtype,
            "context": PUBLISHED_LENGTH if long else self.context,
            "serial": self.cfg_rows == "serial",
            **{name: getattr(self, name) for name in ("device", "vq", "int8")},
        }


ICONS = ModelOptions()


def load_thinker(options: ModelOptions) -> Thinker:
    """The thinker of these options. What is worth knowing about it is said on stderr."""
    from twgi import load

    thinker = load(options.model, **options.loading(), progress=bytes_bar("loading"))
    for remark in thinker.remarks:
        complain(remark)
    if options.device != "cpu":
        width = str(thinker.model.embed.weight.dtype).removeprefix("torch.")
        complain(f"{options.model} runs on {options.device} in {'int8 and ' if options.int8 else ''}{width}")
    return thinker
