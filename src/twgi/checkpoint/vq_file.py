"""An image tokenizer from a file of its own: the original `vqgan.ckpt`, or whatever checkpoint has one."""

from __future__ import annotations

from pathlib import Path

from twgi.checkpoint.hf import VQ_PREFIX, is_harmless
from twgi.checkpoint.tensors import SafetensorsFiles, Selected, Tensors, TorchFile, safetensors_folder
from twgi.errors import CheckpointError


def read_vq_file(path: Path) -> Tensors:
    """The image tokenizer's tensors under bare names (`decoder.conv_in.weight`).

    `path` is `vqgan.ckpt` or a safetensors file, or a folder in either layout that has one.

    Raises:
        CheckpointError: there is no such file, or no image decoder in it.
    """
    tensors = _opened(path)
    prefix = VQ_PREFIX if any(name.startswith(VQ_PREFIX) for name in tensors.stored) else ""
    names = {name.removeprefix(prefix): name for name in tensors.stored if name.startswith(prefix)}
    kept = {bare: name for bare, name in names.items() if not is_harmless(VQ_PREFIX + bare)}
    if not any(bare.startswith("decoder.") for bare in kept):
        raise CheckpointError(f"{path}: no image decoder in it; the original vqgan.ckpt has one")
    return Selected(tensors, kept)


def _opened(path: Path) -> Tensors:
    if path.is_dir():
        checkpoint = next((p for p in (path / "vqgan.ckpt", path / "tokenizer" / "vqgan.ckpt") if p.is_file()), None)
        return TorchFile(checkpoint, inside="state_dict") if checkpoint else safetensors_folder(path)
    if path.suffix == ".safetensors":
        return SafetensorsFiles([path])
    return TorchFile(path, inside="state_dict")
