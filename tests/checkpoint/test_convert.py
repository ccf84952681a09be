"""From one layout to another and back: bit for bit, or refused with the reason."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tests.thinking.tiny import tokenizer as tiny_tokenizer
from torch import Tensor

from twgi.checkpoint import meta
from twgi.checkpoint.convert import convert
from twgi.checkpoint.layout import Checkpoint, open_checkpoint
from twgi.checkpoint.load import load
from twgi.checkpoint.save import save
from twgi.errors import CheckpointError, ConfigError, RunError
from twgi.model.config import TransformerConfig
from twgi.model.transformer import Transformer

HEADS, KV_HEADS = 4, 4
HEAD, LAST = "lm_head.weight", "model.vqmodel.post_quant_conv.bias"


def random_folder(folder: Path, *, kv_heads: int = KV_HEADS, norms: int = 1, swin: bool = False) -> Path:
    """A checkpoint of random weights; `norms` groups of heads have norms of their own."""
    tokenizer = tiny_tokenizer()
    config = TransformerConfig(
        vocab_size=tokenizer.vocab.size + 3, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=HEADS,
        num_kv_heads=kv_heads, swin_norm=swin,
    )  # fmt: skip
    assert config.vocab_size % 4 == 0
    model = Transformer(config)
    generator = torch.Generator().manual_seed(norms)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.3, generator=generator)
            if "qk_norm" in name:
                for heads in (weight[:HEADS], weight[HEADS:]):
                    own = torch.randn(min(norms, len(heads)), heads.shape[1], generator=generator)
                    heads.copy_(own.repeat_interleave(len(heads) // len(own), dim=0))
    assert tokenizer.image is not None
    save(folder, model=model, vq=tokenizer.image.vq, tokenizer=tokenizer)
    return folder


def stored(folder: Path) -> dict[str, Tensor]:
    tensors = open_checkpoint(folder).tensors
    return tensors.read(tensors.stored)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[n].dtype == other[n].dtype and one[n].equal(other[n]) for n in one)


@pytest.mark.parametrize(("kv_heads", "norms", "swin"), [(4, 1, False), (4, 2, True), (4, 4, False), (2, 2, False)])
def test_there_and_back_again_is_bit_exact(tmp_path: Path, kv_heads: int, norms: int, swin: bool) -> None:
    source = random_folder(tmp_path / "source", kv_heads=kv_heads, norms=norms, swin=swin)
    convert(open_checkpoint(source), tmp_path / "meta", layout="meta")
    assert len(list((tmp_path / "meta/models/7b").glob("consolidated*.pth"))) == norms
    convert(open_checkpoint(tmp_path / "meta"), tmp_path / "back", layout="hf")
    assert same(stored(tmp_path / "back"), stored(source))
    assert load(tmp_path / "meta").model.config == load(source).model.config
    picture = [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    pictures = [load(folder).tokenizer.image for folder in (source, tmp_path / "back")]
    assert all(image is not None for image in pictures)
    assert pictures[0].vq.state_dict().keys() == pictures[1].vq.state_dict().keys()  # type: ignore[union-attr]
    assert pictures[0].vq.decode(torch.tensor(picture)).equal(pictures[1].vq.decode(torch.tensor(picture)))  # type: ignore[union-attr]


def test_meta_to_hf_to_meta_is_bit_exact(tmp_path: Path) -> None:
    convert(open_checkpoint(random_folder(tmp_path / "source")), tmp_path / "one", layout="meta", shards=2)
    convert(open_checkpoint(tmp_path / "one"), tmp_path / "hf", layout="hf")
    convert(open_checkpoint(tmp_path / "hf"), tmp_path / "two", layout="meta", shards=2)
    for name in ("consolidated.00.pth", "consolidated.01.pth"):
        one, two = (torch.load(tmp_path / f / "models/7b" / name, weights_only=True) for f in ("one", "two"))
        assert same(one, two)
    one, two = ((tmp_path / f / "tokenizer/text_tokenizer.json").read_text() for f in ("one", "two"))
    assert json.loads(one) == json.loads(two)
    assert '"<reserved08707>"' in one
    assert '"<image>"' not in one


@given(heads=st.sampled_from([1, 2, 4]), half=st.integers(1, 4), columns=st.integers(0, 3), seed=st.integers(0, 99))
def test_halves_and_neighbours_are_inverse(heads: int, half: int, columns: int, seed: int) -> None:
    shape = (heads * 2 * half, *([columns] if columns else []))
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    assert meta.to_halves(meta.to_neighbours(tensor, heads), heads).equal(tensor)
    assert meta.to_neighbours(meta.to_halves(tensor, heads), heads).equal(tensor)


def test_norms_that_no_shards_can_share_are_written_head_by_head_and_it_is_said(tmp_path: Path) -> None:
    source = random_folder(tmp_path / "source", kv_heads=2, norms=4)
    remarks = convert(open_checkpoint(source), tmp_path / "meta", layout="meta")
    assert ["norms of their own" in remark for remark in remarks] == [True]
    shard = torch.load(tmp_path / "meta/models/7b/consolidated.pth", weights_only=True)
    assert shard["layers.0.attention.q_normalization.weight"].shape == (4, 8)
    convert(open_checkpoint(tmp_path / "meta"), tmp_path / "back", layout="hf")
    assert same(stored(tmp_path / "back"), stored(source))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layout": "torch"}, "known are hf, meta"),
        ({"layout": "hf", "shards": 2}, "only Meta's layout has shards"),
        ({"layout": "meta", "shards": 3}, "shards must divide"),
    ],
)
def test_a_wrong_wish_is_one_line(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    source = open_checkpoint(random_folder(tmp_path / "source"))
    with pytest.raises(ConfigError, match=said):
        convert(source, tmp_path / "target", **options)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    source = random_folder(tmp_path / "source")
    with pytest.raises(RunError, match="not empty: give a new or empty folder as TARGET"):
        convert(open_checkpoint(source), source, layout="hf")


@pytest.mark.parametrize(("layout", "name"), [("hf", "model.safetensors"), ("meta", "consolidated.pth")])
def test_a_disk_that_is_full_is_told_in_a_line_and_leaves_no_half_file(tmp_path: Path, layout: str, name: str) -> None:
    resource = pytest.importorskip("resource")
    source = open_checkpoint(random_folder(tmp_path / "source"))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1][1]))
    try:
        with pytest.raises(RunError, match=f"cannot write to .*{name}"):
            convert(source, tmp_path / "out", layout=layout)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[1])
        signal.signal(signal.SIGXFSZ, before[0])
    assert not [file for file in (tmp_path / "out").rglob("*") if name in file.name]


def test_a_folder_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    source = open_checkpoint(random_folder(tmp_path / "source"))
    (tmp_path / "file").touch()
    for layout in ("hf", "meta"):
        with pytest.raises(RunError, match="cannot"):
            convert(source, tmp_path / "file" / "out", layout=layout)


def test_the_files_of_a_large_checkpoint_are_named_by_its_index(tmp_path: Path) -> None:
    source = random_folder(tmp_path / "source")
    convert(open_checkpoint(source), tmp_path / "cut", layout="hf", largest_file=200_000)
    files = sorted(path.name for path in (tmp_path / "cut").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert same(stored(tmp_path / "cut"), stored(source))
    assert load(tmp_path / "cut").sha256 != load(source).sha256


Spoil = Callable[[Path], None]


def index_of(folder: Path, change: Callable[[dict[str, str]], Any]) -> None:
    path = folder / "model.safetensors.index.json"
    raw = json.loads(path.read_text())
    change(raw["weight_map"])
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: next(f.glob("model-00002*")).unlink(), "no such file"),
        (lambda f: index_of(f, lambda m: m.update({HEAD: "../elsewhere.safetensors"})), "not the name of a file"),
        (lambda f: index_of(f, lambda m: m.update({HEAD: m[LAST]})), "lm_head.weight should be in"),
        (lambda f: index_of(f, lambda m: m.clear()), "no weight_map"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_fit_its_files_is_refused(tmp_path: Path, spoil: Spoil, said: str) -> None:
    convert(open_checkpoint(random_folder(tmp_path / "source")), tmp_path / "cut", layout="hf", largest_file=200_000)
    spoil(tmp_path / "cut")
    with pytest.raises(CheckpointError, match=said):
        load(tmp_path / "cut")


@pytest.fixture
def meta_folder(tmp_path: Path) -> Path:
    convert(open_checkpoint(random_folder(tmp_path / "source")), tmp_path / "meta", layout="meta")
    return tmp_path / "meta"


def edit_shard(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "models/7b/consolidated.pth"
    tensors = torch.load(path, weights_only=True)
    change(tensors)
    torch.save(tensors, path)


class Marker:
    """Makes a file when it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(meta_folder: Path, tmp_path: Path) -> None:
    for name in ("models/7b/consolidated.pth", "tokenizer/vqgan.ckpt"):
        folder = Path(shutil.copytree(meta_folder, tmp_path / "copy", dirs_exist_ok=True))
        torch.save({"state_dict": {}, "norm.weight": Marker(tmp_path / "marker")}, folder / name)
        with pytest.raises(CheckpointError, match=r"(consolidated|vqgan).*nothing in it was executed") as caught:
            load(folder)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "marker").exists()
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load(random_folder(tmp_path / "hf"), vq=folder / "tokenizer/vqgan.ckpt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({"extra": torch.zeros(2)}), r"extra not expected"),
        (lambda t: t.pop("layers.1.attention.wq.weight"), r"layers\.1\.attention\.wq\.weight missing"),
        (
            lambda t: t.update({"norm.weight": torch.zeros(5)}),
            r"norm\.weight is \[5\], but params\.json makes it \[32\]",
        ),
        (lambda t: t.update({"norm.weight": torch.zeros(32, dtype=torch.int64)}), r"stored as torch\.int64"),
        (lambda t: t.update({"norm.weight": 3}), r"norm\.weight is not a tensor"),
    ],
)
def test_a_shard_with_other_tensors_is_refused(
    meta_folder: Path, change: Callable[[dict[str, Tensor]], Any], said: str
) -> None:
    edit_shard(meta_folder, change)
    with pytest.raises(CheckpointError, match=said):
        load(meta_folder)


def test_a_shard_may_hold_what_is_known_to_be_harmless(meta_folder: Path) -> None:
    edit_shard(meta_folder, lambda t: t.update({"rope.freqs": torch.zeros(4)}))
    assert load(meta_folder).model.config.num_layers == 2


def rename(folder: Path) -> None:
    (folder / "models/7b/consolidated.pth").rename(folder / "models/7b/consolidated.01.pth")


def cut(folder: Path) -> None:
    path = folder / "models/7b/consolidated.pth"
    path.write_bytes(path.read_bytes()[:-500])


def set_params(folder: Path, **params: Any) -> None:
    path = folder / "models/7b/params.json"
    raw = json.loads(path.read_text())
    raw["model"] |= params
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (rename, "shards must be consolidated.pth or consolidated.00.pth on"),
        (cut, "cannot be read as a torch file"),
        (lambda f: (f / "tokenizer/vqgan.yaml").unlink(), r"cannot read .*vqgan\.yaml"),
        (lambda f: (f / "tokenizer/vqgan.yaml").write_text("model: ["), "vqgan.yaml: not valid YAML: line 1"),
        (lambda f: (f / "tokenizer/vqgan.yaml").write_text("!!python/object/apply:os.abort []"), "tags are not read"),
        (lambda f: (f / "tokenizer/vqgan.yaml").write_text("a: &a [l, l]\nb: [*a, *a]\n"), "anchors and aliases"),
        (lambda f: (f / "tokenizer/vqgan.yaml").write_text("model: {params: {embed_dim: 010}}"), "needs embed_dim"),
        (lambda f: set_params(f, n_heads=3), "hidden_size 32 must be a multiple"),
        (lambda f: set_params(f, dim=10**9), "hidden_size must be a whole number"),
        (lambda f: set_params(f, multiple_of=0), "multiple_of 0"),
        (lambda f: set_params(f, qk_normalization=False), "not a Chameleon"),
        (lambda f: shutil.copytree(f / "models/7b", f / "models/30b"), "several models"),
    ],
)  # fmt: skip
def test_a_broken_folder_of_metas_is_refused(meta_folder: Path, spoil: Spoil, said: str) -> None:
    spoil(meta_folder)
    with pytest.raises(CheckpointError, match=said):
        load(meta_folder)


def test_norms_of_older_files_are_spread_over_the_heads(tmp_path: Path) -> None:
    source = random_folder(tmp_path / "source", norms=2)
    expected = load(source).model.state_dict()
    opened: Checkpoint = open_checkpoint(source)
    tensors = dict(opened.tensors.read(opened.tensors.stored))
    for name in [name for name in tensors if "_norm." in name and "self_attn" in name]:
        tensors[name] = tensors[name][:: HEADS // 2].clone()  # one for each group of heads
    save_file(tensors, source / "model.safetensors")
    assert all(tensor.equal(expected[name]) for name, tensor in load(source).model.state_dict().items())
    name = "model.layers.0.self_attn.q_norm.weight"
    save_file(tensors | {name: torch.ones(3, 8)}, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"q_norm\.weight is \[3, 8\]"):
        load(source)
