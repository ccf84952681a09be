"""Checkpoints from strangers: refused in one line, in little memory, with no connection and nothing executed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.tiny import save_tiny

from twgi.checkpoint import layout
from twgi.checkpoint.load import identify, load
from twgi.checkpoint.memory import free_memory
from twgi.checkpoint.tensors import TorchFile
from twgi.errors import CheckpointError, ConfigError, TwgiError

Raw = dict[str, Any]
HUGE = 10**400


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny")


def edited(tiny: Path, to: Path, name: str, change: Callable[[Raw], Any] | str) -> Path:
    """A copy of the checkpoint with one of its JSON files changed, or replaced by a text."""
    folder = Path(shutil.copytree(tiny, to))
    if isinstance(change, str):
        (folder / name).write_text(change)
    else:
        raw = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        change(raw)
        (folder / name).write_text(json.dumps(raw))
    return folder


def sets(**values: Any) -> Callable[[Raw], Any]:
    return lambda raw: raw.update(values)


def replaces(times: int, by: int) -> Raw:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * by}
    return {"type": "Sequence", "normalizers": [step] * times}


CASES: list[tuple[str, Callable[[Raw], Any] | str, str]] = [
    ("config.json", sets(num_hidden_layers=10**9), "num_layers must be a whole number"),
    ("config.json", sets(vocab_size=2**40), "vocab_size must be a whole number"),
    ("config.json", sets(hidden_size=2**16, num_attention_heads=2**10), "makes it"),
    ("config.json", sets(max_position_embeddings=2**40), "max_positions must be a whole number"),
    ("config.json", sets(rope_theta=HUGE), "rope_theta must be a number"),
    ("config.json", sets(rms_norm_eps=-1), "rms_norm_eps must be a number"),
    ("config.json", sets(bos_token_id=10**9), "bos_token_id must be an id"),
    ("config.json", sets(vq_config={"resolution": 10**9}), "resolution must be a whole number"),
    ("config.json", sets(vq_config={"ch_mult": [2**12] * 30}), "config.json|makes it|cannot be halved"),
    ("config.json", sets(hidden_act=["x" * 10**6] * 30), "hidden_act = "),
    ("config.json", sets(auto_map={}), "run code"),
    ("config.json", sets(_attn_implementation_internal="someone/kernels"), "run code"),
    ("config.json", "[" * 10**6, "nested too deep"),
    ("config.json", '{"vocab_size": ' + "9" * 5000 + "}", "broken JSON"),
    ("config.json", '{"model_type": "chameleon", "model_type": "chameleon"}', "stands twice"),
    ("config.json", '{"rope_theta": NaN}', "NaN is not JSON"),
    ("config.json", '{"a": "' + "x" * 33 * 2**20, "larger than"),
    ("generation_config.json", sets(twgi=[]), "twgi must be a group"),
    ("generation_config.json", sets(twgi={"guidance": {}}), "twgi must be a group"),
    ("generation_config.json", sets(twgi={"text_temperature": "hot"}), "text_temperature must be a number"),
    ("generation_config.json", sets(twgi={"text_top_p": [1]}), "text_top_p must be a number"),
    ("generation_config.json", sets(twgi={"image_top_k": HUGE}), "image_top_k must be a number"),
    ("generation_config.json", sets(twgi={"max_tokens": True}), "max_tokens must be a number"),
    ("generation_config.json", sets(top_k={"a": 1}), "text_top_k must be a number"),
    ("generation_config.json", "[1]", "must hold a JSON object"),
    ("preprocessor_config.json", sets(rescale_factor=HUGE), "rescale_factor"),
    ("preprocessor_config.json", sets(rescale_factor="0.0078"), "rescale_factor"),
    ("preprocessor_config.json", sets(size=[[[]]]), "size = "),
    ("processor_config.json", sets(image_processor=[1]), "image_processor must be a group"),
    ("processor_config.json", sets(image_processor={"resample": 3}), "resample = 3 is not 1"),
    ("processor_config.json", sets(image_processor={"rescale_factor": 0.0078}), "scale pixels differently"),
    ("tokenizer.json", sets(normalizer=replaces(7, 10)), "times as long"),
    ("tokenizer.json", sets(normalizer=replaces(1, 10**6)), "times as long"),
    ("tokenizer.json", sets(decoder=replaces(7, 10)), "times as long"),
    ("tokenizer.json", sets(model={"type": "Unigram", "vocab": []}), "must be BPE"),
    ("tokenizer.json", sets(model=[]), "not a tokenizer.json"),
    ("tokenizer.json", sets(added_tokens=[{}] * (2**18 + 1)), "at most 262144"),
    ("tokenizer.json", sets(post_processor={"type": "TemplateProcessing"}), "not a tokenizer.json"),
    ("tokenizer.json", "[" * 10**6, "nested too deep"),
    ("tokenizer.json", '{"a": "' + "x" * 33 * 2**20, "larger than"),
]

SCRIPT = """
import json, resource, socket, sys
from pathlib import Path
from twgi.checkpoint.load import load
from twgi.errors import TwgiError

def refused(*_, **__):
    raise AssertionError("a connection")

def measured():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

load(sys.argv[2])
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
before, said = measured(), {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        load(folder)
        said[folder.name] = "loaded"
    except TwgiError as error:
        said[folder.name] = str(error)
    except BaseException as error:
        said[folder.name] = f"a mistake of ours: {error!r}"
print(json.dumps([measured() - before, said]))
"""


def test_a_hostile_file_is_refused_in_words_in_bounded_memory_and_without_a_socket(tiny: Path, tmp_path: Path) -> None:
    for number, (name, change, _) in enumerate(CASES):
        edited(tiny, tmp_path / "cases" / f"{number:02d}", name, change)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cases"), str(tiny)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown, said = json.loads(done.stdout)
    for number, (name, _, words) in enumerate(CASES):
        message = said[f"{number:02d}"]
        assert any(word in message for word in words.split("|")), (name, words, message)
        assert f"{number:02d}" in message, "it names the folder or the file"
        assert len(message) < 5000
        assert "\n" not in message
    assert grown < 400 * 2**20


@settings(max_examples=40)
@given(
    name=st.sampled_from(["config", "generation_config", "preprocessor_config", "processor_config"]),
    key=st.integers(0, 40),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=4,
    ),
)
def test_whatever_a_setting_says_only_user_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, tiny: Path, name: str, key: int, value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.exists():
        shutil.copytree(tiny, folder)
    name = f"{name}.json"
    whole = (tiny / name).read_text()
    raw = json.loads(whole)
    raw[list(raw)[key % len(raw)]] = value
    (folder / name).write_text(json.dumps(raw))
    with suppress(CheckpointError):
        identify(folder)
    (folder / name).write_text(whole)


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json", "model.safetensors"])
def test_a_pipe_in_a_checkpoint_is_refused_at_once(tiny: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match="not a regular file"):
        load(folder)
    os.mkfifo(tmp_path / "vqgan.ckpt")
    with pytest.raises(CheckpointError, match=r"vqgan\.ckpt.*not a regular file"):
        load(tiny, vq=tmp_path / "vqgan.ckpt")


@pytest.mark.parametrize(
    "content",
    [
        {1: torch.zeros(2)},
        {"a": torch.eye(2).to_sparse()},
        {"a": torch.zeros(2, device="meta")},
        {"a": torch.zeros(1).expand(10**9)},
        {"a": bytearray(3)},
        {"a": [torch.zeros(2)]},
    ],
    ids=["a number as a name", "sparse", "meta", "one number many times", "bytearray", "list"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_holds_whole_tensors_with_names_and_nothing_else(
    tmp_path: Path, content: object, zipped: bool
) -> None:
    file = tmp_path / "consolidated.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"consolidated\.pth: .*(is not a tensor|holds more than tensors)"):
        TorchFile(file)


def test_a_small_pickle_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    pickle = b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."
    file = tmp_path / "vqgan.ckpt"
    file.write_bytes(pickle)
    with pytest.raises(CheckpointError, match="a bytearray"):
        TorchFile(file)
    for kind, said in ((zipfile.ZIP_STORED, "a bytearray"), (zipfile.ZIP_DEFLATED, "is packed")):
        with zipfile.ZipFile(file, "w", kind) as archive:
            archive.writestr("vqgan/data.pkl", pickle)
            archive.writestr("vqgan/version", "3\n")
        with pytest.raises(CheckpointError, match=said):
            TorchFile(file)


@pytest.mark.parametrize("name", ["decoder.conv_out.weight", "quantize.embedding.weight", "encoder.conv_in.bias"])
def test_an_image_part_with_values_that_are_no_numbers_is_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    tensors = load_file(folder / "model.safetensors")
    tensors[f"model.vqmodel.{name}"].view(-1)[0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{name} holds values that are no numbers"):
        load(folder)


def test_the_hash_is_that_of_the_content_and_a_blob_written_over_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder, blobs = Path(shutil.copytree(tiny, tmp_path / "snapshot")), tmp_path / "blobs"
    blobs.mkdir()
    digest = hashlib.sha256((tiny / "model.safetensors").read_bytes()).hexdigest()
    blob = Path(shutil.move(folder / "model.safetensors", blobs / digest))
    (folder / "model.safetensors").symlink_to(blob)
    assert identify(folder).sha256 == digest
    with blob.open("r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(b"\0\1\2\3")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged or written over"):
        identify(folder)


def test_the_processor_of_transformers_5_says_how_pixels_are_scaled(tiny: Path, tmp_path: Path) -> None:
    inside = json.loads((tiny / "preprocessor_config.json").read_text()) | {"rescale_factor": layout.REFERENCE}
    folder = edited(tiny, tmp_path / "five", "processor_config.json", sets(image_processor=inside))
    (folder / "preprocessor_config.json").unlink()
    image = load(folder).tokenizer.image
    assert image is not None
    assert image.reference
    (folder / "processor_config.json").unlink()
    image = load(folder).tokenizer.image
    assert image is not None
    assert not image.reference


def test_a_context_whose_cache_does_not_fit_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twgi.checkpoint.memory.free_memory", lambda device: 5 * 10**8)
    with pytest.raises(ConfigError, match=r"a thought of 1048576 tokens .* a shorter context"):
        load(tiny, context=2**20)
    assert load(tiny, context=1000).model.config.max_positions == 1000


def test_a_limit_of_the_process_counts_as_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10, 10))
    assert free_memory(torch.device("cpu")) == 0
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (free_memory(torch.device("cpu")) or 0) > 10**8


def test_every_message_is_bounded() -> None:
    assert len(str(TwgiError("x" * 10**6))) < 5000
