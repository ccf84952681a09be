"""Token rows in parquet: small (ids of 16 bits), quick to read in any order; a killed run goes on where it was.

A folder holds `rows-00000.parquet`, ... and, when all is done, `shards.json`: the shards, the hashes of the files they
were made from, and what was left out. Columns: `ids`; `segments` (kind, start, end, loss), which cover the ids without
a gap; `source` (file:line); `id`; `length`. A shard's own metadata says where in the files it ends.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Generator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twgi.data.encode import Encoded, EncodingReport, LineOutcome, RowEncoder
from twgi.data.rows import Span, TokenRow, TrainingRow
from twgi.errors import ConfigError, DataError
from twgi.files import Object, escaped, read_json, read_lines, reading, write_json, writing_whole
from twgi.tokenizer.multimodal import MultimodalTokenizer

VERSION = 1
MANIFEST, META = "shards.json", b"twgi"
GROUP, OPEN_GROUPS = 128, 16  # rows that are read at once, and how many such groups are in memory


def need_parquet() -> Any:
    """The package pyarrow.parquet, or what to install."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("shards need the package pyarrow: pip install 'twgi[train]'") from error
    return pyarrow.parquet


class ShardWriter:
    """Lines of files of records or rows, in order -> shards of so many rows in a folder.

    Run it again and it goes on after the last whole shard.
    """

    def __init__(self, folder: Path, files: Sequence[Path], encoder: RowEncoder, rows: int) -> None:
        need_parquet()
        if rows < 1:
            raise ConfigError(f"rows of a shard must be 1 or more, got {rows}")
        self.folder, self.files, self.encoder, self.rows = folder, files, encoder, rows
        self.report = EncodingReport(limit=encoder.limit)
        self.made_of: Object = {
            "version": VERSION,
            "sources": [[str(file), sha256_of(file)] for file in files],
            "vocabulary": vocabulary_of(encoder.tokenizer),
            "ids": encoder.tokenizer.vocab.size, "limit": encoder.limit, "rows": rows,
        }  # fmt: skip

    def write(self) -> Generator[LineOutcome, None, None]:
        """Write what is not there yet; gives each line's outcome as it comes (skipped lines give none).

        Raises `DataError` where the folder holds shards of other files, settings or another vocabulary.
        """
        number, done = self._found()
        kept: list[TrainingRow] = []
        lines = (line for file in self.files for line in read_lines(file))
        for end, line in enumerate(lines, 1):
            if end <= done:
                continue
            outcome = self.encoder.line(line)
            self.report.add(outcome)
            if isinstance(outcome, Encoded):
                kept.append(outcome.row)
            if len(kept) == self.rows:
                self._put(number, kept, end=end)
                number, kept = number + 1, []
            yield outcome
        if kept:
            self._put(number, kept, end=end)
            number += 1
        if not number:
            raise DataError(f"{', '.join(map(str, self.files))}: no row to write")
        shards = [shard_name(each) for each in range(number)]
        write_json(self.folder / MANIFEST, {"made_of": self.made_of, "shards": shards, "report": self.report.to_json()})

    def _found(self) -> tuple[int, int]:
        """(number of the next shard, lines that are done): the report goes on as it was, too."""
        number = done = 0
        while (file := self.folder / shard_name(number)).is_file():
            meta = read_meta(file)
            if meta["made_of"] != self.made_of:
                raise DataError(f"{file} was made of other files or settings; give another folder, or delete this one")
            number, done, self.report = number + 1, meta["end"], EncodingReport.from_json(meta["report"])
        return number, done

    def _put(self, number: int, rows: Sequence[TrainingRow], *, end: int) -> None:
        """Write one shard, whole or not at all."""
        pq = need_parquet()
        import pyarrow as pa

        columns = {
            "ids": [row.tokens for row in rows],
            "segments": [[vars(span) for span in row.spans] for row in rows],
            "source": [escaped(row.source) for row in rows],
            "id": [None if row.id is None else escaped(row.id) for row in rows],
            "length": [len(row.tokens) for row in rows],
        }
        meta = {"made_of": self.made_of, "end": end, "report": self.report.to_json()}
        segment = pa.struct([("kind", pa.string()), ("start", pa.int32()), ("end", pa.int32()), ("loss", pa.bool_())])
        ids = pa.uint16() if self.encoder.tokenizer.vocab.size <= 2**16 else pa.uint32()
        kinds = (pa.list_(ids), pa.list_(segment), pa.string(), pa.string(), pa.int32())
        schema = pa.schema(zip(columns, kinds, strict=True), {META: json.dumps(meta)})
        table = pa.table(columns, schema=schema)
        with writing_whole(self.folder / shard_name(number)) as file:
            pq.write_table(table, file, row_group_size=GROUP, compression="zstd")


def vocabulary_of(tokenizer: MultimodalTokenizer) -> str:
    """A hash of what every id is called."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.text.names.items())).encode()).hexdigest()


def shard_name(number: int) -> str:
    return f"rows-{number:05d}.parquet"


def sha256_of(file: Path) -> str:
    """Of a file's content; raises `DataError` where it cannot be read."""
    with reading(file), file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


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
    """Rows, by number, of a folder that `ShardWriter` finished; a few groups of rows are in memory at a time.

    `lengths` are the tokens of each row; `blocks` the ends of the groups, which are quick to read together.
    Raises `DataError` where it is not finished, or a shard is missing or not readable.
    """

    def __init__(self, folder: Path) -> None:
        try:
            manifest = read_json(folder / MANIFEST)
        except DataError as error:
            raise DataError(f"{error}; finish it with `twgi encode --format parquet`") from None
        self.digest = hashlib.sha256(json.dumps(manifest["made_of"], sort_keys=True).encode()).hexdigest()
        self.vocabulary: str = manifest["made_of"]["vocabulary"]
        self.blocks: Sequence[int]
        lengths: list[npt.NDArray[np.int64]] = []
        ends = list[int]()
        self._places: list[tuple[Path, int]] = []  # of each group: its file, and its number there
        for file in (folder / shard_name(number) for number in range(len(manifest["shards"]))):
            read_meta(file)
            parquet = need_parquet().ParquetFile(file)
            lengths.append(parquet.read(columns=["length"])["length"].to_numpy().astype(np.int64))
            for group in range(parquet.num_row_groups):
                ends.append((ends[-1] if ends else 0) + parquet.metadata.row_group(group).num_rows)
                self._places.append((file, group))
        self.lengths, self.blocks = np.concatenate(lengths), tuple(ends)
        self._group = lru_cache(maxsize=OPEN_GROUPS)(self._read_group)

    def _read_group(self, number: int) -> list[Object]:
        file, group = self._places[number]
        rows: list[Object] = need_parquet().ParquetFile(file).read_row_group(group).to_pylist()
        return rows

    def __getitem__(self, index: int) -> TokenRow:
        """One row, as training holds it."""
        number = bisect.bisect_right(self.blocks, index)
        start = self.blocks[number - 1] if number else 0
        value = self._group(number)[index - start]
        spans = tuple(Span(**segment) for segment in value["segments"])
        return TrainingRow(tokens=tuple(value["ids"]), spans=spans, source=value["source"], id=value["id"]).compact()
