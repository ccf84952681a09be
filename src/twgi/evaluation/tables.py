"""Tables of other programs: CSV, TSV, JSON lines and parquet, row by row with the place of each."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from twgi.errors import DataError
from twgi.files import read_bytes, read_text

Rows = Iterator[tuple[str, Mapping[str, Any]]]
"""(``file:line``, row)"""


def read_table(path: Path) -> Rows:
    """The rows of a file; its ending tells what it is. Raises `DataError` where it cannot be read; names the line."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _parquet(path)
    if ending in (".csv", ".tsv"):
        return _csv(path, "," if ending == ".csv" else "\t")
    if ending in (".jsonl", ".json"):
        return _json_lines(path)
    raise DataError(f"{path}: unknown kind of table; known are .csv, .tsv, .jsonl and .parquet")


def _csv(path: Path, delimiter: str) -> Rows:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    try:
        for row in reader:
            yield f"{path}:{reader.line_num}", row
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None


def _json_lines(path: Path) -> Rows:
    """Not as strict as `twgi.files`: these files are not ours, and some hold NaN for a dependency."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number}: broken JSON ({error})") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected an object, got {type(row).__name__}")
            yield f"{path}:{number}", row


def _parquet(path: Path) -> Rows:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{path}: reading parquet needs pyarrow: pip install 'twgi[eval]', or give CSV") from None
    try:
        rows = pq.read_table(io.BytesIO(read_bytes(path))).to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a parquet file ({error})") from None
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))
