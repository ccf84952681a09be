"""Training state on disk: written atomically, the one before kept, read without executing anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

NEWEST, PREVIOUS = "state.pt", "state.previous.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes `state.pt`; what was there becomes `state.previous.pt`."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".tmp-state.pt"
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if (folder / NEWEST).exists():
        os.replace(folder / NEWEST, folder / PREVIOUS)
    os.replace(temporary, folder / NEWEST)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest readable state, or None in a fresh folder; says so when it falls back to the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:  # a torn file may fail in many ways
            print(f"{path} cannot be read ({type(error).__name__}); trying the state before it")
    return None
