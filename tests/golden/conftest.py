"""The folder of golden cases: `TWGI_GOLDEN`, or `../shared/golden`. Every id, size and name comes from it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from twgi.checkpoint.layout import open_checkpoint
from twgi.checkpoint.load import Loaded, load

DEFAULT = Path(__file__).parents[3] / "shared" / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder; tests skip where the default one is absent, and fail where the one that was asked for is."""
    asked = os.environ.get("TWGI_GOLDEN")
    folder = Path(asked) if asked else DEFAULT
    if not (folder / "cases.json").is_file():
        if asked:
            pytest.fail(f"TWGI_GOLDEN={asked}: no cases.json there")
        pytest.skip("needs golden/ in the folder 'shared' beside the checkout, or TWGI_GOLDEN")
    return folder


@pytest.fixture(scope="session")
def cases(golden: Path) -> dict[str, Any]:
    """`cases.json`."""
    value: dict[str, Any] = json.loads((golden / "cases.json").read_text(encoding="utf-8"))
    return value


@pytest.fixture(scope="session")
def arrays(golden: Path) -> dict[str, Tensor]:
    """`cases.safetensors`."""
    return load_file(golden / "cases.safetensors")


@pytest.fixture(scope="session")
def loaded(golden: Path) -> Loaded:
    """The checkpoint in the layout of the published code's fork."""
    return load(golden / "checkpoint_fork")


@pytest.fixture(scope="session")
def twins(golden: Path, loaded: Loaded) -> list[Path]:
    """Every checkpoint of the set that is of the same model, in whatever layout; the fork's first."""
    others = [path for path in sorted(golden.glob("checkpoint_*")) if path.name != "checkpoint_fork"]
    return [golden / "checkpoint_fork", *(p for p in others if open_checkpoint(p).config == loaded.model.config)]
