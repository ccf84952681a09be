"""Load a checkpoint folder, and save one: strict about every tensor, and nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from twgi.checkpoint import hf
from twgi.checkpoint.presets import resolve
from twgi.errors import CheckpointError, TwgiError
from twgi.model.config import VQConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.tokenizer.image import ImageTokenizer
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.tokenizer.text import TextTokenizer
from twgi.vocab import Vocab

MAX_JSON = 64 * 2**20
PACK_LIMIT = 10**9  # parameters; a packed copy of a larger model would not fit beside it
OURS = 2 / 255  # pixels are x * 2 / 255 - 1
REFERENCE = 0.0078  # what the published preprocessor takes for it


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint, ready to draw. `sha256` is of the weights file; `defaults` are its own settings for thinking."""

    model: Transformer
    tokenizer: MultimodalTokenizer
    name: str
    sha256: str
    folder: Path
    defaults: Mapping[str, Any] = field(default_factory=dict)


def load(
    name_or_path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None, threads: int = 1
) -> Loaded:
    """Read a preset or folder: the decoder as `dtype` (float32 on a CPU, bfloat16 elsewhere), the image part float32.

    On a CPU, torch is set to `threads` threads: small models are not faster with more, and the last bits of a
    result, hence now and then a token, depend on the number of threads.

    Raises `CheckpointError`, with the name of the file, for whatever is missing, unexpected or not supported.
    """
    name, folder = resolve(name_or_path)
    device = torch.device(device)
    if device.type == "cpu":
        torch.set_num_threads(threads)
    with _naming(folder):
        raw = read_json(folder / "config.json")
        config, vq_config = hf.read_config(raw)
        with torch.device("meta"), _NoInit():
            model, vq = Transformer(config), VQModel(vq_config)
        file = folder / "model.safetensors"
        dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
        _read_weights(file, model, vq, device, dtype)
        tokenizer = _read_tokenizer(folder, raw, config.vocab_size, vq_config, vq)
        defaults = _read_defaults(folder / "generation_config.json")
    ready = model.pack() if _worth_packing(model, device, dtype) else model
    return Loaded(model=ready, tokenizer=tokenizer, name=name, sha256=_sha256(file), folder=folder, defaults=defaults)


def save(
    folder: str | Path,
    *,
    model: Transformer,
    vq: VQModel,
    tokenizer: MultimodalTokenizer,
    dtype: torch.dtype = torch.float32,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder that `load`, and the published code's fork of transformers, can read; weights stored as `dtype`.

    `defaults` are this checkpoint's settings for thinking (guidance, temperature, ...).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = hf.split(model.config, model.state_dict())
    tensors |= {hf.VQ_PREFIX + key: value for key, value in vq.state_dict().items()}
    stored = {key: value.detach().to("cpu", dtype).contiguous() for key, value in tensors.items()}
    for name, content in _json_files(model, vq, tokenizer, dtype, defaults or {}).items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer.text.bpe.to_str(), encoding="utf-8")
    unfinished = folder / "model.safetensors.part"
    save_file(stored, unfinished, metadata={"format": "pt"})
    unfinished.chmod(0o644)  # safetensors writes files that only their owner can read
    unfinished.replace(folder / "model.safetensors")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size; raises `CheckpointError`."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise CheckpointError(f"{path}: larger than {MAX_JSON // 2**20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return value


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Every mistake found inside is one of the checkpoint, and says in which folder."""
    try:
        yield
    except TwgiError as error:
        if str(folder) in str(error):
            raise
        raise CheckpointError(f"{folder}: {error}") from error


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _read_defaults(path: Path) -> dict[str, Any]:
    defaults = _read_optional(path).get("twgi", {})
    if not isinstance(defaults, dict):
        raise CheckpointError(f"{path}: twgi must be a group of settings, got {defaults!r}")
    return defaults


def _read_weights(file: Path, model: Transformer, vq: VQModel, device: torch.device, dtype: torch.dtype) -> None:
    """Fill both networks from the file, one tensor at a time."""
    ours, image = model.state_dict(), vq.state_dict()
    expected = hf.shapes(model.config, ours) | {hf.VQ_PREFIX + key: tuple(t.shape) for key, t in image.items()}
    try:
        with safe_open(file, framework="pt", device=str(device)) as weights:
            found = {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118
            check_tensors(file, expected, found)
            for name, parts in hf.names(model.config).items():
                ours[name] = torch.cat([weights.get_tensor(part).to(dtype) for part in parts])
            for key in image:
                image[key] = weights.get_tensor(hf.VQ_PREFIX + key).to(torch.float32)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors ({error})") from error
    _fill(model, ours)
    _fill(vq, image)
    model.to(device)  # the rotary tables
    vq.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # by far the fastest convolutions on a CPU


class _NoInit(TorchFunctionMode):
    """Leaves out the initial values of weights: on the meta device, drawing them imports torch's compiler (seconds)."""

    def __torch_function__(
        self, function: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def _fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    network.load_state_dict(tensors, assign=True)
    network.requires_grad_(False).eval()


def check_tensors(file: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `CheckpointError` unless the file has just these tensors, of these shapes."""
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    if any(key.startswith(hf.VQ_PREFIX + "decoder.") for key in missing) and not _has_decoder(found):
        raise CheckpointError(f"{file}: no image decoder ({hf.VQ_PREFIX}decoder.*), so this checkpoint cannot draw")
    if missing:
        raise CheckpointError(f"{file}: {_some(missing)} missing")
    if unexpected:
        raise CheckpointError(f"{file}: {_some(unexpected)} not expected")
    for key, shape in expected.items():
        if found[key] != shape:
            raise CheckpointError(f"{file}: {key} is {list(found[key])}, but config.json makes it {list(shape)}")


def _has_decoder(found: Iterable[str]) -> bool:
    return any(key.startswith(hf.VQ_PREFIX + "decoder.") for key in found)


def _some(keys: Iterable[str]) -> str:
    first = sorted(keys)
    more = f" and {len(first) - 3} more" if len(first) > 3 else ""
    return f"{len(first)} tensor(s): {', '.join(first[:3])}{more}"


def _read_tokenizer(
    folder: Path, raw: Mapping[str, Any], size: int, vq_config: VQConfig, vq: VQModel
) -> MultimodalTokenizer:
    text = TextTokenizer.from_file(folder / "tokenizer.json")
    names = raw.get("vocabulary_map") or text.names
    _check_names(folder, names, text.names)
    vocab = Vocab.from_names(names, tokens_per_image=vq_config.tokens_per_image, size=size, special=text.special_ids)
    if len(vocab.image_tokens) != vq_config.num_embeddings:
        counts = f"{len(vocab.image_tokens)} image tokens, the codebook {vq_config.num_embeddings} codes"
        raise CheckpointError(f"{folder}: the vocabulary has {counts}")
    preprocessor = _read_optional(folder / "preprocessor_config.json")
    reference = _uses_reference_scale(folder, preprocessor, vq_config.resolution)
    image = ImageTokenizer(vq, resolution=vq_config.resolution, reference=reference)
    return MultimodalTokenizer(vocab, text, image)


def _check_names(folder: Path, names: Any, tokenizer_names: Mapping[str, int]) -> None:
    """config.json's map and tokenizer.json must agree: one says what ids mean, the other writes them."""
    if not isinstance(names, dict) or not all(type(token) is int for token in names.values()):
        raise CheckpointError(f"{folder}/config.json: vocabulary_map must map names to ids")
    wrong = next((name for name, token in tokenizer_names.items() if names.get(name, token) != token), None)
    if wrong is not None:
        ids = f"{names[wrong]} in config.json and {tokenizer_names[wrong]} in tokenizer.json"
        raise CheckpointError(f"{folder}: token {wrong!r} is id {ids}")


def _uses_reference_scale(folder: Path, raw: Mapping[str, Any], resolution: int) -> bool:
    """Whether pixels are scaled as the published code does; other preprocessing than the two known ones is refused."""
    known = {
        "do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True, "resample": 1,
        "image_mean": [1.0] * 3, "image_std": [1.0] * 3,
        "size": {"shortest_edge": resolution}, "crop_size": {"height": resolution, "width": resolution},
    }  # fmt: skip
    wrong = next((key for key, value in known.items() if raw.get(key, value) != value), None)
    if wrong is not None:
        raise CheckpointError(f"{folder}/preprocessor_config.json: {wrong} = {raw[wrong]!r} is not {known[wrong]!r}")
    factor = raw.get("rescale_factor", OURS)
    for scale in (OURS, REFERENCE):
        if abs(factor - scale) < 1e-7:
            return scale == REFERENCE
    raise CheckpointError(
        f"{folder}/preprocessor_config.json: rescale_factor {factor} is neither 2/255 nor {REFERENCE}"
    )


def _json_files(
    model: Transformer, vq: VQModel, tokenizer: MultimodalTokenizer, dtype: torch.dtype, defaults: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The small files of a folder: name -> content."""
    vocab, side = tokenizer.vocab, vq.config.resolution
    reference = tokenizer.image is not None and tokenizer.image.reference
    by_id = {token: name for name, token in tokenizer.text.names.items()}
    marks = {"bos_token_id": vocab.bos, "eos_token_id": vocab.eos, "pad_token_id": vocab.pad}
    return {
        "config.json": {
            **hf.write_config(model.config, vq.config), **marks,
            "boi_token_id": vocab.boi, "eoi_token_id": vocab.eoi, "image_token_id": vocab.placeholder,
            "torch_dtype": str(dtype).removeprefix("torch."), "vocabulary_map": tokenizer.text.names,
        },
        "generation_config.json": {**marks, "do_sample": True, "twgi": dict(defaults)},
        "preprocessor_config.json": {
            "image_processor_type": "ChameleonImageProcessor", "processor_class": "ChameleonProcessor",
            "do_convert_rgb": True, "do_resize": True, "size": {"shortest_edge": side}, "resample": 1,
            "do_center_crop": True, "crop_size": {"height": side, "width": side}, "do_rescale": True,
            "rescale_factor": REFERENCE if reference else OURS, "do_normalize": True,
            "image_mean": [1.0] * 3, "image_std": [1.0] * 3,
        },
        "processor_config.json": {
            "processor_class": "ChameleonProcessor", "image_seq_length": vocab.tokens_per_image,
            "image_token": by_id[vocab.placeholder],
        },
        "special_tokens_map.json": {
            "bos_token": by_id[vocab.bos], "eos_token": by_id[vocab.eos], "pad_token": by_id[vocab.pad],
            "unk_token": by_id[vocab.unk], "sep_token": by_id[vocab.separator],
        },
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False},
    }  # fmt: skip


def _worth_packing(model: Transformer, device: torch.device, dtype: torch.dtype) -> bool:
    small = sum(weight.numel() for weight in model.parameters()) < PACK_LIMIT
    return small and device.type == "cpu" and dtype == torch.float32


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
