"""The published inference code's quirks, each by name. No torch here.

Ours is what the paper describes and the training rows show; `--compat reference` keeps all of these, as the released
weights' own results were made with them. `docs/compat.md` says of each what it does and why ours differs.
"""

from __future__ import annotations

from enum import StrEnum

from twgi.errors import ConfigError


class Quirk(StrEnum):
    """One thing that the published code does and we do not."""

    PROMPT_WITHOUT_BOS = "prompt-without-bos"  # critique and subgoal prompts
    CONFIG_BOS = "config-bos"  # the image branch keeps the config's bos id, which is padding, and drops the real one
    PROMPT_FORGOTTEN = "prompt-forgotten"  # the prompt branch of a subgoal chain is boi alone
    PARTS_BY_COUNT = "parts-by-count"  # the first two pictures of a subgoal chain are parts, whatever the words say
    PROMPT_WITH_MARKS = "prompt-with-marks"  # the prompt branch in general mode keeps bos and separator
    PADS_UNREAD = "pads-unread"  # text is written as if padding ids before it were not there
    ANY_TEXT = "any-text"  # text may hold bos, padding, separator and other reserved ids
    END_AT_LAST_IMAGE = "end-at-last-image"  # no text and no eos after the last picture allowed
    UNCHECKED_FIRST_IMAGE = "unchecked-first-image"  # the first picture of a critique may exceed the limit
    PUBLISHED_LIMITS = "published-limits"  # 6,144 tokens with the prompt, 4 pictures
    PUBLISHED_SAMPLING = "published-sampling"  # top-k 50 everywhere, and top-p of generation_config.json for pictures


ALL = frozenset(Quirk)
OF_GUIDANCE = frozenset({Quirk.CONFIG_BOS, Quirk.PROMPT_FORGOTTEN, Quirk.PARTS_BY_COUNT, Quirk.PROMPT_WITH_MARKS})
"""Those that are about the rows of guidance; the guidance `reference` has them even alone."""

PUBLISHED_PARTS = 2
PUBLISHED_LENGTH, PUBLISHED_IMAGES = 6144, 4
PUBLISHED_TOP_K = 50


def parse_compat(text: str) -> frozenset[Quirk]:
    """`reference` (all), quirks by name, and `-name` to leave one out, separated by commas: `reference,-any-text`.

    Raises:
        ConfigError: an unknown name.
    """
    chosen: set[Quirk] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        name = word.removeprefix("-")
        if name != "reference" and name not in set(Quirk):
            raise ConfigError(f"unknown quirk {name!r}; known are reference (all), {', '.join(Quirk)}")
        quirks = ALL if name == "reference" else {Quirk(name)}
        chosen = chosen - quirks if word.startswith("-") else chosen | quirks
    return frozenset(chosen)
