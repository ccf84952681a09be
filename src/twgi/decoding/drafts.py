"""Guesses at the next tokens. A guess is never wrong: what is drawn does not depend on it, only how much is saved."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from twgi.vocab import Vocab


def of_picture(ids: Sequence[int], ahead: Sequence[int], most: int, vocab: Vocab) -> list[int]:
    """Image tokens that may follow `ids`: those that were drawn there after a wrong guess, then the token above."""
    side, found = isqrt(vocab.tokens_per_image), list(ahead[:most])
    known = [*ids[-side:], *found]
    while len(found) < most:
        token = known[-1] if vocab.is_image(known[-1]) else vocab.image_tokens[0]
        found.append(token)
        known.append(token)
    return found
