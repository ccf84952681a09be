"""The published code's quirks (`decoding/compat.py`), as edits of a request. No other file of thinking knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twgi.decoding.compat import PUBLISHED_IMAGES, PUBLISHED_LENGTH, PUBLISHED_PARTS, PUBLISHED_TOP_K, Quirk
from twgi.decoding.params import SamplingParams

if TYPE_CHECKING:
    from twgi.thinking.request import Draft


def sampling(generation: Mapping[str, Any]) -> SamplingParams:
    """What the published code samples by, for a checkpoint with this `generation_config.json`."""
    top_k, top_p = generation.get("top_k", PUBLISHED_TOP_K), generation.get("top_p", 1.0)
    return SamplingParams(text_top_k=top_k, image_top_k=top_k, image_top_p=top_p)


def edit(draft: Draft, quirks: frozenset[Quirk], *, config_bos: int) -> None:
    """Change a draft of a request to what the published code would ask, quirk by quirk."""
    mode = draft.mode
    if Quirk.PROMPT_WITH_MARKS in quirks and not mode.has_template:
        draft.conditions = replace(draft.conditions, prompt=draft.prompt)
    if Quirk.PROMPT_FORGOTTEN in quirks and mode.has_parts:
        draft.conditions = replace(draft.conditions, prompt=())
    if Quirk.CONFIG_BOS in quirks:
        draft.conditions = replace(draft.conditions, bos=config_bos)
    if Quirk.PROMPT_WITHOUT_BOS in quirks and mode.has_template:
        draft.prompt = draft.prompt[1:]
    if Quirk.PADS_UNREAD in quirks:
        draft.unread = frozenset({draft.vocab.pad})
    draft.any_text = Quirk.ANY_TEXT in quirks
    if Quirk.PUBLISHED_LIMITS in quirks:
        draft.context = min(draft.context, PUBLISHED_LENGTH)
        if draft.asked_images is None and not mode.stop_after_images and draft.images:
            draft.images = PUBLISHED_IMAGES
    if Quirk.UNCHECKED_FIRST_IMAGE in quirks and mode.starts_with_image and draft.asked_tokens is not None:
        draft.asked_tokens = max(draft.asked_tokens, draft.least_tokens)
    if Quirk.END_AT_LAST_IMAGE in quirks and draft.images:
        draft.stop_after_images = draft.images
    if Quirk.PARTS_BY_COUNT in quirks and mode.has_parts:
        draft.kind_of = lambda k, words: mode.kinds[0] if k < PUBLISHED_PARTS else mode.kinds[-1]
