"""Plain text <-> token ids, by the BPE of a checkpoint's `tokenizer.json`.

Text that a user wrote can never become a special, reserved or image token: whatever spelling reaches one (a special
token's name, a merge, a whole-word entry of the vocabulary) is spelled in smaller pieces instead.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from twgi.errors import CheckpointError, DataError, PromptError, TwgiError
from twgi.files import parse_object, read_text
from twgi.vocab import is_control_name

MAX_BYTES, MAX_TOKENS = 32 * 2**20, 2**18  # of a tokenizer.json; four times as many as Chameleon's
MAX_TEXT = 2**18  # characters that are encoded at once
MAX_GROWTH = 24  # how many times longer a text may become before it is cut into tokens
CUTS = {"Sequence", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "Strip", "Fuse", "ByteFallback"}
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class TextTokenizer:
    """A BPE tokenizer that never yields an id of `forbidden`."""

    bpe: Tokenizer
    forbidden: frozenset[int] = field(repr=False)

    @classmethod
    def from_file(cls, path: str | Path) -> "TextTokenizer":
        """Load a `tokenizer.json`; raises `CheckpointError` where it is missing or not one."""
        try:
            return cls.from_json(read_text(Path(path), most=MAX_BYTES))
        except TwgiError as error:
            raise CheckpointError(str(error) if str(path) in str(error) else f"{path}: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> "TextTokenizer":
        """Load from the text of a `tokenizer.json`."""
        try:
            content = parse_object(text)
            _check(content)
        except (DataError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"not a tokenizer.json ({error})") from error
        with _panics("not a tokenizer.json", CheckpointError):
            bpe = Tokenizer.from_str(text)
        return cls.from_bpe(bpe)

    @classmethod
    def from_bpe(cls, bpe: Tokenizer) -> "TextTokenizer":
        """Wrap a tokenizer of the tokenizers library; its own truncation, padding and special matching are set off."""
        bpe.encode_special_tokens = True
        bpe.no_truncation()
        bpe.no_padding()
        own = cls(bpe, frozenset(i for name, i in bpe.get_vocab().items() if is_control_name(name)))
        return own.forbidding(own.special_ids)

    @property
    def names(self) -> dict[str, int]:
        """Name -> id of every token, special ones included."""
        return dict(self.bpe.get_vocab(with_added_tokens=True))

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that the tokenizer itself lists as special."""
        return frozenset(i for i, token in self.bpe.get_added_tokens_decoder().items() if token.special)

    def forbidding(self, ids: Iterable[int]) -> "TextTokenizer":
        """The same tokenizer with more ids that text may not use."""
        return replace(self, forbidden=self.forbidden | frozenset(ids))

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, without bos.

        Raises `PromptError` for a text that is too long, or a character that the vocabulary cannot write.
        """
        if len(text) > MAX_TEXT:
            raise PromptError(f"the text is too long: {len(text)} characters, and at most {MAX_TEXT} are read")
        short = ascii(text if len(text) <= 40 else text[:40] + "...")
        try:
            with _panics(f"this tokenizer cannot write {short}", PromptError):
                encoding = self.bpe.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeError) as error:
            raise PromptError(f"the text is not valid Unicode ({short})") from error
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        forbidden = [span for token, span in spans if token in self.forbidden]
        return self._encode_cut(text, forbidden) if forbidden else list(encoding.ids)

    def _encode_cut(self, text: str, forbidden: Sequence[tuple[int, int]]) -> list[int]:
        """Encode with a cut inside each span that would have become a forbidden token."""
        single = next((text[start:end] for start, end in forbidden if end - start < 2), None)
        if single is not None:
            raise PromptError(f"this tokenizer has no token for {single!r}; leave it out of the prompt")
        cuts = [0, *((start + end) // 2 for start, end in forbidden), len(text)]
        return [token for start, end in pairwise(cuts) for token in self.encode(text[start:end])]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        with _panics("this tokenizer cannot read its ids", CheckpointError):
            return str(self.bpe.decode(list(ids), skip_special_tokens=False))

    def stream(self) -> "TextStream":
        """A fresh decoder for ids that arrive one at a time."""
        return TextStream(self)


class TextStream:
    """Ids one at a time -> pieces of text whose concatenation (with `flush`) is the text of all ids.

    A character whose bytes are spread over several tokens is held back until it is whole.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._said: list[int] = []  # the ids of the last piece: what the next one is decoded in the context of
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that this id completes; empty while a character is unfinished."""
        self._held.append(token)
        piece = self._pending()
        return "" if piece.endswith(_UNFINISHED) else self._release(piece)

    def flush(self) -> str:
        """What is still held back, at the end of the text."""
        return self._release(self._pending()) if self._held else ""

    def _pending(self) -> str:
        before = self._tokenizer.decode(self._said) if self._said else ""
        return self._tokenizer.decode(self._said + self._held)[len(before) :]

    def _release(self, piece: str) -> str:
        self._said, self._held = self._held, []
        return piece


@contextmanager
def _panics(what: str, kind: type[TwgiError]) -> Iterator[None]:
    """What the tokenizers library raises (bare `Exception`, or a panic that is not even one) as the user's error."""
    try:
        yield
    except BaseException as error:
        own = type(error) is Exception or type(error).__name__ == "PanicException"
        if not own:
            raise
        raise kind(f"{what} ({str(error)[:200]})") from None


def _check(content: Mapping[str, Any]) -> None:
    """Refuse what is no BPE, has too many tokens, or has steps that together make a text many times as long."""
    model = content.get("model") or {}
    if model.get("type", "BPE") != "BPE":
        raise CheckpointError("its model must be BPE")
    most = max(len(part or ()) for part in (model.get("vocab"), model.get("merges"), content.get("added_tokens")))
    if most > MAX_TOKENS:
        raise CheckpointError(f"{most} tokens; at most {MAX_TOKENS} are read")
    encoding = math.prod(_growth(content.get(part)) for part in ("normalizer", "pre_tokenizer", "post_processor"))
    growth = max(encoding, _growth(content.get("decoder")))
    if growth > MAX_GROWTH:
        raise CheckpointError(f"it makes a text up to {growth} times as long; at most {MAX_GROWTH} times is read")


def _growth(step: Any) -> int:
    """How many times longer at most a text becomes by a step of a tokenizer.json, and those inside it."""
    if isinstance(step, list):
        return math.prod(map(_growth, step))
    if not isinstance(step, dict):
        return 1
    kind, inside = step.get("type"), [value for value in step.values() if isinstance(value, list | dict)]
    if kind == "TemplateProcessing":
        return sum("Sequence" in piece for piece in step["single"])
    if kind in ("Replace", "Prepend"):
        pattern, content = step.get("pattern", {}).get("String", "?"), str(step.get("content", step.get("prepend")))
        return max(1, -(-len(content.encode()) // max(1, len(pattern.encode()))))
    return math.prod(map(_growth, inside)) * (1 if kind in CUTS else 2)
