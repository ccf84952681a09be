"""A run folder keeps what was finished, whatever happens to the process that fills it."""

import errno
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from twgi.errors import RunError, TraceError
from twgi.render import page
from twgi.runs.folder import UNUSABLE, RunFolder, refuse_changes
from twgi.trace import ImageSegment, ModelId, Trace, read_traces

RUN: dict[str, Any] = {
    "settings": {"sampling": {"text_top_p": 0.9}, "seed": 0},
    "model": {"name": "tiny", "sha256": "ab"},
    "prompts": {"count": 1},
    "started": "now",
}


def thought(number: int) -> Trace:
    return Trace(
        prompt=f"prompt {number}",
        mode="direct",
        seed=0,
        model=ModelId(name="tiny", sha256="ab"),
        finish_reason="stop",
        segments=(ImageSegment(picture=Image.new("RGB", (4, 4)), role="final"),),
    ).filed(str(number))


def add(folder: RunFolder, number: int) -> None:
    folder.add(thought(number))


def stored(path: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in (path / "traces.jsonl").read_text().splitlines()]


def test_a_thought_is_its_pictures_and_its_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a" / "b", run=RUN) as folder:
        add(folder, 0)
        page = folder.write_page(title="page")
        assert list(folder.thoughts()) == [thought(0)]
    names = sorted(str(file.relative_to(folder.path)) for file in folder.path.rglob("*") if file.is_file())
    assert names == [".lock", "images/0-0.png", "index.html", "run.json", "traces.jsonl"]
    assert "<title>page</title>" in page.read_text()
    assert json.loads((folder.path / "run.json").read_text()) == RUN


def test_a_torn_last_line_is_cut_and_temporary_files_go(tmp_path: Path) -> None:
    with RunFolder(tmp_path, run=RUN) as folder:
        add(folder, 0)
        add(folder, 1)
    whole = (tmp_path / "traces.jsonl").read_bytes()
    (tmp_path / "traces.jsonl").write_bytes(whole + whole[:20])
    (tmp_path / "images" / ".tmp-2.png").write_bytes(b"pic")
    with RunFolder(tmp_path, run=RUN, resume=True) as folder:
        assert [trace.prompt for trace in folder.thoughts()] == ["prompt 0", "prompt 1"]
        add(folder, 2)
    assert stored(tmp_path) == ["prompt 0", "prompt 1", "prompt 2"]
    assert not list((tmp_path / "images").glob(".tmp-*"))


@pytest.mark.parametrize(
    "end", [b'{"segments": [', b"\0" * 40 + b"\n", b'{"segments": 3}\n', b"[]\n", json.dumps(RUN).encode()]
)
def test_a_line_that_is_no_whole_thought_is_taken_out(tmp_path: Path, end: bytes) -> None:
    with RunFolder(tmp_path, run=RUN) as folder:
        add(folder, 0)
    with (tmp_path / "traces.jsonl").open("ab") as file:
        file.write(end)
    with RunFolder(tmp_path, run=RUN, resume=True) as folder:
        assert [trace.prompt for trace in folder.thoughts()] == ["prompt 0"]
    assert stored(tmp_path) == ["prompt 0"]


def test_a_thought_whose_picture_is_gone_is_not_done(tmp_path: Path) -> None:
    with RunFolder(tmp_path, run=RUN) as folder:
        add(folder, 0)
        add(folder, 1)
    (tmp_path / "images" / "0-0.png").unlink()
    with RunFolder(tmp_path, run=RUN, resume=True):
        assert stored(tmp_path) == ["prompt 1"]


def test_a_thought_of_another_version_is_not_dropped_but_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path, run=RUN).close()
    (tmp_path / "traces.jsonl").write_text('{"version": 3, "segments": []}\n')
    with pytest.raises(TraceError, match="version 3"):
        RunFolder(tmp_path, run=RUN, resume=True)
    assert (tmp_path / "traces.jsonl").read_text()


def test_a_folder_that_holds_a_run_is_refused_without_resume(tmp_path: Path) -> None:
    with RunFolder(tmp_path, run=RUN) as folder:
        add(folder, 0)
    with pytest.raises(RunError, match="holds a run already: continue it with --resume, or give another --out"):
        RunFolder(tmp_path, run=RUN)
    assert stored(tmp_path) == ["prompt 0"]


def test_a_folder_with_other_things_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for resume in (False, True):
        with pytest.raises(RunError, match="is not empty and holds no run"):
            RunFolder(tmp_path, run=RUN, resume=resume)
    assert [file.name for file in tmp_path.iterdir()] == ["images"]


def test_resuming_a_run_that_never_began_begins_it(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".tmp-run.json").touch()
    with RunFolder(tmp_path, run=RUN, resume=True) as folder:
        assert not list(folder.thoughts())
    assert not (tmp_path / ".tmp-run.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"settings": {"sampling": {"text_top_p": 0.5}, "seed": 0}},
            "settings.sampling.text_top_p was 0.9, is now 0.5",
        ),
        ({"settings": {"seed": 0}}, "settings.sampling was"),
        ({"model": {"name": "tiny", "sha256": "cd"}}, 'model.sha256 was "ab", is now "cd"'),
        ({"prompts": {"count": 2}}, "prompts.count was 1, is now 2"),
    ],
)
def test_a_changed_run_is_not_resumed_and_says_what_changed(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    RunFolder(tmp_path, run=RUN).close()
    with pytest.raises(RunError) as error:
        RunFolder(tmp_path, run={**RUN, **change}, resume=True)
    assert said in str(error.value)
    RunFolder(tmp_path, run={**RUN, "started": "later"}, resume=True).close()


def test_what_could_not_be_used_may_be_mended_before_resuming(tmp_path: Path) -> None:
    RunFolder(tmp_path, run={**RUN, "prompts": {"0": "ab", "1": "unusable"}}).close()
    mended = {**RUN, "prompts": {"0": "ab", "1": "cd"}}
    RunFolder(tmp_path, run=mended, resume=True).close()
    spoilt = {**RUN, "prompts": {"0": "unusable", "1": "cd"}}
    with pytest.raises(RunError, match=r'prompts\.0 was "ab", is now "unusable"'):
        RunFolder(tmp_path, run=spoilt, resume=True)


def test_a_second_run_on_a_folder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first = RunFolder(tmp_path, run=RUN)
    with pytest.raises(RunError, match=f"is in use by process {os.getpid()}"):
        RunFolder(tmp_path, run=RUN, resume=True)
    first.close()
    RunFolder(tmp_path, run=RUN, resume=True).close()


def _fill(path: Path) -> None:
    with RunFolder(path, run=RUN, resume=True) as folder:
        for number in range(sum(1 for _ in folder.thoughts()), 1_000_000):
            add(folder, number)


def test_killing_the_process_loses_nothing_and_frees_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        process = context.Process(target=_fill, args=(tmp_path,), daemon=True)
        process.start()
        process.join(0.15)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with RunFolder(tmp_path, run=RUN, resume=True) as folder:
        prompts = [trace.prompt for trace in folder.thoughts()]
    assert prompts == [f"prompt {number}" for number in range(len(prompts))]
    assert all((tmp_path / "images" / f"{number}-0.png").exists() for number in range(len(prompts)))


@pytest.mark.parametrize("name", ["images", "traces.jsonl", ".lock"])
def test_a_part_of_a_run_that_is_a_link_is_not_followed(tmp_path: Path, name: str) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    with RunFolder(out, run=RUN) as folder:
        add(folder, 0)
    (out / name).rename(victim)
    (out / name).symlink_to(victim)
    before = {path: path.read_bytes() for path in (victim, *victim.glob("*")) if path.is_file()}
    with pytest.raises(RunError, match="leads out of|a link, which is not followed"):
        RunFolder(out, run=RUN, resume=True)
    assert {path: path.read_bytes() for path in before} == before


def test_a_picture_that_is_a_link_is_neither_shown_nor_kept(tmp_path: Path) -> None:
    out, private = tmp_path / "out", tmp_path / "private.png"
    Image.new("RGB", (4, 4), "red").save(private)
    with RunFolder(out, run=RUN) as folder:
        add(folder, 0)
    (out / "images" / "0-0.png").unlink()
    (out / "images" / "0-0.png").symlink_to(private)
    (trace,) = read_traces(out)
    assert trace.with_pictures(out).final is None
    assert "the file is missing" in "".join(page(lambda: iter([trace]), 1, folder=out))
    with RunFolder(out, run=RUN, resume=True) as folder:
        assert not list(folder.thoughts())


@pytest.mark.parametrize("out", ["file/out", "/proc/out", "nul\0byte"])
def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot"):
        RunFolder(tmp_path / out, run=RUN)


def test_a_full_disk_leaves_no_half_thought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder(tmp_path, run=RUN) as folder:
        add(folder, 0)

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left on device; finished thoughts are kept"):
            add(folder, 1)
        with pytest.raises(RunError):
            add(folder, 2)
    assert stored(tmp_path) == ["prompt 0"]
    assert sorted(file.name for file in (tmp_path / "images").iterdir()) == ["0-0.png"]


def test_what_changed_is_named_and_what_was_unusable_may_change(tmp_path: Path) -> None:
    stored = {"settings": {"seed": 0, "top_p": 0.9}, "prompts": {"0": "ab", "1": UNUSABLE}, "when": 1}
    now = {"settings": {"seed": 0, "top_p": 0.9}, "prompts": {"0": "ab", "1": "cd"}, "when": 2}
    refuse_changes(tmp_path, stored, now, ("settings", "prompts"))
    with pytest.raises(RunError, match=r"settings\.top_p was 0\.9, is now 0\.5; give another --out"):
        refuse_changes(tmp_path, stored, now | {"settings": {"seed": 0, "top_p": 0.5}}, ("settings", "prompts"))
