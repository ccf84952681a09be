"""Token rows in parquet: small (ids of 16 bits), quick to read in any order; a killed run goes on where it was.

A folder holds `rows-00000.parquet`, ... and, when all is done, `shards.json`: how many shards, the hashes of the files,
the pictures and the tokenizer they were made from, and what was left out. Columns: `ids`; `segments` (kind, start, end,
loss), which cover the ids without a gap; `source` (file:line); `id`; `length`. A shard's own metadata says where in the
files it ends.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twgi.data.encode import Encoded, EncodingReport, LineOutcome, RowEncoder
from twgi.data.rows import Span, TokenRow, TrainingRow
from twgi.errors import ConfigError, DataError
from twgi.files import (
    Fault,
    FolderLock,
    Line,
    Object,
    clear_leftovers,
    escaped,
    open_regular,
    read_json,
    read_lines,
    reading,
    write_json,
    writing_whole,
)
from twgi.tokenizer.image import MAX_BYTES

VERSION = 2
OTHERS = "was made of other files or settings"
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
        self.report, self.pictures = EncodingReport(limit=encoder.limit), hashlib.sha256()
        self.made_of: Object = {
            "version": VERSION,
            "sources": [[str(file), sha256_of(file)] for file in files],
            "tokenizer": encoder.tokenizer.sha256,
            "ids": encoder.tokenizer.vocab.size, "limit": encoder.limit, "rows": rows,
        }  # fmt: skip

    def write(self) -> Generator[LineOutcome, None, None]:
        """Write what is not there yet; gives each line's outcome as it comes (skipped lines give none).

        Raises `DataError` where the folder holds shards of other files, pictures, settings or another tokenizer, and
        `RunError` where another process writes there.
        """
        with FolderLock(self.folder):
            clear_leftovers(self.folder)
            yield from self._write(*self._found())

    def _write(self, number: int, done: int, pictures: str) -> Iterator[LineOutcome]:
        kept: list[TrainingRow] = []
        lines = (line for file in self.files for line in read_lines(file))
        for end, line in enumerate(lines, 1):
            self._see(line)
            if end == done and self.pictures.hexdigest() != pictures:
                raise DataError(f"{self.folder} {OTHERS}: pictures changed; give another folder, or delete this one")
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
        about = {"made_of": self.made_of, "shards": number, "pictures": self.pictures.hexdigest()}
        write_json(self.folder / MANIFEST, {**about, "report": self.report.to_json()})

    def _see(self, line: Line | Fault) -> None:
        """Add to the hash of all pictures; one that cannot be read is a fault of its line, and may not come later."""
        for file in self.encoder.pictures_of(line):
            with suppress(DataError, OSError):
                self.pictures.update(sha256_of(file).encode() if file.stat().st_size <= MAX_BYTES else b"")
            self.pictures.update(b".")

    def _found(self) -> tuple[int, int, str]:
        """(number of the next shard, lines that are done, hash of their pictures): the report goes on as it was."""
        number, done, pictures = 0, 0, ""
        while (file := self.folder / shard_name(number)).is_file():
            meta = read_meta(file)
            if meta["made_of"] != self.made_of:
                other = ", ".join(key for key, value in self.made_of.items() if meta["made_of"].get(key) != value)
                raise DataError(f"{file} {OTHERS} ({other}); give another folder, or delete this one")
            number, done, pictures = number + 1, meta["end"], meta["pictures"]
            self.report = EncodingReport.from_json(meta["report"])
        return number, done, pictures

    def _put(self, number: int, rows: Sequence[TrainingRow], *, end: int) -> None:
        """Write one shard, whole or not at all."""
        pq = need_parquet()
        import pyarrow as pa

        columns = {
            "ids": [row.tokens for row in rows],
            "segments": [[vars(span) for span in row.spans] for row in rows],
            "source": [escaped(row.source) for row in rows],
            "id": [row.id and escaped(row.id) for row in rows],
            "length": [len(row.tokens) for row in rows],
        }
        meta = {"made_of": self.made_of, "end": end, "report": self.report.to_json()}
        meta["pictures"] = self.pictures.hexdigest()
        segment = pa.struct([("kind", pa.string()), ("start", pa.int32()), ("end", pa.int32()), ("loss", pa.bool_())])
        ids = pa.uint16() if self.encoder.tokenizer.vocab.size <= 2**16 else pa.uint32()
        kinds = (pa.list_(ids), pa.list_(segment), pa.string(), pa.string(), pa.int32())
        schema = pa.schema(zip(columns, kinds, strict=True), {META: json.dumps(meta)})
        table = pa.table(columns, schema=schema)
        with writing_whole(self.folder / shard_name(number)) as file:
            pq.write_table(table, file, row_group_size=GROUP, compression="zstd", write_page_checksum=True)


def shard_name(number: int) -> str:
    return f"rows-{number:05d}.parquet"


def sha256_of(file: Path) -> str:
    """Of a file's content; raises `DataError` where it cannot be read."""
    with reading(file), open_regular(file) as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def read_meta(file: Path) -> dict[str, Any]:
    """What a shard says of itself; raises `DataError` where it is none of ours."""
    try:
        stored = need_parquet().read_schema(file).metadata or {}
        meta: dict[str, Any] = json.loads(stored[META])
        if meta["made_of"]["version"] != VERSION:
            raise DataError(f"{file}: shards of version {meta['made_of']['version']}; this program reads {VERSION}")
        return meta
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: not a shard of token rows ({type(error).__name__}: {error})") from error


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """What pyarrow raises becomes `DataError`."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file}: damaged ({error}); make the shards anew") from error


def _opened(file: Path) -> Any:
    return need_parquet().ParquetFile(file, page_checksum_verification=True)


class ShardRows:
    """Rows, by number, of a folder that `ShardWriter` finished; a few groups of rows are in memory at a time.

    `lengths` are the tokens of each row; `blocks` the ends of the groups, which are quick to read together; `digest`
    says what all was made of; `learnt` counts tokens, `unlearnt` the rows without one to be learnt.
    Raises `DataError` where it is not finished, or a shard is missing, not readable, or of another folder.
    """

    def __init__(self, folder: Path) -> None:
        try:
            manifest = read_json(folder / MANIFEST)
            made_of, report = manifest["made_of"], EncodingReport.from_json(manifest["report"])
            files = [folder / shard_name(number) for number in range(manifest["shards"])]
            self.tokenizer: str = made_of["tokenizer"]
            made = json.dumps([made_of, manifest["pictures"]], sort_keys=True)
        except DataError as error:
            raise DataError(f"{error}; finish it with `twgi encode --format parquet`") from None
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder / MANIFEST}: damaged, or of another version; make the shards anew") from error
        self.digest, self.size = hashlib.sha256(made.encode()).hexdigest(), made_of["ids"]
        self.learnt, self.unlearnt = report.learnt, report.unlearnt
        self.blocks: Sequence[int]
        lengths: list[npt.NDArray[np.int64]] = []
        ends = list[int]()
        self._places: list[tuple[Path, int]] = []  # of each group: its file, and its number there
        for file in files:
            if read_meta(file)["made_of"] != made_of:
                raise DataError(f"{file} {OTHERS} than {folder / MANIFEST} says")
            with _naming(file):
                parquet = _opened(file)
                lengths.append(parquet.read(columns=["length"])["length"].to_numpy().astype(np.int64))
            for group in range(parquet.num_row_groups):
                ends.append((ends[-1] if ends else 0) + parquet.metadata.row_group(group).num_rows)
                self._places.append((file, group))
        self.lengths, self.blocks = np.concatenate(lengths), tuple(ends)
        self._group = lru_cache(maxsize=OPEN_GROUPS)(self._read_group)

    def _read_group(self, number: int) -> list[Object]:
        file, group = self._places[number]
        with _naming(file):
            rows: list[Object] = _opened(file).read_row_group(group).to_pylist()
        return rows

    def __getitem__(self, index: int) -> TokenRow:
        """One row, as training holds it."""
        number = bisect.bisect_right(self.blocks, index)
        start = self.blocks[number - 1] if number else 0
        value = self._group(number)[index - start]
        spans = tuple(Span(**segment) for segment in value["segments"])
        if max(value["ids"]) >= self.size:
            raise DataError(f"{value['source']}: id {max(value['ids'])} is none of the {self.size} of its tokenizer")
        return TrainingRow(tokens=tuple(value["ids"]), spans=spans, source=value["source"], id=value["id"]).compact()
