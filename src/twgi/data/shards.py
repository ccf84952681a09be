"""Token rows in parquet: small (ids of 16 bits), quick to read in any order; a killed run goes on where it was.

A folder holds `rows-00000.parquet`, ... and, when all is done, `shards.json`: the shards, the hashes of the files they
were made from, and what was left out. Columns: `ids`; `segments` (kind, start, end, loss), which cover the ids without
a gap; `source` (file:line); `id`; `length`. A shard's own metadata says where in the files it ends.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twgi.data.encode import Encoded, Encoder, Outcome
from twgi.data.lines import Fault, Line, read_lines
from twgi.data.report import Report
from twgi.data.rows import Row, Span
from twgi.errors import ConfigError, DataError
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.trace import write_file

VERSION = 1
MANIFEST, META = "shards.json", b"twgi"
ROWS, GROUP = 4096, 128  # rows of a shard, and of what is read at once
OPEN_GROUPS = 16


def need_parquet() -> Any:
    """The package pyarrow.parquet, or what to install."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("shards need the package pyarrow: pip install 'twgi[train]'") from error
    return pyarrow.parquet


def _schema(size: int) -> Any:
    import pyarrow as pa

    segment = pa.struct([("kind", pa.string()), ("start", pa.int32()), ("end", pa.int32()), ("loss", pa.bool_())])
    ids = pa.list_(pa.uint16() if size <= 2**16 else pa.uint32())
    return pa.schema([("ids", ids), ("segments", pa.list_(segment)), ("source", pa.string()), ("id", pa.string()),
                      ("length", pa.int32())])  # fmt: skip


@dataclass
class ShardWriter:
    """Files of records or rows -> shards in a folder; run it again and it goes on after the last whole shard.

    Args:
        folder: where the shards go.
        files: in this order, read line by line.
        encoder: what makes rows of lines.
        images: the folder that picture paths are relative to; None for that of each file.
        rows: of a shard.
    """

    folder: Path
    files: Sequence[Path]
    encoder: Encoder
    images: Path | None = None
    rows: int = ROWS
    report: Report = field(init=False)
    made_of: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"rows of a shard must be 1 or more, got {self.rows}")
        self.report = Report(limit=self.encoder.limit)
        vocab = self.encoder.tokenizer.vocab
        self.made_of = {
            "version": VERSION,
            "sources": [[str(file), sha256_of(file)] for file in self.files],
            "vocabulary": vocabulary_of(self.encoder.tokenizer),
            "ids": vocab.size, "limit": self.encoder.limit, "rows": self.rows,
        }  # fmt: skip

    def write(self) -> Generator[Outcome, None, None]:
        """Write what is not there yet; gives each line's outcome as it comes (skipped lines give none).

        Raises `DataError` where the folder holds shards of other files, settings or another vocabulary.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        number, skip = self._found()
        kept: list[Row] = []
        for place, line in self._lines():
            if place < skip:
                continue
            outcome = line if isinstance(line, Fault) else self.encoder.outcome(line, self.images or line.folder)
            self.report.add(outcome)
            if isinstance(outcome, Encoded):
                kept.append(outcome.row)
            if len(kept) == self.rows:
                self._put(number, kept, end=place + 1)
                number, kept = number + 1, []
            yield outcome
        if kept:
            self._put(number, kept, end=place + 1)
        self._finish()

    def _lines(self) -> Iterator[tuple[int, Line | Fault]]:
        return enumerate(line for file in self.files for line in read_lines(file))

    def _found(self) -> tuple[int, int]:
        """(number of the next shard, lines that are done): the report goes on as it was, too."""
        done = 0
        for number in range(10**6):
            file = self.folder / shard_name(number)
            if not file.is_file():
                return number, done
            meta = read_meta(file)
            if meta["made_of"] != self.made_of:
                raise DataError(f"{file} was made of other files or settings; give another folder, or delete this one")
            done, self.report = meta["end"], _report(meta["report"])
        raise AssertionError("a million shards")

    def _put(self, number: int, rows: Sequence[Row], *, end: int) -> None:
        """Write one shard, whole or not at all."""
        pq = need_parquet()
        import pyarrow as pa

        schema = _schema(self.encoder.tokenizer.vocab.size)
        columns = {
            "ids": [row.tokens for row in rows],
            "segments": [[vars(span) for span in row.spans] for row in rows],
            "source": [row.source for row in rows],
            "id": [row.id for row in rows],
            "length": [len(row.tokens) for row in rows],
        }
        meta = {"made_of": self.made_of, "end": end, "report": self.report.to_json()}
        table = pa.table(columns, schema=schema).replace_schema_metadata({META: json.dumps(meta).encode()})
        unfinished = self.folder / f".{shard_name(number)}"
        pq.write_table(table, unfinished, row_group_size=GROUP, compression="zstd")
        unfinished.replace(self.folder / shard_name(number))

    def _finish(self) -> None:
        shards = [file.name for file in shard_files(self.folder)]
        if not shards:
            raise DataError(f"{', '.join(map(str, self.files))}: no row to write")
        content = {"made_of": self.made_of, "shards": shards, "report": self.report.to_json()}
        write_file(self.folder / MANIFEST, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _report(value: dict[str, Any]) -> Report:
    from twgi.data.encode import TooLong

    return Report(
        **{name: value[name] for name in ("limit", "kept", "tokens", "learnt", "images")},
        too_long=[TooLong(**row) for row in value["too_long"]], refused=[Fault(**row) for row in value["refused"]],
    )  # fmt: skip


def vocabulary_of(tokenizer: MultimodalTokenizer) -> str:
    """A hash of what every id is called."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.text.names.items())).encode()).hexdigest()


def shard_name(number: int) -> str:
    return f"rows-{number:05d}.parquet"


def shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.parquet"))


def sha256_of(file: Path) -> str:
    """Of a file's content; raises `DataError` where it cannot be read."""
    try:
        with file.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def read_meta(file: Path) -> dict[str, Any]:
    """What a shard says of itself; raises `DataError` where it is none of ours."""
    try:
        stored = need_parquet().read_schema(file).metadata or {}
        meta: dict[str, Any] = json.loads(stored[META])
        if meta["made_of"]["version"] != VERSION:
            raise DataError(f"{file}: shards of version {meta['made_of']['version']}; this program reads {VERSION}")
        return meta
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file}: not a shard of token rows ({type(error).__name__}: {error})") from error


class ShardRows:
    """Rows of a folder of shards by number; a few groups of rows are in memory at a time.

    Args:
        folder: as `ShardWriter` finished it.

    Raises `DataError` where it is not finished, or a shard is missing or not readable.
    """

    def __init__(self, folder: Path) -> None:
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: no readable {MANIFEST}; finish it with `twgi data shards`") from error
        self.digest = hashlib.sha256(json.dumps(manifest["made_of"], sort_keys=True).encode()).hexdigest()
        self.vocabulary: str = manifest["made_of"]["vocabulary"]
        self.files = [folder / shard_name(number) for number in range(len(manifest["shards"]))]
        self.lengths, self.groups = self._index()
        self.blocks = [end for end, _, _ in self.groups]
        self._group = lru_cache(maxsize=OPEN_GROUPS)(self._read_group)

    def _index(self) -> tuple[npt.NDArray[np.int64], list[tuple[int, Path, int]]]:
        """Length of every row; (number of the row after it, file, place in the file) of every group."""
        lengths: list[npt.NDArray[np.int64]] = []
        groups: list[tuple[int, Path, int]] = []
        end = 0
        for file in self.files:
            read_meta(file)
            parquet = need_parquet().ParquetFile(file)
            lengths.append(parquet.read(columns=["length"])["length"].to_numpy().astype(np.int64))
            for place in range(parquet.num_row_groups):
                end += parquet.metadata.row_group(place).num_rows
                groups.append((end, file, place))
        return np.concatenate(lengths), groups

    def _read_group(self, number: int) -> list[dict[str, Any]]:
        _, file, place = self.groups[number]
        rows: list[dict[str, Any]] = need_parquet().ParquetFile(file).read_row_group(place).to_pylist()
        return rows

    def row(self, index: int) -> Row:
        """One row, as it was written."""
        number = bisect.bisect_right(self.blocks, index)
        start = self.blocks[number - 1] if number else 0
        value = self._group(number)[index - start]
        spans = tuple(Span(**segment) for segment in value["segments"])
        return Row(tokens=tuple(value["ids"]), spans=spans, source=value["source"], id=value["id"])
