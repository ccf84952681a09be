"""Short names -> where the weights are, and what they were trained to do."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from twgi.errors import CheckpointError

BUNDLED = Path(__file__).parents[1] / "icons" / "weights"
FILES = ["*.json", "*.safetensors"]  # all that is read of a repository; never code


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A checkpoint with a short name: in a folder of the package, or in a repository of the hub."""

    modes: tuple[str, ...]  # those it was trained for; in others it can be run too
    folder: Path | None = None
    repository: str | None = None


PRESETS: dict[str, Preset] = {
    "icons": Preset(folder=BUNDLED, modes=("direct", "subgoal", "critique", "general")),
    "twgi-subgoal": Preset(repository="GAIR/twgi-subgoal-anole-7b", modes=("subgoal",)),
    "twgi-critique": Preset(repository="GAIR/twgi-critique-anole-7b", modes=("critique",)),
    "anole": Preset(repository="GAIR/Anole-7b", modes=("general", "direct")),
}


def resolve(name_or_path: str | Path) -> tuple[str, Path, Preset | None]:
    """(name, folder, preset) of a preset or a folder; a preset goes first, `./icons` is always the folder.

    A preset of the hub is taken from the hub's cache, and downloaded into it where it is not there yet. Raises
    `CheckpointError` where there is neither, or the hub does not give it.
    """
    preset = PRESETS.get(str(name_or_path))
    if preset is not None:
        return str(name_or_path), preset.folder or _from_hub(str(name_or_path), preset), preset
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder.resolve().name, folder, None
    close = difflib.get_close_matches(str(name_or_path), PRESETS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"presets: {', '.join(PRESETS)}"
    reason = f"neither a preset nor a folder with a checkpoint; {hint}"
    raise CheckpointError(f"unknown model {str(name_or_path)!r}: {reason}")


def _from_hub(name: str, preset: Preset) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise CheckpointError(f"model {name!r} is on the hub: pip install 'twgi[hub]', or give a folder") from error
    repository = str(preset.repository)
    again = f"or download {repository} elsewhere and give its folder as --model"
    try:
        return Path(snapshot_download(repository, allow_patterns=FILES))
    except errors.GatedRepoError as error:
        how = f"accept the licence on the page of {repository}, then run: hf auth login"
        raise CheckpointError(f"model {name!r} is gated: {how}; {again}") from error
    except errors.RepositoryNotFoundError as error:
        how = "it may be private or renamed: hf auth login"
        raise CheckpointError(f"model {name!r}: the hub shows no {repository} to you; {how}, {again}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as error:
        how = f"cannot be fetched; once with a connection, run: hf download {repository}"
        raise CheckpointError(f"model {name!r} is not in the hub's cache and {how}, {again}") from error
