"""Tensors in files, read when they are asked for: safetensors (one file, or several with an index) and torch's own.

Nothing is executed: pickles are read with `weights_only`. A file is mapped into memory only as long as the tensors of
one `read` live, so that reading a large checkpoint piece by piece never holds two copies of it.
"""

from __future__ import annotations

import mmap
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from twgi import files
from twgi.errors import CheckpointError, DataError, is_out_of_memory

Shape = tuple[int, ...]
Progress = Callable[[int, int], None]
"""(bytes read or written, bytes in all), after each piece of the weights."""

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_JSON = 32 * 2**20  # of the published config.json it is one, with the names of all tokens
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file says of one tensor; `file` is where it stands."""

    shape: Shape
    dtype: torch.dtype
    file: Path

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Tensors(Protocol):
    """Named tensors that are still on disk."""

    @property
    def stored(self) -> Mapping[str, Stored]:
        """Every tensor there is."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files they come from."""

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Some of them, on the CPU, as stored. Let go of them before the next read to keep memory small."""


class SafetensorsFiles:
    """The tensors of one or more safetensors files.

    Raises `CheckpointError` where one is missing, truncated or not safetensors, or a name stands in two of them.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self.stored: dict[str, Stored] = {}
        for file in self.files:
            with _open(file) as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    self.stored[name] = self._described(file, name, opened.get_slice(name))

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.stored[name].file, []).append(name)
        out: dict[str, Tensor] = {}
        for file, wanted in by_file.items():
            with _open(file) as opened:
                out |= {name: opened.get_tensor(name) for name in wanted}
        return out

    def _described(self, file: Path, name: str, piece: Any) -> Stored:
        kind = piece.get_dtype()
        if kind not in DTYPES:
            raise CheckpointError(f"{file}: {name} is stored as {kind}; only {', '.join(DTYPES)} can be loaded")
        if name in self.stored:
            raise CheckpointError(f"{file}: {name} stands in {self.stored[name].file.name} too")
        return Stored(tuple(piece.get_shape()), DTYPES[kind], file)


class TorchFile:
    """The tensors of one file of torch's own format, such as Meta's `consolidated.pth`; `inside` names a group in it.

    Raises `CheckpointError` where it is missing or truncated, or holds more than tensors (which is never executed).
    """

    def __init__(self, file: Path, *, inside: str | None = None) -> None:
        self.files, self._inside = (file,), inside
        self.stored = {name: Stored(tuple(t.shape), t.dtype, file) for name, t in self._load().items()}
        for name, entry in self.stored.items():
            if entry.dtype not in DTYPES.values():
                raise CheckpointError(f"{file}: {name} is stored as {entry.dtype}, which is not a weight's")

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        loaded = self._load()
        return {name: loaded[name] for name in names}

    def _load(self) -> dict[str, Tensor]:
        (file,) = self.files
        content = _unpickled(file)
        if self._inside is not None:
            content = content.get(self._inside) if isinstance(content, dict) else None
        if not isinstance(content, dict):
            what = f"a group {self._inside!r} of tensors" if self._inside else "named tensors"
            raise CheckpointError(f"{file}: does not hold {what}")
        wrong = next((name for name, value in content.items() if not _is_plain(name, value)), None)
        if wrong is not None:
            raise CheckpointError(f"{file}: {str(wrong)[:200]} is not a tensor, stored as a whole, with a name")
        return content


def _is_plain(name: object, value: object) -> bool:
    """Whether it is a tensor with a name whose every number is there: not sparse, on no device, nor one repeated."""
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


class Selected:
    """Some of the tensors, under other names: `names` maps the new name to the old."""

    def __init__(self, tensors: Tensors, names: Mapping[str, str]) -> None:
        self._tensors, self._names, self.files = tensors, names, tensors.files
        self.stored = {new: tensors.stored[old] for new, old in names.items()}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        wanted = list(names)
        read = self._tensors.read([self._names[name] for name in wanted])
        return {name: read[self._names[name]] for name in wanted}


class Joined:
    """Two sets of tensors as one; where both have a name, the second has the say."""

    def __init__(self, first: Tensors, second: Tensors) -> None:
        self._first, self._second = first, second
        self.files = (*first.files, *second.files)
        self.stored = {**first.stored, **second.stored}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        wanted = list(names)
        second = [name for name in wanted if name in self._second.stored]
        return {**self._first.read(set(wanted) - set(second)), **self._second.read(second)}


class WithoutInit(TorchFunctionMode):
    """Leaves out the initial values of weights: on the meta device, drawing them imports torch's compiler (seconds)."""

    def __torch_function__(self, function: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def safetensors_folder(folder: Path) -> SafetensorsFiles:
    """The weights of a Hugging Face folder: one file, or those that its index names."""
    if not (folder / INDEX).is_file():
        return SafetensorsFiles([folder / WEIGHTS])
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{folder / INDEX}: no weight_map")
    if (folder / WEIGHTS).is_file() and WEIGHTS not in places.values():
        raise CheckpointError(f"{folder}: {WEIGHTS} and {INDEX} stand there together; remove the one that is old")
    wrong = next((n for n in places.values() if not isinstance(n, str) or not _PLAIN_NAME.fullmatch(n)), None)
    if wrong is not None:
        raise CheckpointError(f"{folder / INDEX}: {wrong!r} is not the name of a file beside it")
    files = SafetensorsFiles(folder / name for name in sorted(set(places.values())))
    for name, place in places.items():
        if name not in files.stored or files.stored[name].file.name != place:
            raise CheckpointError(f"{folder / INDEX}: {name} should be in {place} and is not")
    return files


def open_tensors(path: Path, *, inside: str | None = None) -> Tensors:
    """Those of a Hugging Face folder, of a safetensors file, or of a torch file (there, of the group `inside`)."""
    if path.is_dir():
        return safetensors_folder(path)
    return SafetensorsFiles([path]) if path.suffix == ".safetensors" else TorchFile(path, inside=inside)


def check_tensors(where: Path, expected: Mapping[str, Shape], found: Mapping[str, Shape], *, told_by: str) -> None:
    """Raise `CheckpointError` unless these are just the tensors expected, of the shapes that `told_by` says."""
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing:
        raise CheckpointError(f"{where}: {_some(missing)} missing")
    if unexpected:
        raise CheckpointError(f"{where}: {_some(unexpected)} not expected")
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(f"{where}: {name} is {list(found[name])}, but {told_by} makes it {list(shape)}")


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """A JSON object from a file of bounded size, else `CheckpointError`; empty where an optional file is not there."""
    if optional and not path.exists():
        return {}
    try:
        value = files.read_json(path, most=MAX_JSON)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return value


def _some(names: Iterable[str]) -> str:
    first = sorted(names)
    more = f" and {len(first) - 3} more" if len(first) > 3 else ""
    return f"{len(first)} tensor(s): {', '.join(first[:3])}{more}"


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    try:
        with files.open_regular(file) as header:
            if int.from_bytes(header.read(8), "little") > MAX_JSON:
                raise CheckpointError(f"{file}: no safetensors file, or its header is over {MAX_JSON >> 20} MiB")
        with safe_open(file, framework="pt", device="cpu") as opened:
            yield opened
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file; the checkpoint is incomplete") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors ({error})") from error


def _unpickled(file: Path) -> Any:
    """The content of a torch file. Old ones cannot be mapped into memory, and are read whole."""
    try:
        _check_pickle(file)
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file; the checkpoint is incomplete") from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file may raise anything
        if is_out_of_memory(error):
            raise
        if type(error).__name__ == "UnpicklingError":
            reason = "holds more than tensors, or is no torch file; nothing in it was executed"
            raise CheckpointError(f"{file}: {reason}") from error
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(f"{file}: cannot be read as a torch file ({reason})") from error


def _check_pickle(file: Path) -> None:
    """Refuse the one call that `weights_only` makes and that costs memory without a tensor: `bytearray(2**31)`."""
    with files.open_regular(file) as opened:
        if opened.read(4) != b"PK\x03\x04":
            opened.seek(0)
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = content.find(b"bytearray") >= 0
        else:
            with zipfile.ZipFile(opened) as archive:
                pickles = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".pkl")]
                if any(entry.compress_type for entry in pickles) or sum(e.file_size for e in pickles) > MAX_JSON:
                    raise CheckpointError(f"{file}: its list of tensors is packed or larger than {MAX_JSON >> 20} MiB")
                found = any(b"bytearray" in archive.read(entry) for entry in pickles)
    if found:
        raise CheckpointError(f"{file}: holds more than tensors (a bytearray); nothing in it was executed")
