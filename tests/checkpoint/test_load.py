"""Loading is strict and executes nothing; saving is its inverse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.thinking.tiny import model as tiny_model
from tests.thinking.tiny import tokenizer as tiny_tokenizer
from torch import Tensor

from twgi.checkpoint.load import Loaded, load
from twgi.checkpoint.save import save
from twgi.errors import CheckpointError, TwgiError
from twgi.trace import ImageSegment

DEFAULTS = {"guidance": "icons", "text_temperature": 0.9}


def save_tiny(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    tokenizer = tiny_tokenizer()
    assert tokenizer.image is not None
    save(folder, model=tiny_model(), vq=tokenizer.image.vq, tokenizer=tokenizer, dtype=dtype, defaults=DEFAULTS)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any], name: str = "config.json") -> None:
    raw = json.loads((folder / name).read_text())
    change(raw)
    (folder / name).write_text(json.dumps(raw))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in (folder.name, *words):
        assert word in message, message


def all_tensors(loaded: Loaded) -> dict[str, Tensor]:
    assert loaded.tokenizer.image is not None
    return loaded.model.state_dict() | loaded.tokenizer.image.vq.state_dict(prefix="vq.")


def test_what_is_saved_is_loaded_bit_for_bit(saved: Path) -> None:
    loaded = load(saved)
    expected = tiny_model().state_dict()
    assert loaded.model.config == tiny_model().config
    assert all(tensor.equal(expected[name]) for name, tensor in loaded.model.state_dict().items())
    assert (loaded.name, dict(loaded.defaults)) == ("tiny", DEFAULTS)
    assert loaded.tokenizer.vocab == tiny_tokenizer().vocab
    assert loaded.tokenizer.encode_prompt("a red ab") == tiny_tokenizer().encode_prompt("a red ab")
    codes = [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert loaded.tokenizer.image is not None
    assert tiny_tokenizer().image is not None
    assert loaded.tokenizer.image.vq.config == tiny_tokenizer().image.vq.config  # type: ignore[union-attr]
    picture = loaded.tokenizer.image.decode(codes)[0]
    assert picture.size == (12, 12)


def test_the_same_weights_have_the_same_hash(saved: Path, tmp_path: Path) -> None:
    again = save_tiny(tmp_path / "again")
    assert load(again).sha256 == load(saved).sha256
    edit_weights(again, lambda tensors: tensors["lm_head.weight"].add_(1))
    assert load(again).sha256 != load(saved).sha256


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_on_disk_and_computed_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    loaded = load(save_tiny(tmp_path / "half", dtype))
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()} == {dtype}
    assert {tensor.dtype for tensor in all_tensors(loaded).values()} == {torch.float32}
    assert loaded.model.head.weight.equal(tiny_model().head.weight.to(dtype).float())


def test_a_loaded_model_draws_no_gradients_and_is_packed(saved: Path) -> None:
    loaded = load(saved)
    assert not any(tensor.requires_grad for tensor in all_tensors(loaded).values())
    assert loaded.model.packed is not None
    assert not loaded.model.training


def test_writing_holds_the_tensors_of_one_file_and_one_more_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    assert tokenizer.image is not None
    whole, largest, held, most = model.state_dict(), 20_000, [0], [0]

    def tensor(name: str) -> Tensor:
        held[0] += whole[name].nbytes
        most[0] = max(most[0], held[0])
        return whole[name]

    def write(file: Path, tensors: dict[str, Tensor]) -> None:
        written = sum(value.nbytes for value in tensors.values())
        assert written <= largest or len(tensors) == 1
        held[0] = 0
        save_file(tensors, file)

    monkeypatch.setattr("twgi.checkpoint.save.write_tensors", write)
    save(tmp_path / "cut", model=model, vq=tokenizer.image.vq, tokenizer=tokenizer, tensor=tensor, largest_file=largest)
    assert len(list((tmp_path / "cut").glob("model-*.safetensors"))) > 3
    assert most[0] <= max(largest, *(value.nbytes for value in whole.values())) * 2
    assert most[0] < sum(value.nbytes for value in whole.values()) / 2
    read = load(tmp_path / "cut")
    assert all(value.equal(whole[name]) for name, value in read.model.state_dict().items())
    monkeypatch.undo()
    save(tmp_path / "none", model=model, vq=tokenizer.image.vq, tokenizer=tokenizer, writes=False)
    assert not (tmp_path / "none").exists()


def test_hugging_face_reads_what_we_save(saved: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle of the parity tests is not installed")
    theirs, info = transformers.ChameleonForConditionalGeneration.from_pretrained(
        saved, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert all(key.startswith("model.vqmodel.decoder.") for key in info["unexpected_keys"])
    tokens_BT = torch.arange(30)[None]
    with torch.no_grad():
        expected = theirs.lm_head(theirs.eval().model(tokens_BT).last_hidden_state)
    model = load(saved).model
    torch.testing.assert_close(model.logits(model(tokens_BT)), expected, atol=1e-4, rtol=1e-5)


def test_an_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    for name, word in (("icon", "icons"), ("nothing-like-it", "icons"), (str(tmp_path / "absent"), "absent")):
        with pytest.raises(TwgiError, match=word):
            load(name)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(folder, "model.layers.1.mlp.up_proj.weight", "missing")


def test_an_unexpected_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"model.extra": torch.zeros(1)}))
    refused(folder, "model.extra", "not expected")


def test_a_wrong_shape_is_named(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(5)}))
    refused(folder, "model.norm.weight", "[5]", "[32]")


def test_many_missing_tensors_are_counted(folder: Path) -> None:
    edit_weights(folder, lambda tensors: [tensors.pop(key) for key in list(tensors) if ".layers.0." in key])
    refused(folder, "13 tensor(s)", "and 10 more")


def without_decoder(folder: Path) -> Path:
    edit_weights(folder, lambda tensors: [tensors.pop(key) for key in list(tensors) if ".decoder." in key])
    return folder


def test_a_checkpoint_without_an_image_decoder_looks_and_does_not_draw(folder: Path) -> None:
    loaded = load(without_decoder(folder))
    assert any("--vq" in remark for remark in loaded.remarks)
    assert loaded.tokenizer.codes([Image.new("RGB", (12, 12), "red")])
    assert not loaded.tokenizer.draws
    with pytest.raises(CheckpointError, match=r"vqgan\.ckpt"):
        loaded.tokenizer.draw([ImageSegment(tokens=tuple(loaded.tokenizer.image_block(range(9))))])


def test_an_image_decoder_can_come_from_elsewhere(folder: Path, saved: Path) -> None:
    loaded = load(without_decoder(folder), vq=saved)
    assert loaded.remarks == ()
    expected = all_tensors(load(saved))
    assert all(tensor.equal(expected[name]) for name, tensor in all_tensors(loaded).items())


def test_an_image_tokenizer_of_another_model_is_refused(folder: Path, saved: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(saved, tmp_path / "other"))
    edit_weights(other, lambda tensors: tensors["model.vqmodel.quantize.embedding.weight"].add_(1))
    with pytest.raises(CheckpointError, match="another codebook"):
        load(without_decoder(folder), vq=other)
    with pytest.raises(CheckpointError, match="no image decoder"):
        load(saved, vq=folder)


def test_half_an_image_decoder_is_refused(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.pop("model.vqmodel.decoder.conv_in.weight"))
    refused(folder, "model.vqmodel.decoder.conv_in.weight", "missing")


def test_a_head_that_never_draws_is_remarked_upon(folder: Path, saved: Path) -> None:
    ids = list(tiny_tokenizer().vocab.image_tokens)
    assert not any("raw Chameleon" in remark for remark in load(saved).remarks)
    edit_weights(folder, lambda tensors: tensors["lm_head.weight"].index_fill_(0, torch.tensor(ids), 0.0))
    assert any("raw Chameleon" in remark for remark in load(folder).remarks)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(folder, "model.safetensors")
    file.write_bytes(b"\x80\x04cos\nsystem\n(S'false'\ntR.")
    refused(folder, "model.safetensors")
    file.unlink()
    refused(folder, "model.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"trust_remote_code": True},
        {"_attn_implementation_internal": "someone/kernels"},
        {"vq_config": {"auto_map": {}}},
        {"model_type": "llama"},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "yarn"}},
        {"num_hidden_layers": 10**9},
        {"hidden_size": "32"},
        {"hidden_size": True},
        {"num_attention_heads": 3},
        {"vq_config": {"ch": 32, "base_channels": 64}},
        {"vq_config": {"resolution": 10**6}},
        {"vocabulary_map": ["<s>"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_config_we_would_misread_is_refused(folder: Path, change: dict[str, Any]) -> None:
    edit(folder, lambda raw: raw.update(change))
    refused(folder)


def test_a_hole_in_the_vocabulary_is_refused(folder: Path) -> None:
    edit(folder, lambda raw: raw["vocabulary_map"].pop("IMGIMGDZ"))
    refused(folder, "codebook index 3")


def test_a_map_that_contradicts_the_tokenizer_is_refused(folder: Path) -> None:
    def swap(raw: dict[str, Any]) -> None:
        names = raw["vocabulary_map"]
        names["IMGIMGDZ"], names["IMGIMGEZ"] = names["IMGIMGEZ"], names["IMGIMGDZ"]

    edit(folder, swap)
    refused(folder, "IMGIMG")


def test_unknown_preprocessing_is_refused(folder: Path) -> None:
    edit(folder, lambda raw: raw.update(resample=3), "preprocessor_config.json")
    refused(folder, "resample")
    edit(folder, lambda raw: raw.update(resample=1, rescale_factor=1 / 255), "preprocessor_config.json")
    refused(folder, "rescale_factor")


def test_the_published_pixel_scale_is_taken_from_the_folder(folder: Path) -> None:
    edit(folder, lambda raw: raw.update(rescale_factor=0.0078), "preprocessor_config.json")
    image = load(folder).tokenizer.image
    assert image is not None
    assert image.reference


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"a": "' + "\ud800" * 0 + "\\ud800"])
def test_a_config_that_is_no_object_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, "config.json")
