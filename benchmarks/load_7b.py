"""Load a checkpoint of the published 7B's shape, random weights, and draw a few tokens with it.

    OMP_NUM_THREADS=2 python benchmarks/load_7b.py --folder /tmp/seven --dtype bfloat16 --tokens 4

Writes about 14 GB in the layout of the published code's fork (bfloat16, several files), loads it in a fresh process,
draws, prints seconds and peak memory against the size of the weights as JSON, and removes the folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from twgi.checkpoint import hf
from twgi.checkpoint.convert import CONVERTED
from twgi.checkpoint.layout import open_checkpoint
from twgi.checkpoint.memory import GB, sizes, weight_bytes
from twgi.checkpoint.save import LARGEST_FILE, json_files, write_groups, write_json_files
from twgi.checkpoint.tensors import WithoutInit
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.vqvae import VQModel
from twgi.tokenizer.text import TextTokenizer
from twgi.vocab import Vocab, image_name

IMAGES, FIRST_TEXT = 8192, 8712  # of the published vocabulary, by id (notes in docs/design.md)


def published_vocabulary(size: int) -> TextTokenizer:
    """Bytes as text, and every mark and image token where the published vocabulary has it."""
    names = ["<s>", "<pad>", "</s>", "<unk>", *map(image_name, range(IMAGES)), "<eoss>", "<racm3:break>"]
    names += [f"<reserved{i:05d}>" for i in range(len(names) - 4, FIRST_TEXT - 5)] + ["<image>"]
    names += sorted(ByteLevel.alphabet())
    names += [f"never written {i}" for i in range(len(names), size)]
    bpe = Tokenizer(BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return TextTokenizer.from_bpe(bpe)


def make(folder: Path, layers: int) -> None:
    """A checkpoint of random weights, a few gigabytes in memory at a time."""
    config = TransformerConfig(
        vocab_size=65536, hidden_size=4096, intermediate_size=11008, num_layers=layers, num_heads=32, num_kv_heads=32
    )
    vq_config, text = VQConfig(), published_vocabulary(config.vocab_size)
    with torch.device("meta"), WithoutInit():
        image = {hf.VQ_PREFIX + name: tuple(t.shape) for name, t in VQModel(vq_config).state_dict().items()}
    shapes = hf.shapes(config) | image
    folder.mkdir(parents=True)
    write_groups(
        folder, {name: 2 * torch.Size(shape).numel() for name, shape in shapes.items()},
        lambda names: {name: random_tensor(name, shapes[name]) for name in names}, LARGEST_FILE,
        progress=lambda done, total: print(f"{done / GB:.1f} of {total / GB:.1f} GB written", file=sys.stderr),
    )  # fmt: skip
    vocab = Vocab.from_names(text.names, tokens_per_image=vq_config.tokens_per_image, size=config.vocab_size)
    files = json_files(
        config, vq_config, vocab, text, dtype=torch.bfloat16, marks={"bos_token_id": 1}, published_pixels=True,
        generation=CONVERTED,
    )  # fmt: skip
    write_json_files(folder, files, text)


def random_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16) if name.endswith("weight") else torch.zeros(shape).bfloat16()
    return torch.empty(shape, dtype=torch.bfloat16).uniform_(-0.03, 0.03)


def measure(folder: Path, device: str, dtype: str, tokens: int, int8: bool) -> dict[str, float | str | bool]:
    """Load and draw in this process, which must be a fresh one."""
    import twgi

    before = peak(device)
    start = time.perf_counter()
    thinker = twgi.load(folder, device=device, dtype=getattr(torch, dtype), context=2048, int8=int8)
    loaded, memory = time.perf_counter() - start, peak(device)
    weights = weight_bytes(sizes(open_checkpoint(folder)), getattr(torch, dtype), int8=int8)
    start, drawn = time.perf_counter(), 0
    for event in thinker.stream("a photo of a red couch", mode="direct"):
        drawn += isinstance(event, twgi.ImageProgress)
        if drawn == tokens:
            break
    seconds = time.perf_counter() - start
    return {
        "device": device, "dtype": dtype, "int8": int8, "threads": torch.get_num_threads(),
        "weights_gb": round(weights / GB, 2), "load_s": round(loaded, 1), "peak_gb": round(memory / GB, 2),
        "before_gb": round(before / GB, 2), "peak_over_weights": round(memory / weights, 3), "drawn": drawn,
        "s_per_token": round(seconds / drawn, 2), "peak_drawing_gb": round(peak(device) / GB, 2),
    }  # fmt: skip


def peak(device: str) -> int:
    """The most memory so far: of the GPU, or of this process, files that are mapped into it counted."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder, removed at the end")
    parser.add_argument("--layers", type=int, default=32, help="fewer for a smaller test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the folder, and use it if it is there")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        told = measure(options.folder, options.device, options.dtype, options.tokens, options.int8)
        print(json.dumps(told))
        return
    try:
        if not (options.keep and options.folder.exists()):
            make(options.folder, options.layers)
        subprocess.run([sys.executable, *sys.argv, "--measure"], check=True)
    finally:
        if not options.keep:
            shutil.rmtree(options.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
