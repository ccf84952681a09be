"""The memory of a run does not grow with its length: a thought that is in the folder is not in memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BOUND = 100 * 2**20
"""Bytes that a run may take beside model and cache, however long it is: 64 MiB of pictures are in its page at most."""

SCRIPT = """
import itertools, json, resource, sys
from collections.abc import Iterator
from pathlib import Path
from PIL import Image
from twgi.console import Quiet
from twgi.runs.plan import RunPlan
from twgi.runs.prompts import PromptLine
from twgi.runs.run import run
from twgi.thinking.events import Done
from twgi.trace import ImageSegment, ModelId, Trace

out, count = Path(sys.argv[1]), int(sys.argv[2])
SIDE = 512

class Painter:
    identity = ModelId(name="none", sha256="")

    def resolved(self, settings):
        return settings.resolved({}, {})

    def stream_many(self, tasks, *, batch=8):
        for index, task in enumerate(tasks):
            colors = [(index % 251, index // 251 % 251, shade) for shade in (0, 100, 200)]
            pictures = [Image.new("RGB", (SIDE, SIDE), color) for color in colors]
            segments = tuple(ImageSegment(tokens=(1,) * 1026, kind="part", picture=picture) for picture in pictures)
            yield index, Done(Trace(prompt=task.prompt, mode="subgoal", seed=0, model=self.identity,
                                    finish_reason="stop", segments=segments))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

prompts = tuple(PromptLine(where=str(n), prompt=f"prompt {n}") for n in range(count))
few = run(Painter(), RunPlan(prompts=prompts[:2]), out / "few", report=Quiet())
before = peak()
many = run(Painter(), RunPlan(prompts=prompts), out / "many", report=Quiet())
print(json.dumps({"thoughts": many.thoughts, "grown": peak() - before, "page": many.page.stat().st_size}))
"""


def grown(out: Path, count: int) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(out), str(count)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_run_holds_no_thought_that_is_in_its_folder(tmp_path: Path) -> None:
    told = grown(tmp_path, 60)
    assert told["thoughts"] == 60
    assert told["grown"] < BOUND < 60 * 3 * 512 * 512 * 3


@pytest.mark.slow
def test_ten_thousand_thoughts_stay_under_the_bound(tmp_path: Path) -> None:
    told = grown(tmp_path, 10_000)
    assert told["thoughts"] == 10_000
    assert told["grown"] < BOUND
