"""Rows to train on, from the files a recipe names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from twgi.data.encode import Encoded, RowEncoder, TooLong
from twgi.data.rows import TokenRow
from twgi.data.shards import ShardRows, vocabulary_of
from twgi.errors import ConfigError, DataError
from twgi.files import Fault
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.training.batches import RowList, Rows
from twgi.training.sharding import rank


def open_rows(paths: Sequence[str], tokenizer: MultimodalTokenizer, max_length: int) -> tuple[Rows, str]:
    """The rows of all files, and a hash of what they were made from. Says how many were too long.

    Raises:
        DataError: a file cannot be read, a line is at fault (the first is named), or no row is left.
    """
    folders = [path for path in paths if Path(path).is_dir()]
    if folders:
        return _open_shards(paths, tokenizer, max_length)
    if not paths:
        raise ConfigError("the recipe names no data; give JSON lines of records or rows: data: [chains.jsonl]")
    rows: list[TokenRow] = []
    digest = hashlib.sha256()
    for path in map(Path, paths):
        rows += read_file(path, tokenizer, max_length)
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    if not rows:
        raise DataError(f"{', '.join(paths)}: no row of at most {max_length} tokens")
    return RowList(rows), digest.hexdigest()


def _open_shards(paths: Sequence[str], tokenizer: MultimodalTokenizer, max_length: int) -> tuple[Rows, str]:
    """One folder of shards, which must be of this model's ids and no longer than asked."""
    if len(paths) > 1:
        raise ConfigError(
            "data: give one folder of shards, or files; `twgi encode --format parquet` makes one folder of many files"
        )
    shards = ShardRows(Path(paths[0]))
    if shards.vocabulary != vocabulary_of(tokenizer):
        raise DataError(f"{paths[0]}: these shards were made for a model with another vocabulary")
    longest = int(shards.lengths.max())
    if longest > max_length:
        raise DataError(
            f"{paths[0]}: a row has {longest} tokens, more than max_length {max_length}; make the shards anew"
        )
    return shards, shards.digest


def read_file(path: Path, tokenizer: MultimodalTokenizer, max_length: int) -> list[TokenRow]:
    """The rows of one file of records or rows, in memory."""
    rows, left_out = [], 0
    for outcome in RowEncoder(tokenizer, limit=max_length).files([path]):
        match outcome:
            case Fault():
                raise DataError(f"{outcome.where}: {outcome.reason}; `twgi data check {path}` lists every such line")
            case TooLong():
                left_out += 1
            case Encoded():
                rows.append(outcome.row.compact())
    if left_out and rank() == 0:
        print(f"{path}: {left_out} of {left_out + len(rows)} rows have more than {max_length} tokens and are left out")
    return rows
