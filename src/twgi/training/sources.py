"""Rows to train on, from the files a recipe names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twgi.data.encode import Encoded, TooLong, encode_file
from twgi.data.lines import Fault
from twgi.data.rows import Row
from twgi.data.shards import ShardRows, vocabulary_of
from twgi.errors import ConfigError, DataError
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.training.batches import Rows, TokenRow


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
    return Rows.of(rows), digest.hexdigest()


def _open_shards(paths: Sequence[str], tokenizer: MultimodalTokenizer, max_length: int) -> tuple[Rows, str]:
    """One folder of shards, which must be of this model's ids and no longer than asked."""
    if len(paths) > 1:
        raise ConfigError(
            "data: give one folder of shards, or files; `twgi data shards` makes one folder of many files"
        )
    shards = ShardRows(Path(paths[0]))
    if shards.vocabulary != vocabulary_of(tokenizer):
        raise DataError(f"{paths[0]}: these shards were made for a model with another vocabulary")
    longest = int(shards.lengths.max())
    if longest > max_length:
        raise DataError(
            f"{paths[0]}: a row has {longest} tokens, more than max_length {max_length}; make the shards anew"
        )
    rows = Rows(row=lambda index: token_row(shards.row(index)), lengths=shards.lengths, blocks=shards.blocks)
    return rows, shards.digest


def read_file(path: Path, tokenizer: MultimodalTokenizer, max_length: int) -> list[TokenRow]:
    """The rows of one file of records or rows, in memory."""
    rows, left_out = [], 0
    for outcome in encode_file(path, tokenizer, limit=max_length):
        match outcome:
            case Fault():
                raise DataError(f"{outcome.where}: {outcome.reason}; `twgi data check {path}` lists every such line")
            case TooLong():
                left_out += 1
            case Encoded():
                rows.append(token_row(outcome.row))
    if left_out:
        print(f"{path}: {left_out} of {left_out + len(rows)} rows have more than {max_length} tokens and are left out")
    return rows


def token_row(row: Row) -> TokenRow:
    """A row as training holds it."""
    kind = np.uint16 if max(row.tokens) < 2**16 else np.int64
    return TokenRow(ids=np.array(row.tokens, kind), learn=row.mask, source=row.source)
