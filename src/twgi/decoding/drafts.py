"""Guesses at the next tokens. What is drawn does not depend on them, only how much one step does. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from twgi.vocab import Vocab

LOOK = 2  # tokens that must have stood before
TEXT = 6  # the most words guessed: they are right less often than image tokens


def of_picture(ids: Sequence[int], begin: int, ahead: Sequence[int], most: int, vocab: Vocab) -> list[int]:
    """Image tokens that may follow in the picture whose tokens begin at `begin`: what was drawn there after a wrong
    guess (plain Jacobi iteration), then what stands there in the picture before, else the last token again."""
    found = list(ahead[:most])
    before = begin - 2  # the last token before this picture's boi
    while before >= 0 and ids[before] != vocab.eoi:
        before -= 1
    offset = before - vocab.tokens_per_image - begin  # to the same place in the picture before
    last = found[-1] if found else ids[-1] if len(ids) > begin else vocab.image_tokens[0]
    for place in range(len(ids) + len(found), len(ids) + most):
        found.append(ids[place + offset] if before >= 0 else last)
    return found


def of_text(ids: Sequence[int], most: int, vocab: Vocab) -> list[int]:
    """Words that may follow: those that did where the last tokens stood before, the newest such place."""
    tail = list(ids[-LOOK:])
    for end in range(len(ids) - 1, LOOK - 1, -1):
        if ids[end - 1] == tail[-1] and list(ids[end - LOOK : end]) == tail:
            found = ids[end : end + min(most, TEXT)]
            return list(found[: next((i for i, token in enumerate(found) if not vocab.is_text(token)), len(found))])
    return []
