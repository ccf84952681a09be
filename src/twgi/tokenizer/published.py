"""What the published code does with text, records and token lists, mistakes included.

Only `--compat reference` uses it, to give what that code gives. Ours differs in `MultimodalTokenizer`: there user text
cannot become a special token, every mark has its picture, and a broken image keeps its place and its ids.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Literal

from PIL import Image
from tokenizers import Tokenizer

from twgi.errors import DataError
from twgi.tokenizer.multimodal import PLACEHOLDER, MultimodalTokenizer, Picture

PublishedSegment = tuple[Literal["text", "image"], list[int]]
"""The kind of a segment and its ids, without boi and eoi."""


@dataclass(frozen=True, kw_only=True)
class PublishedPiece:
    """A run of text, or an image: its mark, and its picture where it could be drawn."""

    text: str
    is_image: bool = False
    picture: Image.Image | None = None


@dataclass(frozen=True)
class PublishedTokenizer:
    """The published way between text, pictures and ids, over the parts of a checkpoint's tokenizer."""

    tokenizer: MultimodalTokenizer

    @cached_property
    def _bpe(self) -> Tokenizer:
        """The text tokenizer as it comes: names of special tokens in a text become those tokens."""
        return Tokenizer.from_str(self.tokenizer.text.bpe.to_str())

    def encode(self, text: str) -> list[int]:
        """Ids of text without bos; a special token's name in it becomes that token."""
        return list(self._bpe.encode(text, add_special_tokens=False).ids)

    def text_of(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ids: image tokens by their names, special tokens and unknown ids left out."""
        known = [token for token in ids if 0 <= token < self.tokenizer.vocab.size]
        return str(self._bpe.decode(known, skip_special_tokens=skip_special))

    def prompt(self, text: str, pictures: Sequence[Picture] = (), *, chat: bool = True) -> list[int]:
        """bos, the text with its pictures, and with `chat` the separator.

        Without pictures, an `<image>` becomes an image of placeholders. Raises `DataError` for fewer than marks.
        """
        end = [self.tokenizer.vocab.separator] if chat else []
        return [self.tokenizer.vocab.bos, *self._filled(text, pictures), *end]

    def record(self, prompt: str, response: str, pictures: Sequence[Picture] = ()) -> list[int]:
        """The row of a training record; marks in its prompt stay placeholders, surplus pictures are ignored."""
        return [*self.prompt(prompt), *self._filled(response, pictures), self.tokenizer.vocab.eos]

    def _filled(self, text: str, pictures: Sequence[Picture]) -> Iterator[int]:
        vocab = self.tokenizer.vocab
        first, *pieces = text.split(PLACEHOLDER)
        if pictures and len(pictures) < len(pieces):
            raise DataError(f"{len(pieces)} {PLACEHOLDER} mark(s) but only {len(pictures)} picture(s)")
        empty = [vocab.boi, *[vocab.placeholder] * vocab.tokens_per_image, vocab.eoi]
        images = map(self.tokenizer.image_block, self.tokenizer.codes(pictures[: len(pieces)]))
        yield from self.encode(first)
        for piece in pieces:
            yield from next(images, empty)
            yield from self.encode(piece)

    def segments(self, ids: Iterable[int]) -> list[PublishedSegment]:
        """Runs of text and images of any ids; they are not checked in any way.

        A boi inside an image makes text of what came so far. An eoi outside an image is text. At the end an image needs
        no eoi; one that has not begun is left out.
        """
        found: list[PublishedSegment] = []
        kind: Literal["text", "image"] = "text"
        run: list[int] = []
        for token in ids:
            if token == self.tokenizer.vocab.boi:
                found += [("text", run)] if run else []
                kind, run = "image", []
            elif token == self.tokenizer.vocab.eoi and kind == "image":
                found.append(("image", run))
                kind, run = "text", []
            else:
                run.append(token)
        return found + ([(kind, run)] if run else [])

    def decode(self, ids: Iterable[int]) -> list[PublishedPiece]:
        """All that the ids say, in pieces whose texts joined are what is published.

        The k-th image is `<image_k>`; `<invalid_image_k>` without a picture where its length is wrong, and
        `<error_image_k>` where one of its ids is beyond the image tokens.
        """
        numbers, segments = count(), self.segments(ids)
        return [
            self._image(run, next(numbers)) if kind == "image" else PublishedPiece(text=self.text_of(run))
            for kind, run in segments
        ]

    def _image(self, run: Sequence[int], number: int) -> PublishedPiece:
        """Ids below the last image token that are none count as code 0."""
        vocab = self.tokenizer.vocab
        if len(run) != vocab.tokens_per_image:
            return PublishedPiece(text=f"<invalid_image_{number}>", is_image=True)
        if not all(0 <= token <= max(vocab.image_tokens) for token in run):
            return PublishedPiece(text=f"<error_image_{number}>", is_image=True)
        codes = [vocab.code(token) if vocab.is_image(token) else 0 for token in run]
        return PublishedPiece(text=f"<image_{number}>", is_image=True, picture=self.tokenizer.picture(codes))
