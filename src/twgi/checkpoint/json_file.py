"""JSON objects from files of checkpoints, which anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twgi.errors import CheckpointError

MAX_JSON = 64 * 2**20


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size; raises `CheckpointError`."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise CheckpointError(f"{path}: larger than {MAX_JSON // 2**20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return value


def read_optional(path: Path) -> dict[str, Any]:
    """The same, empty where there is no such file."""
    return read_json(path) if path.is_file() else {}
