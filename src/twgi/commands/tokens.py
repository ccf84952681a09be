"""`twgi encode` and `twgi decode`: training records to token rows, and token lists to pictures and words."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from twgi.commands.data import (
    AsJson,
    Files,
    Images,
    MaxTokens,
    check_limit,
    counted_lines,
    status_of,
    tell,
)
from twgi.commands.options import Device, Model, Vq
from twgi.commands.shards import shards
from twgi.console import tracked
from twgi.errors import ConfigError, DataError, TwgiError

if TYPE_CHECKING:
    from twgi.data.encode import Encoded, Outcome

Format = Literal["twgi", "reference", "parquet"]
Compat = Literal["twgi", "reference"]


def encode(
    files: Files,
    out: Annotated[Path, typer.Option(help="File of token rows; folder of parquet.", show_default=False)],
    model: Model = "icons",
    device: Device = "cpu",
    format: Annotated[str, typer.Option(help="twgi; reference: the published rows; parquet: shards.")] = "twgi",
    compat: Annotated[str, typer.Option(help="twgi, or reference: as published, mistakes included.")] = "twgi",
    max_tokens: MaxTokens = None,
    images: Images = None,
    json: AsJson = False,
) -> int:
    """Turn training records (docs/data.md) into token rows with a loss mask.

    What is too long or cannot be used is listed with file and line, and left out; the exit status is 2 where a record
    is refused. The file appears when all is done. Parquet is what `twgi data shards` writes: many files, and on again
    after a kill.

    Example: twgi encode chains.jsonl --model icons --out rows.jsonl

    Much of it: twgi encode part-*.jsonl --model icons --format parquet --out data/shards
    """
    _check_choice("format", format, get_args(Format))
    _check_choice("compat", compat, get_args(Compat))
    if format == "parquet":
        if compat != "twgi":
            raise ConfigError("compat reference makes rows to compare, not to train on; leave out --format parquet")
        return shards(files, out, model=model, device=device, max_tokens=max_tokens, images=images, json=json)
    total = counted_lines(files)
    if out.resolve() in [file.resolve() for file in files]:
        raise ConfigError(f"{out} is a file of records; give another --out")
    check_limit(max_tokens)
    from twgi.checkpoint.load import load_reader
    from twgi.data.encode import encode_file
    from twgi.data.lines import writing
    from twgi.data.published import encode_published
    from twgi.data.report import Report

    make = encode_published if compat == "reference" else encode_file
    reader = load_reader(model, device)
    report = Report(limit=max_tokens or reader.context)
    outcomes = (
        outcome for file in files for outcome in make(file, reader.tokenizer, limit=report.limit, images=images)
    )
    with writing(out) as rows:
        for outcome in tracked(outcomes, total, "encoding", quiet=json):
            line, kept = _line(outcome, format)
            report.add(kept)
            if line is not None:
                rows.write(line)
    tell(report, json=json)
    return status_of(report)


def _line(outcome: "Outcome", format: str) -> "tuple[dict[str, Any] | None, Outcome]":
    """The line that an outcome makes, if any; one that the format cannot hold is a fault instead."""
    from twgi.data.encode import Encoded
    from twgi.data.lines import Fault

    if not isinstance(outcome, Encoded):
        return None, outcome
    try:
        return _row(outcome, format), outcome
    except DataError as error:
        return None, Fault(where=outcome.row.source, reason=str(error))


def _row(encoded: "Encoded", format: str) -> dict[str, Any]:
    from twgi.data.encode import reference_json

    return encoded.row.to_json() if format == "twgi" else reference_json(encoded)


def decode(
    file: Annotated[Path, typer.Argument(help="Token rows, published results, or traces.jsonl.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New folder: decoded.jsonl, pictures, index.html.", show_default=False)],
    model: Model = "icons",
    device: Device = "cpu",
    vq: Vq = None,
    compat: Annotated[str, typer.Option(help="twgi, or reference: cut and marked as published.")] = "twgi",
    json: AsJson = False,
) -> int:
    """Turn token lists into pictures, words and a page.

    Read are {"prompt", "response": [ids]} as the published code writes it, rows with "tokens", and traces.
    What is malformed is listed, and no words are lost with it. Lines without ids are refused (exit status 2).

    Example: twgi decode rows.jsonl --model icons --out out/rows
    """
    _check_choice("compat", compat, get_args(Compat))
    total = counted_lines([file])
    from twgi.data.unpack import check_new, unpack

    check_new(out)
    from twgi.checkpoint.load import load_reader
    from twgi.data.decode import Decoder
    from twgi.trace import PAGE, ModelId

    reader = load_reader(model, device, vq=vq)
    whose = ModelId(name=reader.name, sha256="")  # ids do not say which weights wrote them
    decoder = Decoder(tokenizer=reader.tokenizer, model=whose, reference=compat == "reference")
    lines = tracked(decoder.decode_file(file), total, "decoding", quiet=json)
    done = unpack(lines, out, title=file.name)
    tell(done, json=json)
    if not json:
        print(f"page: {out / PAGE}")
    return TwgiError.exit_status if done.refused else 0


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(choices)}, got {value!r}")
