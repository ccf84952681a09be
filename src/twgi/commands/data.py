"""`twgi data`: training records, checked."""

import json as json_lines
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twgi.console import tracked
from twgi.errors import ConfigError, DataError, TwgiError

if TYPE_CHECKING:
    from twgi.data.report import Report
    from twgi.tokenizer.multimodal import MultimodalTokenizer

app = typer.Typer(help="Training data: check it before it is used.")

Files = Annotated[list[Path], typer.Argument(help="JSON lines, as docs/data.md has them.", show_default=False)]
ModelOf = Annotated[str, typer.Option("--model", help="Preset or folder of the checkpoint that is to read them.")]
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
    model: ModelOf = "icons",
    max_tokens: MaxTokens = None,
    images: Images = None,
    json: AsJson = False,
) -> int:
    """Say of each record whether it can be trained on, and if not, why.

    Pictures are opened, but not encoded. The exit status is 2 where a record is refused.

    Example: twgi data check chains.jsonl --model icons
    """
    total = counted_lines(files)
    tokenizer, context = text_and_vocab(model)
    from twgi.data.encode import encode_file
    from twgi.data.report import Report
    from twgi.tokenizer.image import open_picture

    blank = [0] * tokenizer.vocab.tokens_per_image

    def opened(path: Path) -> list[int]:
        open_picture(path)
        return blank

    report = Report(limit=limit_of(max_tokens, context))
    for file in files:
        outcomes = encode_file(file, tokenizer, limit=report.limit, images=images, codes_of=opened)
        for outcome in tracked(outcomes, total, "checking", quiet=json):
            report.add(outcome)
    return told(report, json=json)


def counted_lines(files: Iterable[Path]) -> int:
    """How many lines there are, before anything that takes long. Raises `DataError` where there is none."""
    from twgi.data.lines import count_lines

    counts = {file: count_lines(file) for file in files}
    empty = next((file for file, count in counts.items() if not count), None)
    if empty is not None:
        raise DataError(f"{empty}: no lines in this file; docs/data.md shows what one looks like")
    return sum(counts.values())


def text_and_vocab(model: str) -> "tuple[MultimodalTokenizer, int]":
    """The tokenizer of a checkpoint, and the most tokens that it reads."""
    from twgi.checkpoint.load import load

    loaded = load(model)
    return loaded.tokenizer, loaded.model.config.max_positions


def limit_of(asked: int | None, context: int) -> int:
    """The most tokens of a row. Raises `ConfigError`."""
    if asked is not None and asked < 1:
        raise ConfigError(f"max-tokens must be 1 or more, got {asked}")
    return context if asked is None else asked


def told(report: "Report", *, json: bool) -> int:
    """Print what became of the lines; the exit status."""
    if json:
        print(json_lines.dumps(report.to_json(), ensure_ascii=False))
    else:
        print("\n".join(_shown([*report.problems(), report.summary()])))
    return TwgiError.exit_status if report.refused or not report.kept else 0


def _shown(lines: Iterable[str]) -> Iterator[str]:
    from twgi.console import shown

    return (shown(line) for line in lines)
