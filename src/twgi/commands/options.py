"""Options that several commands have, each defined once."""

from pathlib import Path
from typing import Annotated

import typer


def option(help: str, panel: str, *names: str) -> typer.models.OptionInfo:
    """An option without a default of its own to show: the help says it."""
    info: typer.models.OptionInfo = typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)
    return info


ASK, MODEL, GUIDE = "What to think about", "The model", "Guidance of pictures"
DRAW, RUN = "Sampling and limits", "The run"
Model = Annotated[str, option("Preset, or folder of a checkpoint. Default: icons.", MODEL)]
Device = Annotated[str, option("cpu, cuda, cuda:1. Default: cpu.", MODEL)]
Vq = Annotated[Path | None, option("vqgan.ckpt, for a model that cannot draw.", MODEL)]
Rounds = Annotated[int, option("How often critique looks and draws again. Default: 1.", ASK)]
Seed = Annotated[int, option("Same seed, same thoughts. Default: 0.", ASK)]
Resume = Annotated[bool, option("Go on with the run in --out.", RUN, "--resume")]
