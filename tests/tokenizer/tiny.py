"""A vocabulary of 16 image codes with shuffled names, and byte-level BPEs over it, well- and ill-behaved."""

import json
from functools import cache
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.vocab import Vocab, image_name

CODES, TOKENS_PER_IMAGE = 16, 9
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
MARKS = ["<eoss>", "<racm3:break>", "<reserved08704>", "<reserved08705>", "<reserved08706>", "<image>"]
IMAGES = [image_name(code * 7 % CODES) for code in range(CODES)]
CONTROL = [*SPECIAL, *IMAGES, *MARKS]
UNNAMED = 5  # ids at the end of the model's vocabulary that no token is named for
KINDS = ("special", "added", "entries", "merges", "whole words")


def tokenizer_json(kind: str = "special") -> str:
    """A tokenizer whose control tokens are listed as special, as added, or not at all; or which merges reach."""
    merges = [("a", "b"), ("Ġ", "a"), ("Ġa", "b"), ("r", "e"), ("re", "d"), ("Ġ", "red")]
    if kind == "merges":
        merges += [(name[:end], name[end]) for name in CONTROL for end in range(1, len(name))]
    merges = list(dict.fromkeys(merges))
    names = [*CONTROL, *sorted(ByteLevel.alphabet()), *(left + right for left, right in merges)]
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    added = [_added(vocab[name], name, special=kind == "special") for name in (*SPECIAL, *MARKS)]
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": added if kind in ("special", "added") else [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": kind == "whole words"},
    }
    return json.dumps(tokenizer)


def _added(token: int, name: str, *, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": name, "special": special, **flags}


def text_tokenizer(kind: str = "special") -> TextTokenizer:
    return TextTokenizer.from_json(tokenizer_json(kind))


@cache
def multimodal_tokenizer(kind: str = "special") -> MultimodalTokenizer:
    """Without an image tokenizer."""
    text = text_tokenizer(kind)
    size = len(text.names) + UNNAMED
    vocab = Vocab.from_names(text.names, tokens_per_image=TOKENS_PER_IMAGE, size=size, special=text.special_ids)
    return MultimodalTokenizer(vocab, text)
