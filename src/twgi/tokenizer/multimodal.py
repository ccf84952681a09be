"""Text and pictures together <-> token ids: the one place that knows how a sequence is laid out.

A prompt is `bos, text and images, separator`; what follows is text and images, ended by eos. An image is boi, exactly
`tokens_per_image` image tokens in raster order, eoi. Prompts for data, training and inference all come from here.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from PIL import Image

from twgi.errors import CheckpointError, ImageError, PromptError
from twgi.tokenizer.text import TextTokenizer
from twgi.trace import Anomaly, ImageSegment, Segment, TextSegment
from twgi.vocab import Vocab

if TYPE_CHECKING:
    from twgi.tokenizer.image import ImageTokenizer

PLACEHOLDER = "<image>"
"""Where a prompt's text says that a picture stands."""


def check_prompt(text: str, pictures: int) -> None:
    """Refuse a prompt without words, one that UTF-8 cannot hold, and one with another number of marks than pictures.

    Without any mark pictures stand at its end, see `place_pictures`. Raises `PromptError`.
    """
    if not text.strip():
        raise PromptError("the prompt is empty: say what to think about")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"the prompt is not valid Unicode at character {error.start}") from None
    places = text.count(PLACEHOLDER)
    if places and places != pictures:
        has = f"{places} {PLACEHOLDER} and {pictures} pictures"
        raise PromptError(f"the prompt has {has}: give one picture for each {PLACEHOLDER}")


def place_pictures(text: str, count: int) -> str:
    """The prompt with a place for each picture: where it says `<image>`, else at its end, as in the reference."""
    return text if PLACEHOLDER in text else text + PLACEHOLDER * count


Codes = Sequence[int]
Picture = Image.Image | Codes
"""A picture as pixels, or already as its codebook indices in raster order."""


@dataclass(frozen=True)
class MultimodalTokenizer:
    """Segments <-> ids. Without an image tokenizer, pictures must be given as codes, and none can be drawn."""

    vocab: Vocab
    text: TextTokenizer
    image: "ImageTokenizer | None" = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.forbidding(self.vocab.control_ids))

    @property
    def draws(self) -> bool:
        """Whether pictures can be drawn: some checkpoints have no image decoder, or no image part at all."""
        return self.image is not None and self.image.draws

    @cached_property
    def sha256(self) -> str:
        """Of what every id is called, and of the image tokenizer: rows of ids belong to the tokenizer of this hash."""
        said = [sorted(self.text.names.items()), self.image and self.image.sha256]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def encode_prompt(self, text: str, pictures: Sequence[Picture] = ()) -> list[int]:
        """bos, the text with each literal `<image>` replaced by one of the pictures, separator.

        Raises `PromptError` as `check_prompt` does, and where there are pictures and no mark.
        """
        check_prompt(text, len(pictures))
        pieces = text.split(PLACEHOLDER)
        if len(pieces) - 1 != len(pictures):
            raise PromptError(f"the prompt has no {PLACEHOLDER} and {len(pictures)} pictures")
        images = [self.image_block(codes) for codes in self.codes(pictures)]
        texts = [self.text.encode(piece) for piece in pieces]
        body = chain(texts[0], *(chain(image, words) for image, words in zip(images, texts[1:], strict=True)))
        return [self.vocab.bos, *body, self.vocab.separator]

    def encode(self, segments: Iterable[str | Picture | Segment]) -> list[int]:
        """Ids of text (as `str`), pictures, and segments in a row; a segment that has `tokens` gives exactly those.

        No bos, separator or eos is added. Here text is text: a literal `<image>` in it is not a mark.
        """
        return [token for segment in segments for token in self._segment_ids(segment)]

    def _segment_ids(self, segment: str | Picture | Segment) -> Sequence[int]:
        if isinstance(segment, str):
            return self.text.encode(segment)
        if isinstance(segment, TextSegment):
            return segment.tokens or self.text.encode(segment.text)
        if isinstance(segment, ImageSegment):
            if segment.tokens:
                return segment.tokens
            if segment.picture is None:
                raise ImageError("an image segment has neither tokens nor a picture to encode")
            segment = segment.picture
        return self.image_block(self.codes([segment])[0])

    def codes(self, pictures: Sequence[Picture]) -> list[Codes]:
        """Codebook indices of each picture; those given as pixels are encoded in one batch."""
        drawn = [picture for picture in pictures if isinstance(picture, Image.Image)]
        encoded = iter(self._need_image("read").encode(drawn) if drawn else ())
        return [next(encoded) if isinstance(picture, Image.Image) else picture for picture in pictures]

    def image_block(self, codes: Codes) -> list[int]:
        """boi, the image tokens of these codebook indices, eoi; raises `ImageError` unless it is one whole image."""
        vocab = self.vocab
        if len(codes) != vocab.tokens_per_image:
            raise ImageError(f"an image is {vocab.tokens_per_image} codes, got {len(codes)}")
        try:
            return [vocab.boi, *(vocab.token(int(code)) for code in codes), vocab.eoi]
        except IndexError as error:
            most = len(vocab.image_tokens) - 1
            raise ImageError(f"codes must be in 0..{most}, got {min(codes)}..{max(codes)}") from error

    def decode(self, ids: Iterable[int]) -> tuple[tuple[Segment, ...], tuple[Anomaly, ...]]:
        """Segments of any ids at all, and what is malformed in them. Never raises; no id and no text is lost.

        The `tokens` of the segments joined are the ids. An image that is not whole is a segment too (`codes_of` gives
        None for it). Also whole rows are understood: after a leading bos, one separator may end the prompt.
        """
        tokens = [int(token) for token in ids]
        segments: list[Segment] = []
        anomalies: list[Anomaly] = []
        for start, end in self._runs(tokens):
            run = tokens[start:end]
            if run[0] == self.vocab.boi:
                segments.append(ImageSegment(tokens=tuple(run)))
                anomalies += image_anomalies(tokens, start, end, self.vocab)
            else:
                words = self.text.decode([token for token in run if self.vocab.is_text(token)])
                segments.append(TextSegment(text=words, tokens=tuple(run)))
                anomalies += self._text_anomalies(run, start, tokens)
        return tuple(segments), tuple(anomalies)

    def codes_of(self, segment: Segment) -> tuple[int, ...] | None:
        """Codebook indices of an image segment that is whole; None for any other segment."""
        if not isinstance(segment, ImageSegment):
            return None
        codes = tuple(self.vocab.code(token) for token in segment.tokens if self.vocab.is_image(token))
        return codes if len(codes) == self.vocab.tokens_per_image else None

    def draw(self, segments: Iterable[Segment]) -> tuple[Segment, ...]:
        """The same segments, with a `picture` in every image that is whole; all are drawn in one batch."""
        kept = tuple(segments)
        codes = [self.codes_of(segment) for segment in kept]
        whole = [own for own in codes if own]
        pictures = iter(self._need_image("draw").decode(whole) if whole else ())
        return tuple(
            replace(segment, picture=next(pictures)) if isinstance(segment, ImageSegment) and own else segment
            for segment, own in zip(kept, codes, strict=True)
        )

    def picture(self, codes: Codes) -> Image.Image:
        """The picture that the codes of one whole image are of."""
        return self._need_image("draw").decode([codes])[0]

    def _runs(self, tokens: Sequence[int]) -> Iterator[tuple[int, int]]:
        """[start, end) of each segment: an image is boi, the image tokens after it, and eoi if that is what follows."""
        start = 0
        while start < len(tokens):
            is_image = tokens[start] == self.vocab.boi
            end = end_of_image(tokens, start, self.vocab) if is_image else self._end_of_text(tokens, start)
            yield start, end
            start = end

    def _end_of_text(self, tokens: Sequence[int], start: int) -> int:
        for end in range(start, len(tokens)):
            if tokens[end] == self.vocab.boi:
                return end
            if tokens[end] == self.vocab.separator and start == 0 and tokens[0] == self.vocab.bos:
                return end + 1
        return len(tokens)

    def _text_anomalies(self, run: Sequence[int], start: int, tokens: Sequence[int]) -> Iterator[Anomaly]:
        """One anomaly for each stretch of ids of the same wrong kind."""
        kinds = (self._wrong_in_text(token, start + index, tokens) for index, token in enumerate(run))
        for kind, group in groupby(enumerate(kinds), key=itemgetter(1)):
            places = [index for index, _ in group]
            if kind is not None:
                yield misplaced(kind, start + places[0], [run[index] for index in places])

    def _wrong_in_text(self, token: int, position: int, tokens: Sequence[int]) -> str | None:
        """None for text, bos at the start, eos at the end, and the first separator of a row that starts with bos."""
        vocab = self.vocab
        may_stand = vocab.is_text(token) or (token, position) in ((vocab.bos, 0), (vocab.eos, len(tokens) - 1))
        if token == vocab.separator:
            may_stand = tokens[0] == vocab.bos and tokens.index(token) == position
        return None if may_stand else kind_of_misplaced(token, vocab)

    def _need_image(self, to_do: str) -> "ImageTokenizer":
        if self.image is None:
            raise CheckpointError(f"this checkpoint has no image tokenizer, so it cannot {to_do} pictures")
        if to_do == "draw" and not self.image.draws:
            raise CheckpointError("this checkpoint has no image decoder, so it cannot draw; give vqgan.ckpt with --vq")
        return self.image


def end_of_image(ids: Sequence[int], start: int, vocab: Vocab) -> int:
    """Where the image that begins with the boi at `start` ends: after its image tokens, and the eoi if one follows."""
    end = start + 1
    while end < len(ids) and vocab.is_image(ids[end]):
        end += 1
    return end + (end < len(ids) and ids[end] == vocab.eoi)


def image_anomalies(ids: Sequence[int], start: int, end: int, vocab: Vocab) -> Iterator[Anomaly]:
    """What is wrong with the image [start, end): not as many image tokens as there must be, no eoi."""
    wanted, closed = vocab.tokens_per_image, ids[end - 1] == vocab.eoi
    count = end - start - 1 - closed
    if count != wanted:
        kind = "short_image" if count < wanted else "long_image"
        yield Anomaly(position=start, kind=kind, detail=f"{count} image tokens instead of {wanted}")
    if not closed:
        nested = end < len(ids) and ids[end] == vocab.boi
        kind, what = ("boi_in_image", "another image begins") if nested else ("missing_eoi", "the sequence ends")
        if end < len(ids) and not nested:
            what = f"id {ids[end]} follows"
        yield Anomaly(position=end, kind=kind, detail=f"{what} before the end of the image")


def kind_of_misplaced(token: int, vocab: Vocab) -> str:
    """What to call an id that stands where only text may stand."""
    if not 0 <= token < vocab.size:
        return "unknown_id"
    if vocab.is_image(token):
        return "image_id_in_text"
    names = {vocab.eoi: "eoi_in_text", vocab.eos: "eos_before_end"}
    return names.get(token, "special_id_in_text" if token in vocab.special.values() else "reserved_id_in_text")


def misplaced(kind: str, position: int, ids: Sequence[int]) -> Anomaly:
    """Neighbouring ids of one kind that stand where only text may stand."""
    what = f"id {ids[0]}" if len(ids) == 1 else f"{len(ids)} ids from {ids[0]}"
    return Anomaly(position=position, kind=kind, detail=f"{what} where only text may stand")
