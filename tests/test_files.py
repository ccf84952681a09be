"""Files are read strictly, written whole, appended durably, and held by one process."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twgi import files
from twgi.errors import DataError, RunError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=3))
def test_what_is_written_as_a_line_is_read_back(value: files.Object) -> None:
    line = files.to_line(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert files.parse_object(line) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": \xff}', "not UTF-8 at byte 6"),
        (b"[1]", "expected a JSON object, got list"),
        (b'{"a": ', "broken JSON at column"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "a number of too many digits"),
        (b'{"a": 1e400}', "1e400 is too large a number"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 100"),
        ('{"prompt": "café"}'.encode("latin-1"), r"not UTF-8 at byte 15 \(Latin-1 or Windows-1252\?\): save it as"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16, not UTF-8: save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16-be"), "UTF-16, not UTF-8: save it as UTF-8"),
    ],
)
def test_what_is_no_json_object_is_refused_in_words(text: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        files.parse_object(text)


def test_what_is_read_as_deep_as_it_may_be_is_written_again() -> None:
    value = files.parse_object('{"a": ' + "[" * 99 + "]" * 99 + "}")
    assert files.parse_object(files.to_line(value)) == value


@settings(max_examples=300, derandomize=True)
@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b'{"a": "\\ud800"}')
@example(b"\xef\xbb\xbf{}")
def test_whatever_is_read_is_an_object_that_can_be_written_or_the_users_error(content: bytes) -> None:
    try:
        value = files.parse_object(content)
    except DataError:
        return
    assert files.parse_object(files.to_line(value)) == value


WANTED = {"name": str, "number": int, "score": int | float, "kind": str | None, "any": object}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"number": True}, "'number' must be of type int, got true"),
        ({"score": True}, "'score' must be of type int | float, got true"),
        ({"kind": 3}, "'kind' must be of type str | None, got 3"),
        ({"name": ["x" * 90]}, "'name' must be of type str, got [\"xxx"),
        ({3: 4}, "has the unknown key 3"),
        ({"more": 1, 2: 3}, "has the unknown key 2"),
    ],
)
def test_an_object_has_just_the_keys_and_types_that_are_wanted(change: dict[Any, Any], said: str) -> None:
    good = {"name": "a", "number": 1, "score": 2, "kind": None, "any": True}
    assert files.checked(good, "it", WANTED) == good
    with pytest.raises(DataError) as error:
        files.checked(good | change, "it", WANTED)
    assert said in str(error.value)
    with pytest.raises(DataError, match="it lacks 'any'"):
        files.checked({key: good[key] for key in list(good)[:-1]}, "it", WANTED)


def test_a_file_in_another_encoding_is_one_error_and_a_mark_before_a_line_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        path.write_bytes('{"a": 1}\n{"a": 2}\n'.encode(encoding))
        with pytest.raises(DataError, match=r"lines\.jsonl: UTF-16, not UTF-8: save it as UTF-8"):
            list(files.read_lines(path))
    path.write_bytes(b"\xef\xbb\xbf\n\xef\xbb\xbf{}\n")
    assert [line.where for line in files.read_objects(path)] == [f"{path}:2"]
    assert files.count_lines(path) == 1


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "out/x", "deep/out/x", "\0", "loop"])
def test_no_name_and_no_link_leads_out_of_a_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "deep" / "out").symlink_to("../../elsewhere")
    (folder / "loop").symlink_to("../loop")
    for error in (DataError, RunError):
        with pytest.raises(error, match="leads out of"):
            files.inside(folder, name, error)
    (tmp_path / "link").symlink_to(folder)
    (folder / "within").symlink_to("deep")
    for good in ("x", "deep/x", "a/../x", "within/x"):
        assert files.inside(tmp_path / "link", good) == tmp_path / "link" / good


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (".lock", ".tmp-run.json", "lines.jsonl"):
        (folder / name).symlink_to("../victim")
    for act in (
        lambda: files.FolderLock(folder),
        lambda: files.append_line(folder / "lines.jsonl", {}),
        lambda: files.mend(folder / "lines.jsonl"),
    ):
        with pytest.raises(RunError, match="a link, which is not followed"):
            act()
    files.write_json(folder / "run.json", {})
    assert (folder / "run.json").read_text() == "{}\n"
    assert victim.read_text() == "precious"
    (folder / ".lock").unlink()
    os.mkfifo(folder / ".lock")
    with pytest.raises(RunError, match="not a regular file"):
        files.FolderLock(folder)


def test_each_line_has_its_place_and_a_bad_one_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": \n{"a": 3}')
    first, second, third = files.read_lines(path)
    assert isinstance(first, files.Line)
    assert (first.where, first.value) == (f"{path}:1", {"a": 1})
    assert isinstance(second, files.Fault)
    assert second.where == f"{path}:3"
    assert isinstance(third, files.Line)
    assert files.count_lines(path) == 3
    with pytest.raises(DataError, match=r"lines\.jsonl:3: broken JSON"):
        list(files.read_objects(path))


def test_a_file_that_cannot_be_read_is_the_users_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", Path("nul\0byte")):
        with pytest.raises(DataError, match="cannot read"):
            files.read_text(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "b.json"
    files.write_json(path, {"old": True})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write to .*b\.json: No space left on device"):
        files.write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"old": True}
    assert [file.name for file in path.parent.iterdir()] == ["b.json"]


def test_lines_appear_together_or_not(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with pytest.raises(ValueError, match="not JSON compliant"), files.writing_lines(path) as lines:
        lines.write({"a": float("nan")})
    assert not list(tmp_path.iterdir())
    with files.writing_lines(path) as lines:
        lines.write({"a": 1})
        lines.write({"a": "\ud800"})
    assert [line.value for line in files.read_objects(path)] == [{"a": 1}, {"a": "\ud800"}]


def test_a_failed_append_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines.jsonl"
    files.append_line(path, {"a": 1})
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    files.append_line(path, {"a": 2})
    assert synced, "a line is on disk when the call returns"

    def full(handle: int) -> None:
        assert path.stat().st_size == 27, "the line is there before it is synced"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        files.append_line(path, {"a": 3})
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n'


def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """Not even where the system takes a part of it, and then no more."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "lines.jsonl"
    files.append_line(path, {"a": 1})
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1][1]))
    try:
        with pytest.raises(RunError, match="File too large"):
            files.append_line(path, {"a": "x" * 30_000})
        assert files.append_line(path, {"a": 3}) == (9, 9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[1])
        signal.signal(signal.SIGXFSZ, before[0])
    assert path.read_bytes() == b'{"a": 1}\n{"a": 3}\n'


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert not files.mend(path).exists()
    path.write_bytes(b'{"a": 1}\n{"a": ')
    assert files.mend(path).read_bytes() == b'{"a": 1}\n'


HOLD = "import sys; from pathlib import Path; from twgi.files import FolderLock; FolderLock(Path(sys.argv[1]))"


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with files.FolderLock(tmp_path):
        held = subprocess.run(command, capture_output=True, text=True)
        assert f"is in use by process {os.getpid()}" in held.stderr
        with pytest.raises(RunError, match=f"in use by process {os.getpid()}"):
            files.FolderLock(tmp_path)
    assert subprocess.run(command, capture_output=True).returncode == 0
    files.FolderLock(tmp_path).close()


def test_a_new_folder_holds_nothing_but_leftovers(tmp_path: Path) -> None:
    for name in (".lock", ".tmp-run.json"):
        (tmp_path / name).touch()
    files.check_new(tmp_path)
    files.check_new(tmp_path / "none")
    files.clear_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="not empty: give a new or empty folder as --into"):
        files.check_new(tmp_path, option="--into")
    with pytest.raises(RunError, match="cannot use"):
        files.check_new(tmp_path / "notes.txt")


def test_a_pipe_and_a_device_are_refused_at_once_and_nothing_waits(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    for path in (pipe, link):
        for read in (files.read_bytes, files.read_text, files.read_json, files.count_lines, list_of_lines):
            with pytest.raises(DataError, match="a pipe or a device, not a regular file"):
                read(path)
        with pytest.raises(RunError, match=r"not a regular file|a link, which is not followed"):
            files.mend(path)


def list_of_lines(path: Path) -> list[files.Line | files.Fault]:
    return list(files.read_lines(path))


def test_nothing_is_read_beyond_its_cap(tmp_path: Path) -> None:
    path = tmp_path / "sparse.json"
    with path.open("wb") as file:
        file.truncate(8 * 2**30)
    with pytest.raises(DataError, match="larger than 65536 KiB"):
        files.read_text(path)
    with pytest.raises(DataError, match="larger than 1 KiB"):
        files.read_json(path, most=1024)


def test_a_line_without_end_is_a_fault_and_the_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 2**20)
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 5 * 2**20 + b'"}\n{"a": 3}\n[')
    first, second, third, fourth = files.read_lines(path)
    assert isinstance(first, files.Line)
    assert isinstance(second, files.Fault)
    assert (second.where, second.reason) == (f"{path}:2", "a line of more than 1 MiB")
    assert isinstance(third, files.Line)
    assert third.value == {"a": 3}
    assert isinstance(fourth, files.Fault)
    assert files.count_lines(path) == 4


@given(st.binary(max_size=200))
def test_whatever_the_bytes_only_lines_and_faults_come_out(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.jsonl"
        path.write_bytes(content)
        with suppress(DataError):  # of UTF-16
            assert len(list(files.read_lines(path))) == files.count_lines(path)
        with suppress(DataError):
            files.read_json(path)


def test_a_value_is_cut_before_it_is_told() -> None:
    many: list[object] = ["x" * 10**6]
    for _ in range(60):
        many = [many] * 10  # 10^60 entries, if they were written out
    assert len(files.short(many)) <= 60
    assert len(files.short({"a" * 10**6: 10**5000})) <= 60
    assert files.short({"a": [1, True, None, "b"]}) == '{"a": [1, true, null, "b"]}'
