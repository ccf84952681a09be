"""`twgi data shards`: training records or rows to parquet."""

from pathlib import Path
from typing import Annotated

import typer

from twgi.commands.data import AsJson, Files, Images, MaxTokens, check_limit, counted_lines, status_of, tell
from twgi.commands.options import Device, Model
from twgi.console import tracked


def shards(
    files: Files,
    out: Annotated[Path, typer.Option(help="Folder of the shards.", show_default=False)],
    model: Model = "icons",
    device: Device = "cpu",
    max_tokens: MaxTokens = None,
    images: Images = None,
    rows: Annotated[int, typer.Option(help="Rows of a shard.")] = 4096,
    json: AsJson = False,
) -> int:
    """Turn many files of records, or of rows, into parquet that training reads without holding it in memory.

    Start it again after a kill and it goes on after the last shard. What is too long or cannot be used is listed with
    file and line and left out; the exit status is 2 where a record is refused.

    Example: twgi data shards part-*.jsonl --model icons --out data/shards
    """
    total = counted_lines(files)
    check_limit(max_tokens)
    from twgi.checkpoint.load import load_reader
    from twgi.data.encode import Encoder
    from twgi.data.shards import ShardWriter, need_parquet

    need_parquet()
    reader = load_reader(model, device)
    encoder = Encoder(reader.tokenizer, limit=max_tokens or reader.context)
    writer = ShardWriter(folder=out, files=files, encoder=encoder, images=images, rows=rows)
    for _ in tracked(writer.write(), total, "encoding", quiet=json):
        pass
    tell(writer.report, json=json)
    return status_of(writer.report)
