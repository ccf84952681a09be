"""`twgi info`, `twgi convert`, and the options of `twgi think` that are about the model, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import save_tiny

from twgi import cli
from twgi.decoding.compat import Quirk
from twgi.runs.folder import fresh_folder
from twgi.trace import Trace


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Twgi = Callable[..., Ended]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def mute(tiny: Path, tmp_path: Path) -> Path:
    """The same without an image decoder, as upstream's layout has it."""
    folder = tmp_path / "mute"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in tensors.items() if ".decoder." not in n}, folder / "model.safetensors")
    return folder


@pytest.fixture
def twgi(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twgi:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: Ended(cli.execute([str(word) for word in arguments]), *capsys.readouterr())


def thought(twgi: Twgi, model: Path, *options: object) -> Trace:
    ended = twgi("think", "a red ab", "--model", model, "--json", "--out", fresh_folder(Path("out"), ""), *options)
    assert ended.status == 0, ended.err
    return Trace.from_json(json.loads(ended.out))


def test_info_tells_layout_sizes_tokens_and_hash(twgi: Twgi, tiny: Path) -> None:
    ended = twgi("info", tiny)
    assert (ended.status, ended.err) == (0, "")
    assert "Hugging Face, the fork's, 1 file(s), sha256" in ended.out
    assert "9 tokens of 16 codes; draws" in ended.out
    told = json.loads(twgi("info", tiny, "--json").out)
    assert told["parameters"]["total"] > told["parameters"]["image"] > 0
    assert "plan" not in told


def test_a_plan_has_a_line_for_each_mode(twgi: Twgi, tiny: Path) -> None:
    ended = twgi("info", tiny, "--plan", "--gpu", "rtx4090", "--int8")
    assert ended.status == 0
    assert "on rtx4090 (24 GiB, 1.01 TB/s), int8 and bfloat16" in ended.out
    modes = [line.split()[0] for line in ended.out.splitlines()[-5:-1]]
    assert modes == ["direct", "subgoal", "critique", "general"]
    plan = json.loads(twgi("info", tiny, "--plan", "--json").out)["plan"]
    assert [mode["mode"] for mode in plan["modes"]] == modes
    assert all(mode["peak"] > 0 for mode in plan["modes"])


def test_convert_there_and_back(twgi: Twgi, tiny: Path) -> None:
    ended = twgi("convert", tiny, "meta", "--layout", "meta")
    assert ended.status == 0
    assert "norms of their own" in ended.err
    assert ended.out.startswith("meta: meta, ")
    assert twgi("convert", "meta", "hf").status == 0
    one, two = load_file(tiny / "model.safetensors"), load_file("hf/model.safetensors")
    assert one.keys() == two.keys()
    assert all(tensor.equal(two[name]) for name, tensor in one.items())
    assert thought(twgi, Path("meta")).tokens == thought(twgi, tiny, "--guidance", "paper").tokens


def test_a_converted_checkpoint_may_be_of_another_width(twgi: Twgi, tiny: Path) -> None:
    assert twgi("convert", tiny, "half", "--dtype", "bfloat16").status == 0
    tensors = load_file("half/model.safetensors")
    assert {t.dtype for name, t in tensors.items() if "vqmodel" not in name} == {torch.bfloat16}
    assert {t.dtype for name, t in tensors.items() if "vqmodel" in name} == {torch.float32}


def test_a_model_that_cannot_draw_says_what_it_needs_and_takes_it(twgi: Twgi, tiny: Path, mute: Path) -> None:
    refused = twgi("think", "a red ab", "--model", mute, "--out", "out/refused")
    assert refused.status == 2
    assert "model.vqmodel.decoder.*" in refused.err
    assert "--vq" in refused.err
    told = thought(twgi, mute, "--mode", "general", "--max-tokens", "5")
    assert told.images == ()
    assert thought(twgi, mute, "--vq", tiny).tokens == thought(twgi, tiny).tokens
    assert twgi("convert", mute, "drawing", "--vq", tiny).status == 0
    assert thought(twgi, Path("drawing")).tokens == thought(twgi, tiny).tokens
    assert twgi("convert", mute, "meta", "--layout", "meta").status == 2


def test_compat_is_taken_by_name_and_told_in_the_trace(twgi: Twgi, tiny: Path) -> None:
    trace = thought(twgi, tiny, "--mode", "critique", "--compat", "reference,-any-text", "--max-tokens", "40")
    assert trace.settings["compat"] == sorted(set(Quirk) - {Quirk.ANY_TEXT})
    assert trace.settings["guidance"]["name"] == "reference"
    assert trace.settings["sampling"]["image_top_k"] == 50
    ended = twgi("think", "a", "--model", tiny, "--compat", "reverence", "--out", "out")
    assert ended.status == 2
    assert "unknown quirk 'reverence'" in ended.err


def test_the_published_limit_goes_beyond_the_models_own_positions(twgi: Twgi, tiny: Path) -> None:
    trace = thought(twgi, tiny, "--mode", "subgoal", "--compat", "published-limits", "--max-images", "1")
    assert trace.settings["limits"]["tokens"] > 6000 > 400
    assert thought(twgi, tiny, "--context", "300").settings["limits"]["tokens"] < 300


def test_rows_in_turn_and_8_bits_are_to_be_had(twgi: Twgi, tiny: Path) -> None:
    options = ("--guidance", "paper", "--mode", "critique")
    assert thought(twgi, tiny, *options, "--cfg-rows", "serial").tokens == thought(twgi, tiny, *options).tokens
    pytest.importorskip("torchao", reason="the extra quant is not installed")
    assert len(thought(twgi, tiny, "--int8").images) == 1
    assert len(thought(twgi, tiny, "--dtype", "bfloat16").images) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("info", "nowhere"), "unknown model 'nowhere'"),
        (("info", "icons", "--plan", "--gpu", "h1000"), "unknown GPU 'h1000'"),
        (("info", "icons", "--dtype", "int4"), "unknown dtype 'int4'"),
        (("convert", "icons", "new", "--layout", "gguf"), "unknown layout 'gguf'; known are hf, meta"),
        (("convert", "icons", ".."), "is there already and not empty"),
        (("think", "a", "--cfg-rows", "some"), "cfg-rows must be parallel or serial"),
        (("think", "a", "--device", "abacus"), "unknown device 'abacus'"),
        (("think", "a", "--context", "0"), "context must be in 1.."),
    ],
)
def test_a_wrong_wish_is_one_line(twgi: Twgi, arguments: tuple[str, ...], said: str) -> None:
    ended = twgi(*arguments)
    assert ended.status == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("command", ["info", "convert", "think"])
def test_help_teaches_with_an_example(twgi: Twgi, command: str) -> None:
    ended = twgi(command, "--help")
    assert ended.status == 0
    assert f"Example: twgi {command}" in " ".join(ended.out.split())
