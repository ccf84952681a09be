"""The errors a user can cause: one line that says what was wrong, where, and what to do.

The command line prints the line alone and leaves with exit status 2. Whatever is not a ``TwgiError`` is a bug of
ours and keeps its traceback.
"""

import re

LONGEST = 4000  # signs of a message: what it quotes may be of any length


class TwgiError(Exception):
    """A mistake the user can put right; ``str(error)`` is one line."""

    exit_status = 2

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= LONGEST else f"{line[:LONGEST]}...")


class ConfigError(TwgiError):
    """An option is unknown, out of its range, or contradicts another one."""


class PromptError(TwgiError):
    """A prompt is empty, too long, not readable, or does not fit its pictures."""


class ImageError(TwgiError):
    """A picture file is missing, not a picture, or too large to open safely."""


class RefusedImageError(ImageError):
    """A picture that may be whole and was not read: too large, no plain file, or no memory or permission for it."""


class CheckpointError(TwgiError):
    """A checkpoint is unknown, incomplete, or not of a layout we can read."""


class RunError(TwgiError):
    """A run folder cannot be written, is in use, or was made with other settings."""


class TraceError(TwgiError):
    """A stored trace has an unknown version, key or tag."""


class DataError(TwgiError):
    """A training record, a row of tokens, or a file of them cannot be used."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that memory is used up; torch says it in a `RuntimeError`."""
    return isinstance(error, MemoryError) or bool(re.search("out of memory|can't allocate memory", str(error), re.I))
