"""Token lists -> what they say: text, pictures, what is malformed in them, and a folder of all that.

Read are lines of the published code's inference (`response` is a list of ids, prompt and answer together), lines with
`tokens`, and traces. Only a tokenizer is needed, no language model.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from twgi.data.records import whole_numbers
from twgi.data.rows import scan
from twgi.errors import DataError, TraceError
from twgi.files import Fault, Line, Object, check_new, read_lines, writing_lines
from twgi.runs.folder import RunFolder
from twgi.thinking.modes import MODES, Mode, with_kinds
from twgi.tokenizer.multimodal import PLACEHOLDER, MultimodalTokenizer
from twgi.tokenizer.published import PublishedTokenizer
from twgi.trace import Anomaly, Failure, ImageSegment, ModelId, Segment, TextSegment, Trace

VERSION = 1
DECODED = "decoded.jsonl"


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What one line says: as a line of `decoded.jsonl`, and as the thought that a page shows."""

    where: str
    line: Object
    trace: Trace


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
        if line.value.get("tokenizer", mine := self.tokenizer.sha256) != mine:
            raise DataError("its ids are of another vocabulary or image tokenizer than this model's")
        ids, prompt, told = read_source(line)
        if self.reference:
            return self._as_published(line.where, ids, prompt, stem)
        before, segments, anomalies = self._cut(ids, answer_only=told is not None)
        read = "".join(part.text if isinstance(part, TextSegment) else PLACEHOLDER for part in before)
        mode, asked = mode_of(read or prompt)
        trace, drawn = told or self._blank(line.where, asked, mode), self.tokenizer.draw(segments)
        inputs = [replace(image, role="input", tokens=()) for image in _images(self.tokenizer.draw(before))]
        inputs += [image for image in _images(trace.segments) if image.role == "input"]
        known = _as_in(told, drawn) if told else with_kinds(drawn, mode)
        trace = replace(trace, segments=(*inputs, *known), anomalies=anomalies).filed(stem)
        given = {"given_prompt": prompt} if read and prompt not in ("", read) else {}
        said: Object = {"version": VERSION, "source": line.where, "prompt": read or prompt, **given}
        said["segments"] = [segment.to_json() for segment in trace.segments]
        said["anomalies"] = [anomaly.to_json() for anomaly in trace.anomalies]
        return Decoded(where=line.where, line=said, trace=trace)

    def _cut(
        self, ids: Sequence[int], *, answer_only: bool
    ) -> tuple[tuple[Segment, ...], tuple[Segment, ...], tuple[Anomaly, ...]]:
        """The segments before the separator, those after it, and what is malformed in them."""
        vocab, decode = self.tokenizer.vocab, self.tokenizer.decode
        end = ids.index(vocab.separator) if vocab.separator in ids and not answer_only else -1
        begin = int(end >= 0 and ids[0] == vocab.bos)
        before, early = decode(ids[begin : max(end, begin)])
        if not scan(ids, vocab)[1]:  # further turns too are as they should be
            return before, self._turn_by_turn(ids[end + 1 :]), ()
        after, late = decode(ids[end + 1 :])
        moved = ((anomaly, by) for found, by in ((early, begin), (late, end + 1)) for anomaly in found)
        return before, after, tuple(replace(anomaly, position=anomaly.position + by) for anomaly, by in moved)

    def _turn_by_turn(self, ids: Sequence[int]) -> tuple[Segment, ...]:
        """Segments, with a new one after each eos and each separator."""
        marks = (self.tokenizer.vocab.eos, self.tokenizer.vocab.separator)
        cuts = [0, *(place + 1 for place, token in enumerate(ids) if token in marks)]
        return tuple(segment for start, end in pairwise(cuts) for segment in self.tokenizer.decode(ids[start:end])[0])

    def _as_published(self, where: str, ids: Sequence[int], prompt: str, stem: str) -> Decoded:
        """All ids in a run, those of the prompt too; the k-th picture is `{stem}/image_{k}.png`."""
        segments: list[Segment] = []
        paths: list[str | None] = []
        pieces = self._published.decode(ids)
        for piece in pieces:
            if piece.is_image:
                paths.append(f"{stem}/image_{len(paths)}.png" if piece.picture else None)
                segments.append(ImageSegment(image=paths[-1], picture=piece.picture))
            else:
                segments.append(TextSegment(text=piece.text))
        text = "".join(piece.text for piece in pieces)
        line = {"source": where, "prompt": prompt, "text": text, "image_paths": paths}
        trace = replace(self._blank(where, prompt, MODES["general"]), id=stem, segments=tuple(segments))
        return Decoded(where=where, line=line, trace=trace)

    def _blank(self, where: str, prompt: str, mode: Mode) -> Trace:
        note = {"source": where, "note": "read from ids: seed and weights are not known"}
        known = Trace(prompt=prompt, mode=mode.name, seed=0, model=self.model, finish_reason="stop", segments=())
        return replace(known, settings=note)


def read_source(line: Line) -> tuple[tuple[int, ...], str, Trace | None]:
    """What a line brings: ids, its own words for the prompt, and the whole trace where it is one.

    Raises `DataError` where it has no ids.
    """
    value = line.value
    if "model" in value and "segments" in value:
        try:
            trace = Trace.from_json(value).with_pictures(line.folder)
        except TraceError as error:
            raise DataError(str(error)) from error
        return trace.tokens, trace.prompt, trace
    ids = value.get("tokens", value.get("response"))
    no_ids = 'no ids: expected a list of whole numbers under "tokens" or "response", or a trace'
    prompt = value.get("prompt", "")
    if not isinstance(prompt, str):
        raise DataError('"prompt" must be a text')
    return whole_numbers(ids, no_ids), prompt, None


def mode_of(prompt: str) -> tuple[Mode, str]:
    """The mode whose template a prompt was made with, and what the user said in it; else `general` and all of it."""
    for mode in MODES.values():
        before, _, after = mode.template.partition("{prompt}")
        if before and prompt.startswith(before) and prompt.endswith(after):
            return mode, prompt[len(before) : len(prompt) - len(after)]
    return MODES["general"], prompt


def _images(segments: Iterable[Segment]) -> Iterator[ImageSegment]:
    return (segment for segment in segments if isinstance(segment, ImageSegment))


def _as_in(trace: Trace, segments: Iterable[Segment]) -> Iterator[Segment]:
    """The segments of a trace's ids, with what it says its pictures were drawn as."""
    left = iter(trace.images)
    for segment in segments:
        if isinstance(segment, ImageSegment) and (told := next(left, None)):
            segment = replace(segment, role=told.role, kind=told.kind)
        yield segment


@dataclass
class DecodingReport:
    """What became of the lines of a file. `malformed`: where, and its anomalies."""

    decoded: int = 0
    pictures: int = 0
    malformed: list[Object] = field(default_factory=list)
    refused: list[Object] = field(default_factory=list)

    def add(self, line: Decoded | Fault) -> None:
        """One more line."""
        if isinstance(line, Fault):
            self.refused.append(line.to_json())
            return
        self.decoded += 1
        self.pictures += sum(image.picture is not None for image in _images(line.trace.segments))
        if anomalies := [anomaly.to_json() for anomaly in line.trace.anomalies]:
            self.malformed.append({"where": line.where, "anomalies": anomalies})

    def problems(self) -> list[str]:
        """A line of text for each malformed place and each refused line, as `file:line: reason`."""
        malformed = ((line["where"], anomaly) for line in self.malformed for anomaly in line["anomalies"])
        places = [f"{where}: {one['kind']} at token {one['position']}: {one['detail']}" for where, one in malformed]
        return [*places, *(f"{fault['where']}: {fault['reason']}" for fault in self.refused)]

    def summary(self) -> str:
        """All of it in a line."""
        malformed = f"{len(self.malformed)} of them malformed"
        return f"{self.decoded} decoded ({self.pictures} pictures), {malformed}, {len(self.refused)} refused"

    def to_json(self) -> Object:
        """Everything, for programs."""
        return {**vars(self)}


def unpack(lines: Iterable[Decoded | Fault], out: Path, *, title: str) -> DecodingReport:
    """`decoded.jsonl`, and what a run has: pictures and traces as they come, then the page.

    Raises `RunError` where the folder is in use, not empty, or cannot be written.
    """
    check_new(out)
    report, failures = DecodingReport(), dict[str, Failure]()
    with RunFolder(out, run={"decoded": title}) as folder:
        with writing_lines(out / DECODED) as file:
            for number, line in enumerate(lines):
                report.add(line)
                if isinstance(line, Decoded):
                    folder.add(line.trace)
                    file.write(line.line)
                else:
                    failures[f"{number:05}"] = Failure(prompt=line.where, mode="refused", error=line.reason)
        folder.write_page(failures, title=title)
    return report
