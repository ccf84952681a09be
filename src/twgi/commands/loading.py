"""Load a model for a command: options as people give them, a bar while it takes long, remarks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from twgi.console import complain
from twgi.decoding.compat import PUBLISHED_LENGTH, Quirk, parse_compat
from twgi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from twgi.thinking.thinker import Thinker

DTYPES = ("float32", "bfloat16", "float16")
ROWS = ("parallel", "serial")
SHOWN = 10**9  # bytes from which on loading shows a bar


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What to load, and how. The same words as the options of the command line."""

    model: str = "icons"
    device: str = "cpu"
    dtype: str | None = None
    vq: Path | None = None
    context: int | None = None
    int8: bool = False
    cfg_rows: str = "parallel"
    compat: str = ""

    def __post_init__(self) -> None:
        parse_compat(self.compat)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {self.dtype!r}; known are {', '.join(DTYPES)}")
        if self.cfg_rows not in ROWS:
            raise ConfigError(f"cfg-rows must be {' or '.join(ROWS)}, got {self.cfg_rows!r}")


def load_thinker(options: ModelOptions) -> Thinker:
    """The thinker of these options. What is worth knowing about it is said on stderr."""
    from twgi.checkpoint.load import load
    from twgi.thinking.thinker import Thinker

    context = options.context
    if context is None and Quirk.PUBLISHED_LIMITS in parse_compat(options.compat):
        context = PUBLISHED_LENGTH
    dtype = None if options.dtype is None else dtype_named(options.dtype)
    loaded = load(
        options.model, options.device, dtype, vq=options.vq, context=context, int8=options.int8, progress=Bar("loading")
    )
    for remark in loaded.remarks:
        complain(remark)
    if options.device != "cpu":
        width = str(loaded.model.embed.weight.dtype).removeprefix("torch.")
        complain(f"{loaded.name} runs on {options.device} in {'int8 and ' if options.int8 else ''}{width}")
    return Thinker(loaded.model, loaded.tokenizer, loaded, serial=options.cfg_rows == "serial")


def dtype_named(name: str) -> torch.dtype:
    """The torch dtype of one of `DTYPES`."""
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


class Bar:
    """A bar on stderr for work on many bytes, where people look; nothing for small work or in a log."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._advance: Callable[[int], None] | None = None

    def __call__(self, done: int, total: int) -> None:
        """So many bytes of so many are done."""
        if total < SHOWN or not sys.stderr.isatty():
            return
        if self._advance is None:
            self._advance = self._start(total)
        self._advance(done)
        if done >= total:
            self._bar.stop()

    def _start(self, total: int) -> Callable[[int], None]:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        task = self._bar.add_task(self.title, total=total)
        self._bar.start()
        return lambda done: self._bar.update(task, completed=done)
