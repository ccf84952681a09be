"""Short names -> where the weights are."""

from __future__ import annotations

import difflib
from pathlib import Path

from twgi.errors import CheckpointError

PRESETS: dict[str, Path] = {
    "icons": Path(__file__).parents[1] / "icons" / "weights",
}


def resolve(name_or_path: str | Path) -> tuple[str, Path]:
    """(name, folder) of a preset or a folder; a preset goes first, `./icons` is always the folder.

    Raises `CheckpointError` where there is neither.
    """
    folder = PRESETS.get(str(name_or_path), Path(name_or_path))
    if (folder / "config.json").is_file():
        return (str(name_or_path) if str(name_or_path) in PRESETS else folder.resolve().name), folder
    if folder.is_dir():
        raise CheckpointError(f"{folder}: no config.json in this folder, so it is not a checkpoint")
    close = difflib.get_close_matches(str(name_or_path), PRESETS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"presets: {', '.join(PRESETS)}"
    raise CheckpointError(
        f"unknown model {str(name_or_path)!r}: neither a preset nor a folder with a checkpoint; {hint}"
    )
