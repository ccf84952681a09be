"""Options that several commands have, each defined once."""

from pathlib import Path
from typing import Annotated

import typer


def option(help: str, panel: str, *names: str) -> typer.models.OptionInfo:
    """An option without a default of its own to show: the help says it."""
    info: typer.models.OptionInfo = typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)
    return info


def given(**options: float | int | None) -> dict[str, float | int]:
    """Those that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


ASK, MODEL, GUIDE = "What to think about", "The model", "Guidance of pictures"
DRAW, RUN = "Sampling and limits", "The run"
Model = Annotated[str, option("Preset, or folder of a checkpoint. Default: icons.", MODEL)]
Device = Annotated[str, option("cpu, cuda, cuda:1. Default: cpu.", MODEL)]
Dtype = Annotated[str | None, option("float32, bfloat16, float16. Default: by the device.", MODEL)]
Vq = Annotated[Path | None, option("vqgan.ckpt, for a model that cannot draw.", MODEL)]
Context = Annotated[int | None, option("Positions of a row. Default: the model's.", MODEL)]
Int8 = Annotated[bool, option("Language model in 8 bits (extra quant).", MODEL, "--int8")]
CfgRows = Annotated[str, option("parallel, or serial: slow, saves device memory.", MODEL)]
Compat = Annotated[str, option("reference, or quirks of the published code by name.", GUIDE)]
Rounds = Annotated[int, option("How often critique looks and draws again. Default: 1.", ASK)]
Seed = Annotated[int, option("Same seed, same thoughts. Default: 0.", ASK)]
GuidanceName = Annotated[str | None, option("paper, reference or icons. Default: the model's.", GUIDE)]
ScaleFull = Annotated[float | None, option("Towards all that was thought so far.", GUIDE)]
ScaleImage = Annotated[float | None, option("Towards the pictures so far.", GUIDE)]
ScaleNegative = Annotated[float | None, option("Away from the negative prompt.", GUIDE)]
ScalePrompt = Annotated[float | None, option("Towards the bare prompt.", GUIDE)]
Temperature = Annotated[float | None, option("Of text; 0 takes the likeliest token.", DRAW)]
ImageTemperature = Annotated[float | None, option("The same for pictures.", DRAW)]
ImageTopP = Annotated[float | None, option("The same for pictures.", DRAW)]
ImageTopK = Annotated[int | None, option("The same for pictures.", DRAW)]
Resume = Annotated[bool, option("Go on with the run in --out.", RUN, "--resume")]
