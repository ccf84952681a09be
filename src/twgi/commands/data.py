"""`twgi encode`, `twgi decode`, `twgi data`: records checked, built, made into token rows, and read back."""

import json as json_lines
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twgi.commands.options import Device, Model, Resume, Vq
from twgi.commands.think import INTERRUPTED
from twgi.console import complain, shown, tracked
from twgi.errors import ConfigError, DataError, TwgiError

if TYPE_CHECKING:
    from twgi.data.decode import DecodingReport
    from twgi.data.encode import EncodingReport
    from twgi.data.factory.build import BuildReport

app = typer.Typer(help="Training data: check it before it is used, or have it made.")

Files = Annotated[list[Path], typer.Argument(help="JSON lines, as docs/data.md has them.", show_default=False)]
MaxTokens = Annotated[
    int | None, typer.Option(help="Most tokens of a row. Default: the model's context.", show_default=False)
]
Images = Annotated[
    Path | None, typer.Option(help="Folder of the pictures. Default: beside each file.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON, nothing else.")]


@app.command("check")
def check(
    files: Files, model: Model = "icons", max_tokens: MaxTokens = None, images: Images = None, json: AsJson = False
) -> int:
    """Say of each record whether it can be trained on, and if not, why.

    Pictures are opened, but not encoded. The exit status is 2 where a record is refused.

    Example: twgi data check chains.jsonl --model icons
    """
    total = _counted(files, max_tokens)
    from twgi.checkpoint.load import load_reader
    from twgi.data.encode import EncodingReport, RowEncoder
    from twgi.tokenizer.image import open_picture

    reader = load_reader(model)

    def opened(path: Path) -> list[int]:
        open_picture(path)
        return [0] * reader.tokenizer.vocab.tokens_per_image

    report = EncodingReport(limit=max_tokens or reader.context)
    encoder = RowEncoder(reader.tokenizer, limit=report.limit, images=images, codes_of=opened)
    for outcome in tracked(encoder.files(files), total, "checking", quiet=json):
        report.add(outcome)
    return _tell(report, json=json, good=report.good)


@app.command("build")
def build_chains(
    recipe: Annotated[Path, typer.Option(help="A YAML file, such as recipes/data_icons.yaml.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the build.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value: changes to the recipe.", show_default=False)
    ] = None,
    resume: Resume = False,
    reuse: Annotated[
        list[Path] | None, typer.Option(help="Folder of a build whose answers may be used.", show_default=False)
    ] = None,
    json: AsJson = False,
) -> int:
    """Make chains: with models behind endpoints, step by step as in the paper, or with the icon world.

    The records are in OUT/records.jsonl, what was dropped and why in OUT/items.jsonl.
    The exit status is 2 where chains failed (--resume tries them again) or none was kept.

    Example: twgi data build --recipe recipes/data_icons.yaml --out out/chains count=20
    """
    from twgi.config import load_recipe
    from twgi.data.factory.build import build
    from twgi.data.factory.recipe import BuildRecipe

    settings = load_recipe(BuildRecipe, recipe, overrides or [])
    report = build(settings, out, resume=resume, reuse=reuse or (), track=partial(tracked, quiet=json))
    if report.interrupted:
        done = f"{len(report.items)} of {report.planned} chains are in {out}, {report.count('kept')} of them kept"
        complain(f"stopped: {done}; --resume goes on")
        return INTERRUPTED
    return _tell(report, json=json, good=report.count("kept") > 0 and not report.count("failed"))


def encode(
    files: Files,
    out: Annotated[Path, typer.Option(help="File of token rows; folder of parquet.", show_default=False)],
    model: Model = "icons",
    device: Device = "cpu",
    format: Annotated[str, typer.Option(help="twgi; reference: the published rows; parquet: shards.")] = "twgi",
    compat: Annotated[
        str, typer.Option(help="twgi, or reference: published rows made as published, mistakes included.")
    ] = "twgi",
    shard_rows: Annotated[int, typer.Option(help="Rows of a parquet shard.")] = 4096,
    max_tokens: MaxTokens = None,
    images: Images = None,
    json: AsJson = False,
) -> int:
    """Turn training records (docs/data.md) into token rows with a loss mask.

    What is too long or cannot be used is listed with file and line, and left out; the exit status is 2 where a record
    is refused. A file appears when all is done. Parquet is for much of it: training reads it without holding it in
    memory, and started again after a kill, it goes on after the last shard.

    Example: twgi encode chains.jsonl --model icons --out rows.jsonl

    Much of it: twgi encode part-*.jsonl --model icons --format parquet --out data/shards
    """
    _check_choice("format", format, "twgi", "reference", "parquet")
    _check_choice("compat", compat, "twgi", "reference")
    if compat == "reference" and format == "parquet":
        raise ConfigError("compat reference makes rows to compare, not to train on; leave out --format parquet")
    total = _counted(files, max_tokens)
    if out.resolve() in [file.resolve() for file in files]:
        raise ConfigError(f"{out} is a file of records; give another --out")
    from twgi.checkpoint.load import load_reader
    from twgi.data.encode import RowEncoder, write_rows
    from twgi.data.shards import ShardWriter

    reader, published = load_reader(model, device), compat == "reference"
    encoder = RowEncoder(reader.tokenizer, max_tokens or reader.context, images, published=published)
    if format == "parquet":
        writer = ShardWriter(out, files, encoder, rows=shard_rows)
        for _ in tracked(writer.write(), total, "encoding", quiet=json):
            pass
        report = writer.report
    else:
        outcomes = tracked(encoder.files(files), total, "encoding", quiet=json)
        report = write_rows(out, outcomes, limit=encoder.limit, as_reference=published or format == "reference")
    return _tell(report, json=json, good=report.good)


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
    _check_choice("compat", compat, "twgi", "reference")
    total = _counted([file])
    from twgi.files import check_new

    check_new(out)
    from twgi.checkpoint.load import load_reader
    from twgi.data.decode import TokenDecoder, unpack
    from twgi.trace import PAGE, ModelId

    reader = load_reader(model, device, vq=vq)
    whose = ModelId(name=reader.name, sha256="")  # ids do not say which weights wrote them
    decoder = TokenDecoder(tokenizer=reader.tokenizer, model=whose, reference=compat == "reference")
    report = unpack(tracked(decoder.decode_file(file), total, "decoding", quiet=json), out, title=file.name)
    status = _tell(report, json=json, good=not report.refused)
    if not json:
        print(f"page: {out / PAGE}")
    return status


def _counted(files: Iterable[Path], max_tokens: int | None = None) -> int:
    """How many lines there are, before anything that takes long. Raises `DataError` where there is none."""
    from twgi.files import count_lines

    counts = {file: count_lines(file) for file in files}
    empty = next((file for file, count in counts.items() if not count), None)
    if empty is not None:
        raise DataError(f"{empty}: no lines in this file; docs/data.md shows what one looks like")
    if max_tokens is not None and max_tokens < 1:
        raise ConfigError(f"max-tokens must be 1 or more, got {max_tokens}")
    return sum(counts.values())


def _check_choice(name: str, value: str, *choices: str) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(choices)}, got {value!r}")


def _tell(report: "EncodingReport | DecodingReport | BuildReport", *, json: bool, good: bool) -> int:
    """Print a line for each problem and one for all, or one JSON object; gives the exit status."""
    if json:
        print(json_lines.dumps(report.to_json(), ensure_ascii=False))
    else:
        print("\n".join(shown(line) for line in [*report.problems(), report.summary()]))
    return 0 if good else TwgiError.exit_status
