"""Where images and text in a sequence of ids end, and what is malformed in them: of what a model wrote, and of rows to
train on."""

from collections.abc import Iterator, Sequence

from twgi.trace import Anomaly
from twgi.vocab import Vocab


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
        what = (
            "another image begins" if nested else "the sequence ends" if end == len(ids) else f"id {ids[end]} follows"
        )
        kind = "boi_in_image" if nested else "missing_eoi"
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
