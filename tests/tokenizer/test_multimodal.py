"""Segments and ids: well-formed both ways, and nothing lost of what is malformed."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.thinking.tiny import other_codebook
from tests.thinking.tiny import tokenizer as whole_tokenizer
from tests.tokenizer.tiny import CODES, CONTROL, KINDS, TOKENS_PER_IMAGE, multimodal_tokenizer

from twgi.errors import CheckpointError, ImageError, PromptError
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.trace import ImageSegment, TextSegment
from twgi.vocab import Vocab

TOKENIZER = multimodal_tokenizer()
VOCAB = TOKENIZER.vocab
WHOLE = tuple(code % CODES for code in range(TOKENS_PER_IMAGE))
IMAGE = TOKENIZER.image_block(WHOLE)

CODE = st.integers(min_value=0, max_value=CODES - 1)
CODES_OF_AN_IMAGE = st.lists(CODE, min_size=TOKENS_PER_IMAGE, max_size=TOKENS_PER_IMAGE)
TEXT = st.text(max_size=12) | st.sampled_from(CONTROL)
ANY_ID = st.sampled_from([*VOCAB.special.values(), *VOCAB.image_tokens, *VOCAB.text_ids[:40], *VOCAB.reserved])
ANY_IDS = st.lists(ANY_ID | st.integers(min_value=-3, max_value=VOCAB.size + 3) | st.just(2**70), max_size=60)


def joined(segments: Sequence[TextSegment | ImageSegment]) -> list[int]:
    return [token for segment in segments for token in segment.tokens]


def kinds(ids: Sequence[int]) -> list[tuple[str, int]]:
    return [(anomaly.kind, anomaly.position) for anomaly in TOKENIZER.decode(ids)[1]]


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
def test_a_prompt_is_bos_text_separator(kind: str, text: str) -> None:
    tokenizer = multimodal_tokenizer(kind)
    words = f"x{text.replace('<image>', '')}"
    first, *body, last = tokenizer.encode_prompt(words)
    assert (first, last) == (tokenizer.vocab.bos, tokenizer.vocab.separator)
    assert all(tokenizer.vocab.is_text(token) for token in body)
    assert tokenizer.text.decode(body) == words


def test_pictures_stand_where_the_marks_are() -> None:
    ids = TOKENIZER.encode_prompt("one <image> two<image>", [WHOLE, WHOLE[::-1]])
    one, two = TOKENIZER.text.encode("one "), TOKENIZER.text.encode(" two")
    assert ids == [VOCAB.bos, *one, *IMAGE, *two, *TOKENIZER.image_block(WHOLE[::-1]), VOCAB.separator]


@pytest.mark.parametrize(("text", "pictures"), [("a <image>", 0), ("a", 1), ("<image><image>", 1)])
def test_marks_and_pictures_must_be_as_many(text: str, pictures: int) -> None:
    with pytest.raises(PromptError, match=f"{text.count('<image>') or 'no'} <image> and {pictures} picture"):
        TOKENIZER.encode_prompt(text, [WHOLE] * pictures)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_prompt_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        TOKENIZER.encode_prompt(text)


@pytest.mark.parametrize("codes", [WHOLE[:-1], (*WHOLE, 0), (), (CODES, *WHOLE[1:]), (-1, *WHOLE[1:])])
def test_only_a_whole_image_is_encoded(codes: tuple[int, ...]) -> None:
    with pytest.raises(ImageError):
        TOKENIZER.encode([codes])


def test_without_an_image_tokenizer_pixels_are_refused() -> None:
    with pytest.raises(CheckpointError, match="cannot read pictures"):
        TOKENIZER.encode([Image.new("RGB", (8, 8))])
    with pytest.raises(CheckpointError, match="cannot draw pictures"):
        TOKENIZER.draw([ImageSegment(tokens=tuple(IMAGE))])


@given(st.lists(TEXT | CODES_OF_AN_IMAGE, max_size=5), st.booleans())
def test_what_is_well_formed_goes_both_ways_without_anomaly(parts: list[str | list[int]], ended: bool) -> None:
    ids = TOKENIZER.encode(parts) + [VOCAB.eos] * ended
    segments, anomalies = TOKENIZER.decode(ids)
    assert anomalies == ()
    assert TOKENIZER.encode(segments) == joined(segments) == ids
    assert "".join(s.text for s in segments if isinstance(s, TextSegment)) == "".join(
        part for part in parts if isinstance(part, str)
    )
    assert [list(codes) for s in segments if (codes := TOKENIZER.codes_of(s))] == [
        part for part in parts if isinstance(part, list)
    ]


def test_a_whole_row_is_well_formed() -> None:
    row = [*TOKENIZER.encode_prompt("draw <image> again", [WHOLE]), *IMAGE, *TOKENIZER.encode(["done"]), VOCAB.eos]
    segments, anomalies = TOKENIZER.decode(row)
    assert anomalies == ()
    assert [s.text if isinstance(s, TextSegment) else "picture" for s in segments] == [
        "draw ",
        "picture",
        " again",
        "picture",
        "done",
    ]


@given(ANY_IDS)
def test_any_ids_decode_and_nothing_is_lost(ids: list[int]) -> None:
    segments, anomalies = TOKENIZER.decode(ids)
    assert TOKENIZER.encode(segments) == joined(segments) == ids
    said = "".join(s.text for s in segments if isinstance(s, TextSegment))
    runs = [[t for t in s.tokens if VOCAB.is_text(t)] for s in segments if isinstance(s, TextSegment)]
    assert sum(map(len, runs)) == sum(VOCAB.is_text(token) for token in ids)
    assert said == "".join(map(TOKENIZER.text.decode, runs))
    assert all(0 <= anomaly.position <= len(ids) for anomaly in anomalies)
    assert [a.position for a in anomalies] == sorted(a.position for a in anomalies)


@given(ANY_IDS)
def test_ids_have_anomalies_just_when_they_are_malformed(ids: list[int]) -> None:
    segments, anomalies = TOKENIZER.decode(ids)
    images = [s for s in segments if isinstance(s, ImageSegment)]
    whole = all(TOKENIZER.codes_of(s) and s.tokens[-1] == VOCAB.eoi for s in images)
    words = [t for s in segments if isinstance(s, TextSegment) for t in s.tokens]
    allowed = {VOCAB.bos, VOCAB.separator} if ids[:1] == [VOCAB.bos] else set()
    if not anomalies:
        assert whole
        assert all(VOCAB.is_text(t) or t in allowed for t in words[: len(words) - (ids[-1:] == [VOCAB.eos])])
    if all(VOCAB.is_text(t) for t in words) and whole:
        assert not anomalies


A, B = TOKENIZER.encode(["a"]), TOKENIZER.encode(["b"])
BOI, EOI, CODE_ID = VOCAB.boi, VOCAB.eoi, VOCAB.image_tokens[3]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([*A, *IMAGE[:-1]], [("missing_eoi", 11)]),
        ([*A, *IMAGE[:-1], *B], [("missing_eoi", 11)]),
        ([*A, *IMAGE[:-2], EOI, *B], [("short_image", 1)]),
        ([*IMAGE[:-1], CODE_ID, EOI], [("long_image", 0)]),
        ([*A, BOI], [("short_image", 1), ("missing_eoi", 2)]),
        ([BOI, EOI], [("short_image", 0)]),
        ([*A, BOI, CODE_ID, *IMAGE], [("short_image", 1), ("boi_in_image", 3)]),
        ([BOI, *IMAGE], [("short_image", 0), ("boi_in_image", 1)]),
        ([*A, EOI, *B], [("eoi_in_text", 1)]),
        ([*IMAGE, EOI, EOI, *B], [("eoi_in_text", 11)]),
        ([*A, CODE_ID, CODE_ID, *B, CODE_ID], [("image_id_in_text", 1), ("image_id_in_text", 4)]),
        ([BOI, CODE_ID, *A, CODE_ID, EOI], [
            ("short_image", 0), ("missing_eoi", 2), ("image_id_in_text", 3), ("eoi_in_text", 4)]),
        ([VOCAB.eos, *A], [("eos_before_end", 0)]),
        ([*A, VOCAB.pad, VOCAB.separator], [("special_id_in_text", 1)]),
        ([*A, VOCAB.bos], [("special_id_in_text", 1)]),
        ([VOCAB.bos, VOCAB.separator, VOCAB.separator], [("special_id_in_text", 2)]),
        ([*A, VOCAB.reserved[0]], [("reserved_id_in_text", 1)]),
        ([*A, VOCAB.size, -1, *B], [("unknown_id", 1)]),
    ],
)  # fmt: skip
def test_each_anomaly_is_listed_with_its_position(ids: list[int], expected: list[tuple[str, int]]) -> None:
    assert kinds(ids) == expected
    segments, _ = TOKENIZER.decode(ids)
    said = "".join(segment.text for segment in segments if isinstance(segment, TextSegment))
    assert said == TOKENIZER.text.decode([token for token in ids if VOCAB.is_text(token)])


def test_an_image_that_is_not_whole_is_marked_so_and_not_filled_up() -> None:
    (segment,), _ = TOKENIZER.decode(IMAGE[:-2])
    assert isinstance(segment, ImageSegment)
    assert TOKENIZER.codes_of(segment) is None
    assert TOKENIZER.draw([segment]) == (segment,)


class FakeVQ(ImageTokenizer):
    """Pictures of one grey value: the codes are all that value."""

    draws = True

    def encode(self, pictures: Sequence[Image.Image]) -> list[list[int]]:
        return [[int(picture.convert("L").resize((1, 1)).tobytes()[0])] * TOKENS_PER_IMAGE for picture in pictures]

    def decode(self, codes: Sequence[Sequence[int]]) -> list[Image.Image]:
        return [Image.new("RGB", (3, 3), (row[0],) * 3) for row in codes]


def test_pixels_and_codes_may_be_mixed_and_segments_are_drawn_in_order() -> None:
    no_vq: Any = None
    tokenizer = MultimodalTokenizer(VOCAB, TOKENIZER.text, FakeVQ(no_vq, 3))
    grey, seven = Image.new("RGB", (5, 5), (4, 4, 4)), [7] * TOKENS_PER_IMAGE
    ids = tokenizer.encode([grey, "then", seven, ImageSegment(picture=grey)])
    drawn = tokenizer.draw(tokenizer.decode([*ids, BOI])[0])
    values = [s.picture.getpixel((0, 0)) for s in drawn if isinstance(s, ImageSegment) and s.picture]
    assert values == [(4, 4, 4), (7, 7, 7), (4, 4, 4)]
    assert isinstance(drawn[-1], ImageSegment)
    assert drawn[-1].picture is None


def test_a_segment_without_tokens_and_picture_cannot_be_encoded() -> None:
    with pytest.raises(ImageError, match="neither tokens nor a picture"):
        TOKENIZER.encode([ImageSegment()])


def test_segments_agree_with_the_reference_where_it_is_right(shared: Callable[[str], Path]) -> None:
    """Differences, all on purpose: an image ends where its image tokens end, and no empty or nested one is dropped."""
    tokenizer, cases = _golden(shared)
    ours_differ = {"missing_eoi_then_text", "nested_boi", "boi_boi", "ends_in_boi", "text_token_inside"}
    for case in cases["segments"]:
        segments, anomalies = tokenizer.decode(case["tokens"])
        marks = {tokenizer.vocab.boi, tokenizer.vocab.eoi}
        found = [
            ["text", list(s.tokens)]
            if isinstance(s, TextSegment)
            else ["image", [token for token in s.tokens if token not in marks]]
            for s in segments
        ]
        if case["name"] not in ours_differ | {"low_token_inside"}:
            assert found == case["segments"], case["name"]
        if case["name"] in ours_differ:
            assert anomalies


def test_prompts_are_those_of_the_reference_records(shared: Callable[[str], Path]) -> None:
    tokenizer, cases = _golden(shared)
    for record in cases["records"][:2]:
        ids = tokenizer.encode_prompt(record["prompt"])
        assert record["tokens"][: len(ids)] == ids
    tokens = cases["records"][0]["tokens"]
    images = [tokenizer.codes_of(s) for s in tokenizer.decode(tokens)[0] if isinstance(s, ImageSegment)]
    pieces = cases["records"][0]["response"].split("<image>")
    response = [part for pair in zip(pieces, [*images, ""], strict=True) for part in pair if part]
    prompt = tokenizer.encode_prompt(cases["records"][0]["prompt"])
    assert [*prompt, *tokenizer.encode(response), tokenizer.vocab.eos] == tokens


def _golden(shared: Callable[[str], Path]) -> tuple[MultimodalTokenizer, Any]:
    text = TextTokenizer.from_file(shared("golden/checkpoint_fork/tokenizer.json"))
    vocab = Vocab.from_names(text.names, tokens_per_image=16, size=700, special=text.special_ids)
    return MultimodalTokenizer(vocab, text), json.loads(shared("golden/cases.json").read_text())["h"]


def test_a_tokenizer_is_its_names_its_encoder_its_codebook_and_its_scale_of_pixels() -> None:
    ours = whole_tokenizer()
    assert ours.image is not None
    others = [multimodal_tokenizer(), other_codebook(ours), replace(ours, image=replace(ours.image, reference=True))]
    assert len({ours.sha256, *(other.sha256 for other in others)}) == 4
    vq = copy.deepcopy(ours.image.vq)
    for name, weight in vq.named_parameters():
        if name.startswith(("decoder.", "post_quant_conv.")):
            weight.data.zero_()
    assert replace(ours, image=replace(ours.image, vq=vq.bfloat16())).sha256 == ours.sha256, "it means the same codes"
