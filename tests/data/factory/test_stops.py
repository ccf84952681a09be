"""A build that is killed, stopped, or started twice: nothing is lost, nothing is paid for twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.data.factory.building import built, everything, lines, recipe_file, records
from tests.data.factory.studio import Asked, Reply, studio

from twgi.data.factory.build import ANSWERS, ITEMS, REPORT


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
