"""Records -> rows as the published code makes them, mistakes included (`twgi encode --compat reference`).

Special names in a text become those tokens. A mark in a prompt, or in a response without pictures, becomes an image of
placeholders that nothing fills. Pictures beyond the marks are passed over. Nothing is checked, so the rows may be unfit
to train on; this is for comparing with rows that were made there.
"""

from collections.abc import Iterator
from pathlib import Path

from twgi.data.encode import Encoded, Outcome, TooLong
from twgi.data.lines import Fault, Line, Object, read_lines
from twgi.data.records import paths_of, text_of
from twgi.data.rows import Row, cut
from twgi.errors import DataError, TwgiError
from twgi.tokenizer.image import open_picture
from twgi.tokenizer.multimodal import PLACEHOLDER, Codes, MultimodalTokenizer
from twgi.tokenizer.published import PublishedTokenizer

KEYS = ("prompt", "response", "images")


def encode_published(
    path: Path, tokenizer: MultimodalTokenizer, *, limit: int | None = None, images: Path | None = None
) -> Iterator[Outcome]:
    """As `twgi.data.encode.encode_file`, in the published way, of records with `prompt`, `response` and `images`."""
    published = PublishedTokenizer(tokenizer)
    for line in read_lines(path):
        yield line if isinstance(line, Fault) else _outcome(line, published, limit, images or line.folder)


def _outcome(line: Line, published: PublishedTokenizer, limit: int | None, folder: Path) -> Outcome:
    value, tokenizer = line.value, published.tokenizer
    try:
        pictures = _pictures(value, tokenizer, folder)
        tokens = published.record(text_of(value, "prompt"), text_of(value, "response"), pictures)
    except TwgiError as error:
        return Fault(where=line.where, reason=str(error))
    if limit is not None and len(tokens) > limit:
        return TooLong(where=line.where, tokens=len(tokens))
    said = {key: value[key] for key in KEYS if key in value}
    return Encoded(row=Row.of(cut(tokens, tokenizer.vocab), source=line.where), published={**said, "tokens": tokens})


def _pictures(value: Object, tokenizer: MultimodalTokenizer, folder: Path) -> list[Codes]:
    """Codes of as many pictures as the response has marks."""
    if "images" not in value:
        return []
    paths = paths_of(value, "images")
    if not paths:
        raise DataError('"images" is empty; the published code needs a picture, or no such key')
    wanted = paths[: text_of(value, "response").count(PLACEHOLDER)]
    return [tokenizer.codes([open_picture(folder / path)])[0] for path in wanted]
