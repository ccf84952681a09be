"""Eyes by name, as the command line calls them."""

from pathlib import Path

from twgi.errors import ConfigError
from twgi.evaluation.detectors.eyes import Eyes

KNOWN = ("icons", "mask2former", "replay:FILE")
WEIGHTS, CLIP = "facebook/mask2former-swin-small-coco-instance", "openai/clip-vit-large-patch14"


def eyes_named(name: str, *, weights: str = WEIGHTS, clip: str = CLIP, device: str = "cpu") -> Eyes:
    """The eyes of this name; `weights` (Mask2Former), `clip` and `device` are for mask2former.

    Raises:
        ConfigError: no such name.
        CheckpointError: its weights are not there, or are those of something else.
        RunError: a record cannot be read.
    """
    kind, _, rest = name.partition(":")
    if kind == "icons" and not rest:
        from twgi.evaluation.detectors.icons import icon_eyes

        return icon_eyes()
    if kind == "mask2former" and not rest:
        from twgi.evaluation.detectors.mask2former import mask2former_eyes

        return mask2former_eyes(weights=weights, clip=clip, device=device)
    if kind == "replay" and rest:
        from twgi.evaluation.detectors.replay import replay_eyes

        return replay_eyes(Path(rest))
    raise ConfigError(f"unknown detector {name!r}; known are {', '.join(KNOWN)}")
