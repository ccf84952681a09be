"""A build that is killed, stopped, or started twice: nothing is lost, nothing is paid for twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.data.factory.building import built, everything, lines, recipe_file, records
from tests.data.factory.studio import Asked, Reply, studio

from twgi.data.factory.build import ANSWERS, ITEMS, REPORT
from twgi.errors import DataError


def test_a_build_that_was_killed_goes_on_to_what_it_would_have_been(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n} cubes and a ball"}) + "\n" for n in range(8)))
    with studio() as served:
        options = {"overrides": [f"prompts.file={file}", "count=8"]}
        built(whole, served, **options)
        served.asked.clear()
        served.trouble = lambda asked, number: Reply(slow=0.03)
        out = killed / "out"
        command = [sys.executable, "-m", "twgi", "data", "build", "--recipe", str(recipe_file(killed, served))]
        process = subprocess.Popen([*command, "--out", str(out), *options["overrides"]], stderr=subprocess.PIPE)
        while len(served.asked) < 40 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len((out / ANSWERS).read_bytes().splitlines())
        assert 20 < before < 88
        for name in (ANSWERS, ITEMS):  # as if the last line had been half written
            with (out / name).open("ab") as lines_:
                lines_.write(b'{"key": "half')
        served.asked.clear()
        assert built(killed, served, resume=True, **options).count("kept") == 16
    assert before + len(served.asked) == len(lines(out / ANSWERS))
    assert everything(killed) == everything(whole)


def test_a_build_that_is_stopped_ends_at_once_and_leaves_its_records(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n} cubes and a ball"}) + "\n" for n in range(30)))

    def trouble(asked: Asked, number: int) -> Reply:
        return Reply(slow=0.02) if number < 60 else Reply(status=429, headers={"Retry-After": "60"})

    with studio(trouble=trouble) as served:
        command = [sys.executable, "-m", "twgi", "data", "build", "--recipe", str(recipe_file(tmp_path, served))]
        process = subprocess.Popen([*command, "--out", str(tmp_path / "out"), f"prompts.file={file}", "count=30"])
        while len(served.asked) < 63 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130
        assert len(served.asked) == 63  # the three that were on their way, and no more
    kept = json.loads((tmp_path / "out" / REPORT).read_text())["kept"]
    assert len(records(tmp_path)) == kept > 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_build_whose_endpoint_drips_ends_within_two_seconds_and_tells_what_is_there(
    tmp_path: Path, how: signal.Signals
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n} cubes and a ball"}) + "\n" for n in range(9)))

    def trouble(asked: Asked, number: int) -> Reply | None:
        return Reply(slow=60.0) if number >= 20 else None

    with studio(trouble=trouble) as served:
        command = [sys.executable, "-m", "twgi", "data", "build", "--recipe", str(recipe_file(tmp_path, served))]
        command += ["--out", str(tmp_path / "out"), f"prompts.file={file}", "count=9", "endpoints.all.timeout=60"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while len(served.asked) < 23 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(how)
        start = time.monotonic()
        _, told = process.communicate(timeout=30)
    assert (process.returncode, time.monotonic() - start < 2) == (130, True)
    done = lines(tmp_path / "out" / ITEMS)
    kept = sum(item["status"] == "kept" for item in done)
    assert f"stopped: {len(done)} of 18 chains are in {tmp_path / 'out'}, {kept} of them kept" in told
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert (report["kept"], len(records(tmp_path))) == (kept, kept)
    answers = lines(tmp_path / "out" / ANSWERS)
    assert sum(one["answers"] for one in report["spent"]) == sum("problem" not in line for line in answers) == 20
    assert sum(one["attempts"] for one in report["spent"]) == 23


def test_a_line_that_is_none_of_ours_is_named_and_a_foreign_answer_passed_over(tmp_path: Path) -> None:
    with studio() as served:
        built(tmp_path, served)
        with (tmp_path / "out" / ANSWERS).open("a") as answers:
            answers.write('{"role": "cook"}\n{"role": "judge", "endpoint": "all"}\n[]\n')
        assert built(tmp_path, served, resume=True).count("kept") == 6
        with (tmp_path / "out" / ITEMS).open("a") as items:
            items.write('{"id": "critique-1", "status": "kept"}\n')
        with pytest.raises(DataError, match=r"items\.jsonl:7: not what became of a chain"):
            built(tmp_path, served, resume=True)
