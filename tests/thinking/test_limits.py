"""What a prompt asks for is measured before any of it is opened, and what it costs is its own failure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.thinking.tiny import CONTEXT, SIDE, description, model, thinker, tokenizer
from tests.tiny import save_tiny

from twgi.errors import PromptError, RunError
from twgi.thinking import request
from twgi.thinking.request import ModelFacts, plan
from twgi.thinking.thinker import task_of
from twgi.trace import Trace

GIB = 2**30
FACTS = ModelFacts(tokenizer(), CONTEXT, description())
FITS = CONTEXT // tokenizer().vocab.image_length


@pytest.mark.parametrize(
    ("mode", "prompt", "count", "said"),
    [
        ("direct", "a", 60, "takes no pictures"),
        ("general", "a <image>", 2, "1 <image> and 2 pictures"),
        ("general", "a", FITS + 1, f"its {FITS + 1} pictures alone are .* holds {CONTEXT}"),
        ("general", "a", 10**6, "its 1000000 pictures alone are"),
        ("general", "a" * CONTEXT, 1, "too long"),
    ],
)
def test_mode_marks_and_tokens_come_before_any_picture(
    mode: str, prompt: str, count: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "open_picture", lambda path: pytest.fail("a picture was opened"))
    with pytest.raises(PromptError, match=said):
        plan(0, task_of(prompt, mode=mode, pictures=["big.png"] * count), FACTS)


def test_out_of_memory_of_one_prompt_is_its_failure_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: str) -> Image.Image:
        raise {"a.png": MemoryError, "b.png": RuntimeError}[path]("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(request, "open_picture", opened)
    tasks = [task_of("ab"), *(task_of("ab", mode="general", pictures=[path]) for path in ("a.png", "b.png"))]
    results = dict(thinker().think_many([*tasks, task_of("ab")]))
    assert [type(results[i]) for i in range(4)] == [Trace, RunError, RunError, Trace]
    assert "too little memory to read this prompt" in str(results[1])


def test_large_pictures_are_kept_as_the_model_saw_them_with_the_same_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.effect_noise((4 * SIDE, 3 * SIDE), 90).convert("RGB").save(path)
    task = task_of("ab", mode="general", pictures=[path, path])
    whole = plan(0, task, FACTS)
    assert [picture.size for picture in whole.pictures] == [(4 * SIDE, 3 * SIDE)] * 2
    monkeypatch.setattr(request, "KEPT_PIXELS", 12 * SIDE**2)
    small = plan(0, task, FACTS)
    assert [picture.size for picture in small.pictures] == [(4 * SIDE, 3 * SIDE), (SIDE, SIDE)]
    assert small.request.prompt == whole.request.prompt
    assert tokenizer().codes([small.pictures[1]]) == tokenizer().codes([whole.pictures[1]])
    assert model().config.max_positions == CONTEXT


MEASURED = """
import re, sys
from pathlib import Path
from twgi.cli import execute
status = execute(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""
"""A command, and the most memory it had, in KiB. What the system tells of a child may be its parent's."""


def test_hostile_prompts_with_pictures_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    Image.new("RGBA", (4000, 4000), (9, 9, 9, 90)).save(tmp_path / "16MP.png")
    Image.new("RGB", (4000, 4000)).save(tmp_path / "16MP.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    lines = [["16MP.png"] * 60, ["16MP.png", "16MP.jpg"], ["pipe.png"], ["16MP.jpg"] * 40]
    modes = ["direct", *["general"] * 3]
    prompts = [{"prompt": "ab", "images": images, "mode": mode} for images, mode in zip(lines, modes, strict=True)]
    file, tiny = tmp_path / "prompts.jsonl", save_tiny(tmp_path / "tiny")
    file.write_text("".join(json.dumps(line) + "\n" for line in [*prompts, {"prompt": "ab", "mode": "direct"}]))
    options = ["--model", str(tiny), "--max-tokens", "20", "--prompts", str(file), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", MEASURED, "think", *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert "3 of 5 prompts failed" in done.stderr
    assert "a mistake of ours" not in done.stderr
    assert int(done.stdout.splitlines()[-1]) * 1024 < 0.8 * GIB
