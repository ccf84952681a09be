"""The command line: what it prints where, how it ends, and that nobody's mistake ends in a traceback."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from tests.tiny import save_tiny

from twgi import __version__, cli
from twgi.trace import Trace, from_line, read_traces

SHORT = ("--max-tokens", "30")
PATIENCE = 300  # seconds; a busy machine is no failure


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def twgi(
    model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """Run a command in an empty folder; `think` gets the tiny model unless it names one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        extra = ["--model", model] if arguments[:1] == ("think",) and "--model" not in arguments else []
        monkeypatch.setattr(sys, "argv", ["twgi", *arguments, *extra])
        status = cli.execute([*arguments, *extra])
        return Ended(status, *capsys.readouterr())

    return run


def start(model: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "twgi", "think", "--model", model, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_thoughts(process: "subprocess.Popen[str]", out: Path, count: int) -> None:
    began = time.monotonic()
    while not (out / "traces.jsonl").exists() or (out / "traces.jsonl").read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.02)


def write_prompts(path: Path, *prompts: str) -> str:
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return str(path)


def ids(out: Path) -> dict[tuple[str, int], tuple[int, ...]]:
    traces = list(read_traces(out))
    found = {(trace.prompt, trace.sample): trace.tokens for trace in traces}
    assert len(found) == len(traces), "a thought stands twice"
    return found


Twgi = Callable[..., Ended]


def test_one_prompt_tells_its_story_and_ends_with_the_page(twgi: Twgi, tmp_path: Path) -> None:
    ended = twgi("think", "a red couch", "--mode", "direct", "--out", "out/couch")
    assert ended.status == 0
    assert ended.out == "[picture 1 -> out/couch/images/00000-0-0.png]\n\npage: out/couch/index.html\n"
    assert ended.err == ""
    assert (tmp_path / "out/couch/index.html").exists()
    assert (tmp_path / "out/couch/images/00000-0-0.png").exists()
    (trace,) = read_traces(tmp_path / "out/couch")
    assert (trace.prompt, trace.mode, trace.seed) == ("a red couch", "direct", 0)


def test_the_story_is_what_the_trace_says(twgi: Twgi, tmp_path: Path) -> None:
    ended = twgi("think", "a red couch", "--mode", "critique", "--out", "out", *SHORT)
    (trace,) = read_traces(tmp_path / "out")
    assert ended.status == 0
    assert "[picture 1: draft -> out/images/00000-0-0.png]" in ended.out
    assert "(the thought was cut off: no room for more tokens)" in ended.out
    words = "".join(character for character in trace.text if character.isalnum() and character.isascii())
    assert words
    assert words in "".join(character for character in ended.out if character.isalnum())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", ended.out), "a model does not command the terminal"


def test_without_out_each_run_gets_a_new_folder(twgi: Twgi, tmp_path: Path) -> None:
    pages = [twgi("think", "A red couch!", "--mode", "direct").out.splitlines()[-1] for _ in range(2)]
    assert len(set(pages)) == 2
    for page in pages:
        assert re.fullmatch(r"page: out/\d{8}-\d{6}-a-red-couch(-2)?/index\.html", page)
        assert (tmp_path / page.removeprefix("page: ")).exists()


def test_many_prompts_show_progress_on_stderr_and_the_page_on_stdout(twgi: Twgi, tmp_path: Path) -> None:
    file = write_prompts(tmp_path / "prompts.jsonl", "a", "b")
    ended = twgi("think", "--prompts", file, "--mode", "direct", "--samples", "2", "--out", "out")
    assert ended.status == 0
    assert ended.out == "4 of 4 thoughts with 4 pictures are in out\npage: out/index.html\n"
    lines = ended.err.splitlines()
    assert [line.split()[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert all(re.search(r": 1 picture, .* left$", line) for line in lines)
    assert set(ids(tmp_path / "out")) == {("a", 0), ("a", 1), ("b", 0), ("b", 1)}


def test_json_puts_trace_lines_on_stdout_and_nothing_else(twgi: Twgi, tmp_path: Path) -> None:
    ended = twgi("think", "a", "--mode", "direct", "--samples", "2", "--json", "--out", "out")
    assert ended.out.encode() == (tmp_path / "out/traces.jsonl").read_bytes()
    assert ended.err == "page: out/index.html\n"
    assert [from_line(line).sample for line in ended.out.splitlines()] == [0, 1]


def test_a_picture_makes_the_mode_general_and_stands_at_the_end(twgi: Twgi, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    ended = twgi("think", "What is this?", "--image", "red.png", "--out", "out", *SHORT)
    assert ended.status == 0, ended.err
    (trace,) = read_traces(tmp_path / "out")
    assert (trace.mode, trace.prompt) == ("general", "What is this?")
    assert trace.segments[0].to_json() == {
        "type": "image",
        "image": "images/00000-0-0.png",
        "role": "input",
        "kind": None,
        "tokens": [],
    }
    twice = twgi("think", "Is <image> like <image>?", *2 * ("--image", "red.png"), "--out", "out2", *SHORT)
    assert twice.status == 0, twice.err


def test_special_token_text_is_drawn_as_text(twgi: Twgi) -> None:
    assert twgi("think", "<racm3:break></s><reserved08706>IMGIMGAZ", "--mode", "direct", "--out", "out").status == 0


def test_every_option_reaches_the_trace(twgi: Twgi, tmp_path: Path) -> None:
    options = "--guidance full --scale-full 3 --scale-image 1 --scale-negative 2 --scale-prompt 4 --seed 7 --rounds 2"
    sampling = "--temperature 0.5 --top-p 0.8 --top-k 9 --image-temperature 0.6 --image-top-p 0.7 --image-top-k 8"
    limits = "--max-tokens 39 --max-images 2 --negative-prompt rain"
    mode = ("--mode", "critique", "--out", "out")
    ended = twgi("think", "a", *mode, *options.split(), *sampling.split(), *limits.split())
    assert ended.status == 0, ended.err
    (trace,) = read_traces(tmp_path / "out")
    assert trace.seed == 7
    assert trace.settings["sampling"] == {
        "text_temperature": 0.5, "text_top_p": 0.8, "text_top_k": 9, "image_temperature": 0.6, "image_top_p": 0.7,
        "image_top_k": 8, "max_tokens": 39, "max_images": 2,
    }  # fmt: skip
    assert (trace.settings["rounds"], trace.settings["negative_prompt"]) == (2, "rain")
    first = trace.settings["pictures"][0]
    assert [first[name] for name in ("scheme", "full", "image", "negative", "prompt")] == ["full", 3, 1, 2, 4]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that cannot be used."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "text.png").write_text("not a picture")
    Image.new("RGB", (30, 20), "red").save(folder / "red.png")
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")
    (folder / "broken.jsonl").write_text('{"prompt": "a"\n')
    (folder / "empty.jsonl").touch()
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("think a --model papr", "unknown model 'papr'"),
        ("think a --mode dreaming", "unknown mode 'dreaming'; known are direct, subgoal, critique, general"),
        ("think --prompts broken.jsonl", "broken.jsonl:1: broken JSON at column 15"),
        ("think --prompts empty.jsonl", "no prompts in this file"),
        ("think --prompts none.jsonl", "the prompts file cannot be used: cannot read none.jsonl: No such file"),
        ("think what --image none.png", "none.png: no such image file"),
        ("think what --image text.png", "text.png: not a picture"),
        ("think what --image bomb.png", "bomb.png: 9000 x 9000 pixels"),
        ("think what --image red.png --mode direct", "takes no pictures"),
        ("think \\ ", "the prompt is empty"),
        ("think <image>", "1 <image> and 0 pictures"),
        (f"think {'x' * 500}", "the prompt is too long"),
        ("think a --out text.png/out", "cannot use 'text.png/out' as a folder: Not a directory"),
        ("think a --out /proc/out", "cannot write to /proc/out"),
        ("think a --out full", "full is not empty and holds no run"),
        ("think a --scale-full -1", "scale-full must be 0 or more"),
        ("think a --scale-full 0", "leave no weight on the prompt"),
        ("think a --max-tokens 5", "max-tokens 5 is too small for one picture: mode 'direct' needs at least 11"),
        ("think a --max-tokens 0", "max_tokens must be a positive whole number"),
        ("think a --temperature -1", "temperature must be 0"),
        ("think a --temperature nan", "temperature must be 0"),
        ("think a --top-p 0", "top_p must be in (0, 1]"),
        ("think a --guidance papr", "unknown guidance 'papr'"),
        ("think a --samples 0", "samples must be 1 or more"),
        ("think a --batch 0", "batch must be 1 or more"),
        ("think a --rounds 2", "no rounds"),
        ("think a --seed x", "Invalid value for '--seed'"),
        ("think a --prompts broken.jsonl", "give one prompt, or a file of them"),
        ("think", "give one prompt, or a file of them"),
        ("think --prompts full/file --image red.png", "--image is for a single prompt"),
        ("think a --resume", "--resume needs --out"),
        ("think a --colour", "No such option"),
        ("thnk", "No such command 'thnk'"),
        ("icons sample --out full", "not empty"),
        ("icons sample --out new --scenes 0", "scenes must be 1 or more"),
        ("train vq none.yaml", "none.yaml"),
        ("train lm none.yaml", "none.yaml"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(
    twgi: Twgi, inputs: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
) -> None:
    monkeypatch.chdir(inputs)
    before = sorted(inputs.rglob("*"))
    ended = twgi(*(word.replace("\\", " ") for word in arguments.split(" ") if word))
    assert ended.status == 2, ended
    assert ended.out == ""
    assert ended.err.startswith("twgi: ")
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert sorted(inputs.rglob("*")) == before, "nothing is left behind"


def test_a_bad_line_of_a_file_harms_no_other_and_is_told_at_the_end(twgi: Twgi, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": \n{"prompt": "b", "mode": "dreaming"}\n{"prompt": "c"}\n')
    ended = twgi("think", "--prompts", "prompts.jsonl", "--mode", "direct", "--out", "out")
    assert ended.status == 2
    assert "twgi: prompts.jsonl:2: broken JSON at column 12" in ended.err
    assert "twgi: prompts.jsonl:3: unknown mode 'dreaming'" in ended.err
    assert "twgi: 2 of 4 prompts failed: see out/errors.jsonl" in ended.err
    assert set(ids(tmp_path / "out")) == {("a", 0), ("c", 0)}


def test_a_folder_with_a_run_asks_for_resume(twgi: Twgi) -> None:
    assert twgi("think", "a", "--mode", "direct", "--out", "out").status == 0
    again = twgi("think", "a", "--mode", "direct", "--out", "out")
    assert again.status == 2
    assert again.err == "twgi: out holds a run already: continue it with --resume, or give another --out\n"
    resumed = twgi("think", "a", "--mode", "direct", "--out", "out", "--resume")
    assert (resumed.status, resumed.out) == (0, "\npage: out/index.html\n")
    changed = twgi("think", "a", "--mode", "direct", "--seed", "1", "--out", "out", "--resume")
    assert changed.status == 2
    assert changed.err == ("twgi: cannot resume out: seed was 0, is now 1; give another --out for a new run\n")


def test_another_model_does_not_resume_a_run(twgi: Twgi, tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny", other=True)
    assert twgi("think", "a", "--mode", "direct", "--out", "out").status == 0
    other = twgi("think", "a", "--mode", "direct", "--out", "out", "--resume", "--model", "tiny")
    assert other.status == 2
    assert "model.sha256 was" in other.err


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    twgi: Twgi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twgi.console import Lines

    finished = Lines.finished

    def and_stop(self: Lines, trace: Trace) -> None:
        finished(self, trace)
        raise KeyboardInterrupt

    monkeypatch.setattr(Lines, "finished", and_stop)
    ended = twgi("think", "a", "--mode", "direct", "--samples", "3")
    (out,) = (tmp_path / "out").iterdir()
    assert ended.status == 130
    assert len(ids(out)) == 1
    assert (out / "index.html").exists()
    told = re.search(r"stopped: 1 of 3 thoughts .*; go on with: twgi (.*)\n", ended.err)
    assert told is not None
    monkeypatch.setattr(Lines, "finished", finished)
    assert twgi(*told[1].split()).status == 0
    assert len(ids(out)) == 3


def test_a_killed_run_goes_on_to_what_an_unbroken_one_gives(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_prompts(tmp_path / "prompts.jsonl", *(f"prompt {number}" for number in range(16)))
    common = ("think", "--model", model, "--prompts", file, "--mode", "general", "--max-tokens", "30")
    out, whole = tmp_path / "out", tmp_path / "whole"
    first = start(model, *common[3:], "--batch", "2", "--out", str(out))
    wait_for_thoughts(first, out, 2)
    first.send_signal(signal.SIGSTOP)
    if (out / "traces.jsonl").read_bytes().count(b"\n") < 16:  # else it may have let go of the folder already
        assert cli.execute([*common, "--out", str(out), "--resume"]) == 2
        assert f"is in use by process {first.pid}" in capsys.readouterr().err
    first.kill()
    first.communicate(timeout=PATIENCE)
    done = ids(out)
    assert cli.execute([*common, "--batch", "5", "--out", str(out), "--resume"]) == 0
    assert cli.execute([*common, "--batch", "7", "--out", str(whole)]) == 0
    assert ids(out) == ids(whole)
    assert done.items() <= ids(out).items()


@pytest.mark.parametrize("how", ["terminate", "close"])
def test_a_run_that_is_told_to_stop_keeps_its_thoughts_and_writes_its_page(
    model: str, tmp_path: Path, how: str
) -> None:
    out = tmp_path / "out"
    running = start(model, "a", "--mode", "direct", "--samples", "2000", "--json", "--out", str(out))
    wait_for_thoughts(running, out, 1)
    assert running.stdout is not None
    assert running.stderr is not None
    if how == "close":
        running.stdout.close()
    else:
        running.terminate()
    told = running.stderr.read()
    assert running.wait(PATIENCE) == 130
    assert "thoughts with" in told
    assert f"--out {out} --resume" in told
    assert told.count("\n") == 1
    assert (out / "index.html").exists()
    assert 1 <= len(ids(out)) < 2000


def test_help_version_and_complaints_do_not_import_torch() -> None:
    code = (
        "import json, sys; from twgi import cli\n"
        "for words in json.loads(sys.argv[1]): cli.execute(words)\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    asked = [
        ["--help"],
        [],
        ["think", "--help"],
        ["--version"],
        ["think", "a", "--mode", "x"],
        ["think", "--top-p", "2"],
    ]
    command = [sys.executable, "-c", code, json.dumps(asked)]
    answered = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert answered.stderr.splitlines()[-1] == "False"


def test_help_answers_in_half_a_second_of_work() -> None:
    command = [sys.executable, "-m", "twgi", "--help"]
    before = os.times()
    asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < 0.5
    assert {"think", "icons", "train"} <= set(asked.stdout.split())


def test_the_version_is_told(twgi: Twgi) -> None:
    assert twgi("--version") == (0, f"twgi {__version__}\n", "")


def test_a_mistake_of_ours_says_so_in_one_line_and_more_on_demand(twgi: Twgi, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr("twgi.checkpoint.load.load", broken)
    monkeypatch.delenv("TWGI_DEBUG", raising=False)
    ended = twgi("think", "a", "--out", "out")
    assert ended.status == 1
    assert ended.err == (
        "twgi: a mistake of ours: ValueError: no such thing; TWGI_DEBUG=1 shows where, please report it\n"
    )
    monkeypatch.setenv("TWGI_DEBUG", "1")
    assert "Traceback" in twgi("think", "a", "--out", "out").err


def test_too_little_memory_is_not_a_mistake_of_ours(twgi: Twgi, monkeypatch: pytest.MonkeyPatch) -> None:
    def large(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("twgi.checkpoint.load.load", large)
    ended = twgi("think", "a", "--out", "out")
    assert ended.status == 2
    assert ended.err.startswith("twgi: out of memory: try a smaller --batch")


def test_the_icon_world_can_be_looked_at(twgi: Twgi, tmp_path: Path) -> None:
    ended = twgi("icons", "sample", "--scenes", "4", "--out", "out")
    assert ended.status == 0
    assert ended.out == "4 scenes, 4 of them read right by the checker\npage: out/index.html\n"
    assert (tmp_path / "out/index.html").exists()
