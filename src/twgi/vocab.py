"""What each token id means: text, image code, or one of the marks that give a sequence its shape.

The layout is Chameleon's. Nothing here assumes where an id lies: image tokens are found by their *names*, because the
order of their ids need not be the order of the codebook (see `Vocab.from_names`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from twgi.errors import CheckpointError

SPECIAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "bos": ("<s>",), "pad": ("<pad>",), "eos": ("</s>",), "unk": ("<unk>",), "boi": ("<racm3:break>",),
    "eoi": ("<eoss>",), "separator": ("<reserved08706>",), "placeholder": ("<image>", "<reserved08707>"),
}  # fmt: skip
"""Field of `Vocab` -> the names it goes by in a checkpoint, the preferred one first."""

_IMAGE_NAME = re.compile(r"IMGIMG([A-J]{1,9})Z")
_RESERVED_NAME = re.compile(r"<reserved\d+>")
_LETTERS, _DIGITS = "ABCDEFGHIJ", "0123456789"


def image_name(code: int) -> str:
    """The name of the token of one codebook entry: its decimal digits as letters, `IMGIMG...Z` (12 is `IMGIMGBCZ`)."""
    return f"IMGIMG{str(code).translate(str.maketrans(_DIGITS, _LETTERS))}Z"


def image_code(name: str) -> int | None:
    """The codebook index that a token's name stands for; None where the name is not an image token's."""
    match = _IMAGE_NAME.fullmatch(name)
    return int(match[1].translate(str.maketrans(_LETTERS, _DIGITS))) if match else None


def is_control_name(name: str) -> bool:
    """Whether a token of this name is anything but text: a special token, a reserved one, or an image token."""
    known = any(name in names for names in SPECIAL_NAMES.values())
    return known or _RESERVED_NAME.fullmatch(name) is not None or image_code(name) is not None


@dataclass(frozen=True, kw_only=True)
class Vocab:
    """The meaning of every id below `size`, the width of the model's output.

    `image_tokens[code]` is the token id of a codebook entry; `reserved` are ids that are neither text nor used for
    anything (named so, or without a name). What is left is text.
    """

    size: int
    bos: int
    pad: int
    eos: int
    unk: int
    boi: int
    eoi: int
    separator: int
    placeholder: int
    image_tokens: tuple[int, ...]
    tokens_per_image: int
    reserved: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        ids = [*self.special.values(), *self.image_tokens, *self.reserved]
        outside = [i for i in ids if not 0 <= i < self.size]
        if outside:
            raise CheckpointError(f"vocabulary: id {outside[0]} is not below the model's vocabulary size {self.size}")
        if len(set(ids)) != len(ids):
            (twice, _), *_ = Counter(ids).most_common(1)
            raise CheckpointError(f"vocabulary: id {twice} is given two meanings")
        if not self.image_tokens or self.tokens_per_image < 1:
            raise CheckpointError("vocabulary: no image tokens, or fewer than one per image")

    @classmethod
    def from_names(
        cls, names: Mapping[str, int], *, tokens_per_image: int, size: int, special: Iterable[int] = ()
    ) -> "Vocab":
        """Read the meaning of ids from their names (`vocabulary_map` of config.json, or a tokenizer's vocabulary).

        `special` are further ids that are no text (a tokenizer's own list). Raises `CheckpointError` where a needed
        name is missing, or an image token's code is missing or named twice.
        """
        known = {field: _first_id(names, field) for field in SPECIAL_NAMES}
        image_tokens = _image_tokens(names)
        taken = {*known.values(), *image_tokens}
        named = {i for name, i in names.items() if not is_control_name(name)} - set(special)
        reserved = tuple(i for i in range(size) if i not in taken and i not in named)
        return cls(size=size, tokens_per_image=tokens_per_image, image_tokens=image_tokens, reserved=reserved, **known)

    @property
    def special(self) -> dict[str, int]:
        """Field name -> id of the tokens that give a sequence its shape."""
        return {field: getattr(self, field) for field in SPECIAL_NAMES}

    @cached_property
    def image_ids(self) -> frozenset[int]:
        """The ids of all image tokens."""
        return frozenset(self.image_tokens)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Every id that plain text may not use: special, image and reserved."""
        return frozenset((*self.special.values(), *self.image_tokens, *self.reserved))

    @cached_property
    def text_ids(self) -> tuple[int, ...]:
        """Every id that plain text may use, in order."""
        return tuple(i for i in range(self.size) if i not in self.control_ids)

    @cached_property
    def _codes(self) -> dict[int, int]:
        return {token: code for code, token in enumerate(self.image_tokens)}

    @property
    def image_length(self) -> int:
        """Positions that a whole image takes: boi, its image tokens, eoi."""
        return self.tokens_per_image + 2

    def is_image(self, token: int) -> bool:
        """Whether this id is an image token (boi and eoi are not)."""
        return token in self.image_ids

    def is_text(self, token: int) -> bool:
        return 0 <= token < self.size and token not in self.control_ids

    def code(self, token: int) -> int:
        """Codebook index of an image token; KeyError for any other id."""
        return self._codes[token]

    def token(self, code: int) -> int:
        """Token id of a codebook index; IndexError outside the codebook."""
        if code < 0:
            raise IndexError(f"codebook index {code} is negative")
        return self.image_tokens[code]


def _first_id(names: Mapping[str, int], field: str) -> int:
    known = [names[name] for name in SPECIAL_NAMES[field] if name in names]
    if not known:
        wanted = f"{' or '.join(SPECIAL_NAMES[field])} ({field})"
        raise CheckpointError(f"vocabulary: no token named {wanted}; is this a Chameleon tokenizer?")
    return known[0]


def _image_tokens(names: Mapping[str, int]) -> tuple[int, ...]:
    """Token ids in codebook order. A code without a token, or with two, would silently draw wrong pictures."""
    by_code: dict[int, int] = {}
    for name in names:
        code = image_code(name)
        if code in by_code:
            raise CheckpointError(f"vocabulary: two tokens are named for codebook index {code} (one is {name})")
        if code is not None:
            by_code[code] = names[name]
    missing = next((code for code in range(len(by_code)) if code not in by_code), None)
    if missing is not None:
        raise CheckpointError(f"vocabulary: no token for codebook index {missing} ({image_name(missing)})")
    return tuple(by_code[code] for code in range(len(by_code)))
