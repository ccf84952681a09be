"""`twgi data`: training records, checked and built."""

import json as json_lines
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from twgi.commands.options import Model, Resume
from twgi.console import shown, tracked
from twgi.errors import ConfigError, DataError, TwgiError

if TYPE_CHECKING:
    from twgi.data.report import Report

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
    files: Files,
    model: Model = "icons",
    max_tokens: MaxTokens = None,
    images: Images = None,
    json: AsJson = False,
) -> int:
    """Say of each record whether it can be trained on, and if not, why.

    Pictures are opened, but not encoded. The exit status is 2 where a record is refused.

    Example: twgi data check chains.jsonl --model icons
    """
    total = counted_lines(files)
    check_limit(max_tokens)
    from twgi.checkpoint.load import load_reader
    from twgi.data.encode import encode_file
    from twgi.data.report import Report
    from twgi.tokenizer.image import open_picture

    reader = load_reader(model)
    blank = [0] * reader.tokenizer.vocab.tokens_per_image

    def opened(path: Path) -> list[int]:
        open_picture(path)
        return blank

    report = Report(limit=max_tokens or reader.context)
    outcomes = (
        outcome
        for file in files
        for outcome in encode_file(file, reader.tokenizer, limit=report.limit, images=images, codes_of=opened)
    )
    for outcome in tracked(outcomes, total, "checking", quiet=json):
        report.add(outcome)
    tell(report, json=json)
    return status_of(report)


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
    from twgi.data.factory.recipe import BuildRecipe
    from twgi.data.factory.run import build

    settings = load_recipe(BuildRecipe, recipe, overrides or [])
    shown_as = partial(tracked, quiet=json)
    report = build(settings, out, resume=resume, reuse=reuse or (), track=shown_as)
    tell(report, json=json)
    return 0 if report.count("kept") and not report.count("failed") else TwgiError.exit_status


def counted_lines(files: Iterable[Path]) -> int:
    """How many lines there are, before anything that takes long. Raises `DataError` where there is none."""
    from twgi.data.lines import count_lines

    counts = {file: count_lines(file) for file in files}
    empty = next((file for file, count in counts.items() if not count), None)
    if empty is not None:
        raise DataError(f"{empty}: no lines in this file; docs/data.md shows what one looks like")
    return sum(counts.values())


def check_limit(asked: int | None) -> None:
    """Whether rows of at most so many tokens can be. Raises `ConfigError`."""
    if asked is not None and asked < 1:
        raise ConfigError(f"max-tokens must be 1 or more, got {asked}")


class Told(Protocol):
    """What became of the lines of files."""

    def problems(self) -> list[str]: ...
    def summary(self) -> str: ...
    def to_json(self) -> dict[str, Any]: ...


def tell(report: Told, *, json: bool) -> None:
    """Print it: a line for each problem and one for all, or one JSON object."""
    if json:
        print(json_lines.dumps(report.to_json(), ensure_ascii=False))
    else:
        print("\n".join(shown(line) for line in [*report.problems(), report.summary()]))


def status_of(report: "Report") -> int:
    """2 where a line is refused or none is kept."""
    return TwgiError.exit_status if report.refused or not report.kept else 0
