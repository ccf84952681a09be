"""What the engine is asked for: ids in, ids out, as plain data that may be pickled. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from twgi.decoding.grammar import Grammar
from twgi.decoding.guidance import Guidance, Ids
from twgi.decoding.params import Filter


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the rows of guidance are made of, see `guidance.branch_ids`.

    Args:
        prompt: the bare prompt, without template, bos and separator.
        negative: the negative prompt.
        bos: what the image branch keeps in place of the vocabulary's bos.
    """

    prompt: Ids = ()
    negative: Ids = ()
    bos: int | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One sequence to decode.

    Args:
        id: names the events of this request.
        prompt: at least one id; with `seed` and `sample` the key of the noise, and so of every draw.
        text, image: what is done to logits while writing, and while drawing.
        guidance: the guidance of each kind of picture. With more kinds than one the engine asks (see `ImageAsked`).
        given: tokens it begins with as if they had been drawn; the grammar must allow them (see `Grammar.after`).
        unread: ids that are left out of what text is written after; pictures read them.
        logprobs: whether drawn tokens come with their log-probability.
    """

    id: int
    prompt: Ids
    grammar: Grammar
    text: Filter
    image: Filter
    guidance: Mapping[str, Guidance]
    seed: int = 0
    sample: int = 0
    conditions: Conditions = Conditions()
    given: Ids = ()
    unread: frozenset[int] = frozenset()
    logprobs: bool = False
