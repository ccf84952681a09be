"""Think in pictures: one autoregressive model writes, draws, looks at what it drew, and draws again.

>>> import twgi
>>> trace = twgi.load("icons").think("a photo of a red couch and a blue horse", mode="subgoal", seed=0)
>>> trace.save("out/")

Public names are imported when they are first used, so that ``import twgi`` stays fast and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from twgi.decoding.guidance import Guidance, GuidancePlan, Scales
    from twgi.decoding.params import SamplingParams
    from twgi.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        ImageError,
        PromptError,
        RunError,
        TraceError,
        TwgiError,
    )
    from twgi.thinking.events import Done, ImageFinished, ImageProgress, ImageStarted, Task, TextPiece, ThoughtFailed
    from twgi.thinking.settings import Settings
    from twgi.thinking.thinker import Thinker
    from twgi.trace import Anomaly, ImageSegment, TextSegment, Trace

__version__ = "0.1.0"

_NAMES_OF = {
    "twgi.decoding.guidance": "Guidance GuidancePlan Scales",
    "twgi.decoding.params": "SamplingParams",
    "twgi.errors": "CheckpointError ConfigError DataError ImageError PromptError RunError TraceError TwgiError",
    "twgi.thinking.events": "Done ImageFinished ImageProgress ImageStarted Task TextPiece ThoughtFailed",
    "twgi.thinking.settings": "Settings",
    "twgi.thinking.thinker": "Thinker",
    "twgi.trace": "Anomaly ImageSegment TextSegment Trace",
}
_HOME_OF = {name: home for home, names in _NAMES_OF.items() for name in names.split()}

__all__ = [
    "Anomaly", "CheckpointError", "ConfigError", "DataError", "Done", "Guidance", "GuidancePlan", "ImageError",
    "ImageFinished", "ImageProgress", "ImageSegment", "ImageStarted", "PromptError", "RunError", "SamplingParams",
    "Scales", "Settings", "Task", "TextPiece", "TextSegment", "Thinker", "ThoughtFailed", "Trace", "TraceError",
    "TwgiError", "load",
]  # fmt: skip


def load(
    name_or_path: "str | Path",
    *,
    device: str = "cpu",
    dtype: "torch.dtype | None" = None,
    vq: "str | Path | None" = None,
    context: int | None = None,
    int8: bool = False,
    serial: bool = False,
    progress: "Callable[[int, int], None] | None" = None,
) -> "Thinker":
    """Load a checkpoint and return the thinker that runs it.

    Args:
        name_or_path: a preset such as ``"icons"`` (the bundled model), or a folder that holds a checkpoint.
        device: a torch device, such as ``"cpu"`` or ``"cuda"``.
        dtype: of the language model; float32 on a CPU and bfloat16 elsewhere when left out.
        vq: file or folder of an image tokenizer, for a checkpoint that has no image decoder.
        context: positions, where the checkpoint's own number is not wanted.
        int8: matrices of the language model as 8-bit integers (extra ``quant``).
        serial: rows of guidance in turn, with their cache in host memory.
        progress: is told (bytes read, bytes in all).

    Raises `CheckpointError`: no such preset or folder, an unknown layout, or missing or unexpected weights;
    `ConfigError`: a device or setting that cannot be, or too little memory.
    """
    from twgi.checkpoint.load import load as load_checkpoint
    from twgi.thinking.thinker import Thinker

    loaded = load_checkpoint(name_or_path, device, dtype, vq=vq, context=context, int8=int8, progress=progress)
    return Thinker(loaded.model, loaded.tokenizer, loaded, serial=serial)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'twgi' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
