"""Token lists -> what they say: text, pictures, and what is malformed in them.

Read are lines of the published code's inference (`response` is a list of ids, prompt and answer together), lines with
`tokens`, and traces. Only a tokenizer is needed, no language model.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from twgi.data.rows import scan
from twgi.errors import DataError, TraceError
from twgi.files import Fault, Line, Object, read_lines
from twgi.thinking.modes import MODES, Mode, with_kinds
from twgi.tokenizer.multimodal import PLACEHOLDER, MultimodalTokenizer
from twgi.tokenizer.published import PublishedTokenizer
from twgi.trace import Anomaly, ImageSegment, ModelId, Segment, TextSegment, Trace

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a line brings: ids, its own words for the prompt, and the whole trace where it is one."""

    ids: tuple[int, ...]
    prompt: str = ""
    trace: Trace | None = None


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What one line says: as a line of `decoded.jsonl`, and as the thought that a page shows."""

    where: str
    line: Object
    trace: Trace


def read_source(line: Line) -> Source:
    """The ids of a line. Raises `DataError` where it has none."""
    value = line.value
    if "model" in value and "segments" in value:
        try:
            trace = Trace.from_json(value).with_pictures(line.folder)
        except TraceError as error:
            raise DataError(str(error)) from error
        return Source(ids=trace.tokens, prompt=trace.prompt, trace=trace)
    ids = value.get("tokens", value.get("response"))
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise DataError('no ids: expected a list of whole numbers under "tokens" or "response", or a trace')
    prompt = value.get("prompt", "")
    if not isinstance(prompt, str):
        raise DataError('"prompt" must be a text')
    return Source(ids=tuple(ids), prompt=prompt)


@dataclass(frozen=True, kw_only=True)
class TokenDecoder:
    """Lines of ids -> `Decoded`. `model` is whose tokenizer it is; with `reference`, cut and marked as published."""

    tokenizer: MultimodalTokenizer
    model: ModelId
    reference: bool = False

    @cached_property
    def _published(self) -> PublishedTokenizer:
        return PublishedTokenizer(self.tokenizer)

    def decode_file(self, path: Path) -> Iterator[Decoded | Fault]:
        """What each line of a file says, one in memory at a time. Raises `DataError` where it cannot be read."""
        for number, line in enumerate(read_lines(path)):
            if isinstance(line, Fault):
                yield line
                continue
            try:
                yield self.decode_line(line, f"{number:05}")
            except DataError as error:
                yield Fault(where=line.where, reason=str(error))

    def decode_line(self, line: Line, stem: str) -> Decoded:
        """What one line says; its pictures are named after `stem`. Raises `DataError` where it has no ids."""
        decode = self._as_published if self.reference else self._as_ours
        return decode(line.where, read_source(line), stem)

    def _as_ours(self, where: str, source: Source, stem: str) -> Decoded:
        read = _read(source, self.tokenizer)
        mode, asked = mode_of(read.prompt or source.prompt)
        inputs = [replace(image, role="input", tokens=()) for image in _images(self.tokenizer.draw(read.inputs))]
        segments = self.tokenizer.draw(read.segments)
        drawn = _as_in(source.trace, segments) if source.trace else with_kinds(segments, mode)
        trace = source.trace or self._blank(where, asked, mode)
        inputs += [image for image in _images(trace.segments) if image.role == "input"]
        trace = replace(trace, segments=(*inputs, *drawn), anomalies=read.anomalies).filed(stem)
        return Decoded(where=where, line=_stored(where, read.prompt, source.prompt, trace), trace=trace)

    def _as_published(self, where: str, source: Source, stem: str) -> Decoded:
        """All ids in a run, those of the prompt too; the k-th picture is `{stem}/image_{k}.png`."""
        segments: list[Segment] = []
        paths: list[str | None] = []
        pieces = self._published.decode(source.ids)
        for piece in pieces:
            if piece.is_image:
                paths.append(f"{stem}/image_{len(paths)}.png" if piece.picture else None)
                segments.append(ImageSegment(image=paths[-1], picture=piece.picture))
            else:
                segments.append(TextSegment(text=piece.text))
        text = "".join(piece.text for piece in pieces)
        line = {"source": where, "prompt": source.prompt, "text": text, "image_paths": paths}
        trace = replace(self._blank(where, source.prompt, MODES["general"]), id=stem, segments=tuple(segments))
        return Decoded(where=where, line=line, trace=trace)

    def _blank(self, where: str, prompt: str, mode: Mode) -> Trace:
        return Trace(
            prompt=prompt,
            mode=mode.name,
            seed=0,  # not known
            model=self.model,
            settings={"source": where, "note": "read from ids: seed and weights are not known"},
            finish_reason="stop",
            segments=(),
        )


@dataclass(frozen=True, kw_only=True)
class _Read:
    """Ids apart: the words and the pictures before the separator, the segments after it."""

    prompt: str
    inputs: tuple[Segment, ...]
    segments: tuple[Segment, ...]
    anomalies: tuple[Anomaly, ...]


def _read(source: Source, tokenizer: MultimodalTokenizer) -> _Read:
    ids, vocab = source.ids, tokenizer.vocab
    end = ids.index(vocab.separator) if vocab.separator in ids and source.trace is None else -1
    begin = int(end >= 0 and ids[0] == vocab.bos)
    asked, before = tokenizer.decode(ids[begin : max(end, begin)])
    segments, after = tokenizer.decode(ids[end + 1 :])
    anomalies = [*_moved(before, begin), *_moved(after, end + 1)]
    if not scan(ids, vocab)[1]:  # further turns too are as they should be
        segments, anomalies = _turn_by_turn(ids[end + 1 :], tokenizer), []
    prompt = "".join(part.text if isinstance(part, TextSegment) else PLACEHOLDER for part in asked)
    return _Read(prompt=prompt, inputs=asked, segments=segments, anomalies=tuple(anomalies))


def _turn_by_turn(ids: Sequence[int], tokenizer: MultimodalTokenizer) -> tuple[Segment, ...]:
    """Segments, with a new one after each eos and each separator."""
    marks = (tokenizer.vocab.eos, tokenizer.vocab.separator)
    cuts = [0, *(place + 1 for place, token in enumerate(ids) if token in marks)]
    stretches = (ids[start:end] for start, end in pairwise(cuts))
    return tuple(segment for stretch in stretches for segment in tokenizer.decode(stretch)[0])


def _moved(anomalies: Iterable[Anomaly], by: int) -> Iterator[Anomaly]:
    return (replace(anomaly, position=anomaly.position + by) for anomaly in anomalies)


def _images(segments: Iterable[Segment]) -> Iterator[ImageSegment]:
    return (segment for segment in segments if isinstance(segment, ImageSegment))


def _as_in(trace: Trace, segments: Iterable[Segment]) -> Iterator[Segment]:
    """The segments of a trace's ids, with what it says its pictures were drawn as."""
    left = iter(trace.images)
    for segment in segments:
        told = next(left, None) if isinstance(segment, ImageSegment) else None
        yield (
            replace(segment, role=told.role, kind=told.kind) if isinstance(segment, ImageSegment) and told else segment
        )


def _stored(where: str, read: str, given: str, trace: Trace) -> dict[str, Any]:
    """A line of `decoded.jsonl`; the prompt is what the ids say, and what the line said of it stands beside it."""
    other = {"given_prompt": given} if read and given not in ("", read) else {}
    return {
        "version": VERSION,
        "source": where,
        "prompt": read or given,
        **other,
        "segments": [segment.to_json() for segment in trace.segments],
        "anomalies": [anomaly.to_json() for anomaly in trace.anomalies],
    }


def mode_of(prompt: str) -> tuple[Mode, str]:
    """The mode whose template a prompt was made with, and what the user said in it; else `general` and all of it."""
    for mode in MODES.values():
        before, _, after = mode.template.partition("{prompt}")
        if before and prompt.startswith(before) and prompt.endswith(after):
            return mode, prompt[len(before) : len(prompt) - len(after)]
    return MODES["general"], prompt
