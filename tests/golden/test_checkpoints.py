"""One set of weights in every published layout: loaded, and converted, to the same bits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from twgi.checkpoint.convert import convert
from twgi.checkpoint.layout import open_checkpoint
from twgi.checkpoint.load import Loaded, describe, load
from twgi.errors import CheckpointError


def of_layout(golden: Path, name: str) -> Path:
    """One of the set's checkpoints that not every set has."""
    if not (golden / name).is_dir():
        pytest.skip(f"the set has no {name}")
    return golden / name


def weights(loaded: Loaded) -> dict[str, Tensor]:
    assert loaded.tokenizer.image is not None
    return {**loaded.model.state_dict(), **loaded.tokenizer.image.vq.state_dict(prefix="vq.")}


def stored(folder: Path) -> dict[str, Tensor]:
    tensors = open_checkpoint(folder).tensors
    return tensors.read(tensors.stored)


def test_every_layout_gives_the_same_model(twins: list[Path], loaded: Loaded) -> None:
    expected = weights(loaded)
    for folder in twins:
        other = load(folder)
        assert other.model.config == loaded.model.config, folder
        assert other.tokenizer.vocab == loaded.tokenizer.vocab, folder
        own = weights(other)
        assert other.tokenizer.draws == any(name.startswith("vq.decoder.") for name in own)
        left_out = {name.split(".")[1] for name in expected.keys() - own.keys()}
        assert left_out <= ({"decoder", "post_quant_conv"} if not other.tokenizer.draws else set()), folder
        for name, tensor in own.items():
            assert tensor.equal(expected[name]), (folder, name)


def test_every_value_of_every_file_is_the_same(twins: list[Path]) -> None:
    expected = stored(twins[0])
    for folder in twins:
        for name, tensor in stored(folder).items():
            assert tensor.to(expected[name].dtype).equal(expected[name]), (folder, name)


def test_the_config_of_transformers_5_says_the_same(golden: Path, loaded: Loaded, tmp_path: Path) -> None:
    folder = Path(
        shutil.copytree(of_layout(golden, "checkpoint_upstream"), tmp_path / "upstream", copy_function=shutil.copyfile)
    )
    (folder / "config.transformers5.json").replace(folder / "config.json")
    assert load(folder).model.config == loaded.model.config


def test_a_checkpoint_that_cannot_draw_is_completed_by_the_original_image_tokenizer(
    golden: Path, loaded: Loaded
) -> None:
    mute, original = (
        of_layout(golden, "checkpoint_upstream"),
        of_layout(golden, "checkpoint_meta") / "tokenizer/vqgan.ckpt",
    )
    with pytest.raises(CheckpointError, match="no image decoder"):
        load(mute).tokenizer.draw(drawn_segments(loaded))
    completed = load(mute, vq=original)
    expected = weights(loaded)
    assert completed.remarks == ()
    assert weights(completed).keys() == expected.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in weights(completed).items())


def drawn_segments(loaded: Loaded) -> Any:
    block = loaded.tokenizer.image_block([0] * loaded.tokenizer.vocab.tokens_per_image)
    return loaded.tokenizer.decode(block)[0]


def test_metas_layout_becomes_the_forks_bit_for_bit(golden: Path, tmp_path: Path) -> None:
    convert(open_checkpoint(of_layout(golden, "checkpoint_meta")), tmp_path / "hf", layout="hf", dtype=torch.float32)
    expected, made = (
        load_file(folder / "model.safetensors") for folder in (golden / "checkpoint_fork", tmp_path / "hf")
    )
    assert made.keys() == expected.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in made.items())
    theirs, ours = (json.loads((f / "config.json").read_text()) for f in (golden / "checkpoint_fork", tmp_path / "hf"))
    told = (theirs.keys() & ours.keys()) - {"vq_config", "architectures", "transformers_version"}
    assert {key: ours[key] for key in told} == {key: theirs[key] for key in told}
    assert theirs["vocabulary_map"] == ours["vocabulary_map"]


def test_every_checkpoint_that_draws_survives_the_way_through_metas_layout(golden: Path, tmp_path: Path) -> None:
    for folder in sorted(golden.glob("checkpoint_*")):
        source, there, back = open_checkpoint(folder), tmp_path / folder.name / "meta", tmp_path / folder.name / "hf"
        if not source.draws:
            continue
        convert(source, there, layout="meta")
        convert(open_checkpoint(there), back, layout="hf", largest_file=10**6)
        expected, made = stored(folder), stored(back)
        assert made.keys() == expected.keys()
        assert all(t.equal(expected[name]) and t.dtype == expected[name].dtype for name, t in made.items())


def test_the_marks_and_codes_are_where_the_set_says(loaded: Loaded, cases: dict[str, Any]) -> None:
    vocab, ids, listed = loaded.tokenizer.vocab, cases["ids"], cases["codebook_index_of_vocabulary_id"]
    told = {
        "bos_in_tokenizer": vocab.bos, "bos_in_config": loaded.config_bos, "pad": vocab.pad, "eos": vocab.eos,
        "unk": vocab.unk, "first_image_token": min(vocab.image_tokens), "last_image_token": max(vocab.image_tokens),
        "eoi": vocab.eoi, "boi": vocab.boi, "separator": vocab.separator, "image_placeholder": vocab.placeholder,
        "first_text_token": min(vocab.text_ids), "image_tokens_per_image": vocab.tokens_per_image,
    }  # fmt: skip
    assert told == {key: ids[key] for key in told}
    codes = [vocab.code(listed["first_id"] + place) for place in range(len(listed["indices"]))]
    assert codes == listed["indices"]
    assert sorted(codes) == list(range(len(vocab.image_tokens)))


def test_the_sizes_are_those_of_the_set(golden: Path, cases: dict[str, Any]) -> None:
    config = cases["config"]
    model = describe(open_checkpoint(golden / "checkpoint_fork"))["model"]
    names = {
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "num_kv_heads": "num_key_value_heads",
    }
    for ours in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_layers",
        "num_heads",
        "num_kv_heads",
        "swin_norm",
    ):
        assert model[ours] == config[names.get(ours, ours)]
