"""Laws of shards: what goes in comes out, in any order, and a killed run goes on."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.thinking.tiny import other_codebook
from tests.training.runs import TOKENIZER, save_model, write_rows

from twgi.cli import execute
from twgi.data.encode import Encoded, RowEncoder
from twgi.data.shards import GROUP, ShardRows, ShardWriter
from twgi.errors import DataError, RunError
from twgi.training.batches import Batching, Order, micro_batches, open_rows

pq = pytest.importorskip("pyarrow.parquet")


def shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.parquet"))


def writer(folder: Path, files: list[Path], rows: int = 7, limit: int | None = None) -> ShardWriter:
    return ShardWriter(folder, files, RowEncoder(TOKENIZER, limit=limit), rows=rows)


def test_rows_come_back_as_they_went_in_from_many_files(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / f"{n}.jsonl", count=10, seed=n) for n in range(3)]
    made = writer(tmp_path / "shards", files)
    list(made.write())
    rows = ShardRows(tmp_path / "shards")
    expected = [o.row for file in files for o in RowEncoder(TOKENIZER).files([file]) if isinstance(o, Encoded)]
    for index in reversed(range(len(expected))):
        row = rows[index]
        assert (row.ids.tolist(), row.source) == (list(expected[index].tokens), expected[index].source)
        assert row.learn.tolist() == expected[index].mask.tolist()
    assert rows.lengths.tolist() == [len(row.tokens) for row in expected]
    stored = [row for shard in shard_files(tmp_path / "shards") for row in pq.read_table(shard).to_pylist()]
    assert [row["id"] for row in stored] == [row.id for row in expected]
    assert [row["segments"] for row in stored] == [[vars(span) for span in row.spans] for row in expected]
    assert len(shard_files(tmp_path / "shards")) == 5
    assert made.report.kept == 30


def test_a_stopped_run_goes_on_to_the_same_shards(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", count=30)
    with file.open("a") as more:
        more.write("{broken\n" + file.read_text().splitlines()[0] + "\n")
    list(writer(tmp_path / "whole", [file]).write())
    stopped = writer(tmp_path / "stopped", [file]).write()
    for _ in range(17):
        next(stopped)
    stopped.close()
    assert not (tmp_path / "stopped" / "shards.json").exists()
    with pytest.raises(DataError, match="finish it with"):
        ShardRows(tmp_path / "stopped")
    again = writer(tmp_path / "stopped", [file])
    assert sum(1 for _ in again.write()) == 32 - 14
    for shard in shard_files(tmp_path / "whole"):
        assert shard.read_bytes() == (tmp_path / "stopped" / shard.name).read_bytes()
    manifests = [json.loads((tmp_path / name / "shards.json").read_text()) for name in ("whole", "stopped")]
    assert manifests[0] == manifests[1]
    assert len(manifests[0]["report"]["refused"]) == 1


def test_shards_of_other_files_are_not_mixed(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl")
    list(writer(tmp_path / "shards", [file]).write())
    with pytest.raises(DataError, match="other files or settings"):
        list(writer(tmp_path / "shards", [file], limit=50).write())
    (tmp_path / "shards" / "rows-00000.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not a shard"):
        ShardRows(tmp_path / "shards")


def test_two_processes_do_not_write_shards_into_one_folder(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl")
    first = writer(tmp_path / "shards", [file]).write()
    next(first)
    with pytest.raises(RunError, match="in use by process"):
        list(writer(tmp_path / "shards", [file]).write())
    list(first)
    list(writer(tmp_path / "shards", [file]).write())


def test_a_stopped_run_goes_on_only_with_the_same_pictures(tmp_path: Path) -> None:
    file, pictures = tmp_path / "records.jsonl", [tmp_path / f"{number}.png" for number in range(4)]
    for picture in pictures:
        Image.new("RGB", (12, 12), "red").save(picture)
    lines = [{"prompt": "ab", "response": "<image>", "images": [picture.name]} for picture in pictures]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    list(writer(tmp_path / "shards", [file], rows=2).write())
    digest = ShardRows(tmp_path / "shards").digest
    for name in ("shards.json", "rows-00001.parquet"):
        (tmp_path / "shards" / name).unlink()
    Image.new("RGB", (12, 12), "blue").save(pictures[3])  # not yet in a shard
    list(writer(tmp_path / "shards", [file], rows=2).write())
    assert ShardRows(tmp_path / "shards").digest != digest
    Image.new("RGB", (12, 12), "blue").save(pictures[0])
    with pytest.raises(DataError, match="pictures changed"):
        list(writer(tmp_path / "shards", [file], rows=2).write())


def test_shards_belong_to_the_image_tokenizer_they_were_made_with(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl")
    list(writer(tmp_path / "shards", [file]).write())
    with pytest.raises(DataError, match="another vocabulary or image tokenizer"):
        open_rows([str(tmp_path / "shards")], other_codebook(TOKENIZER), 200)
    with pytest.raises(DataError, match="other files or settings"):
        list(ShardWriter(tmp_path / "shards", [file], RowEncoder(other_codebook(TOKENIZER)), rows=7).write())


def read_all(folder: Path) -> None:
    rows = ShardRows(folder)
    assert [rows[index] for index in range(len(rows.lengths))]


def test_what_is_damaged_in_a_folder_of_shards_is_the_users_error(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl")
    list(writer(tmp_path / "shards", [file]).write())
    list(writer(tmp_path / "others", [file], limit=70).write())
    shard, manifest = tmp_path / "shards" / "rows-00001.parquet", tmp_path / "shards" / "shards.json"
    shutil.copyfile(tmp_path / "others" / shard.name, whole := tmp_path / "other.parquet")
    good, spoiled = shard.read_bytes(), bytearray(shard.read_bytes())
    spoiled[10:60] = bytes(50)
    for content, says in ((spoiled, "damaged"), (whole.read_bytes(), "other files or settings"), (b"", "not a shard")):
        shard.write_bytes(content)
        with pytest.raises(DataError, match=says):
            read_all(tmp_path / "shards")
    shard.write_bytes(good)
    for text in ("[]", "3", "{}", "[" * 100_000, '{"made_of": 3, "report": {}}', '{"made_of": {}, "report": {"x": 1}}'):
        manifest.write_text(text)
        with pytest.raises(DataError, match=r"shards\.json"):
            ShardRows(tmp_path / "shards")


def test_a_stopped_run_goes_on_only_with_the_files_in_the_same_order(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / f"{n}.jsonl", count=10, seed=n) for n in range(2)]
    stopped = writer(tmp_path / "shards", files).write()
    for _ in range(9):
        next(stopped)
    stopped.close()
    with pytest.raises(DataError, match="other files or settings"):
        list(writer(tmp_path / "shards", files[::-1]).write())


def test_training_reads_shards_as_it_reads_files(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", count=3 * GROUP)
    list(writer(tmp_path / "shards", [file], rows=2 * GROUP).write())
    shards, _ = open_rows([str(tmp_path / "shards")], TOKENIZER, 200)
    memory, _ = open_rows([str(file)], TOKENIZER, 200)
    assert list(shards.blocks) == [GROUP, 2 * GROUP, 3 * GROUP]
    for index in (0, GROUP, 3 * GROUP - 1):
        assert shards[index].ids.tolist() == memory[index].ids.tolist()
        assert shards[index].learn.tolist() == memory[index].learn.tolist()
        assert shards[index].ids.dtype == "uint16"
    order = Order(shards, Batching(batch=4, seed=3))
    batch, again = (micro_batches(order, 7, pad=0)[2] for _ in range(2))
    assert batch["ids"].equal(again["ids"])
    with pytest.raises(DataError, match="more than max_length"):
        open_rows([str(tmp_path / "shards")], TOKENIZER, 10)


def test_the_command_reports_and_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, file = save_model(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl")
    command = ["encode", str(file), "--format", "parquet", "--model", str(model), "--out", str(tmp_path / "shards")]
    assert execute([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 12
    assert execute([*command, "--max-tokens", "5"]) == 2
    assert "other files or settings" in capsys.readouterr().err


def test_rows_to_compare_are_not_made_into_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_rows(tmp_path / "rows.jsonl", count=2))
    assert execute(["encode", file, "--format", "parquet", "--compat", "reference", "--out", str(tmp_path)]) == 2
    assert "not to train on" in capsys.readouterr().err
