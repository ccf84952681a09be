"""The pictures of a benchmark in a folder, made by `twgi eval dpg` or by anybody else.

Layouts, told apart by content:

- ``pictures.jsonl``: a run of ours; a line for each thought with all its pictures in order
- ``ID.png``: one file for each prompt, holding one picture, or four as a 2 x 2 grid (the published shape)
- ``ID_0.png`` or ``ID/0.png``: a file for each sample, counted from 0 or from 1

ID is the file's name without its last ending (`a.b.png` is of prompt `a.b`). The size of a grid's pictures is half of
the grid's. Files of no prompt are reported, never dropped in silence.
"""

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.errors import ConfigError, ImageError, RunError
from twgi.evaluation.shards import shards_in
from twgi.tokenizer.image import open_picture
from twgi.trace import RUN

MANIFEST = "pictures.jsonl"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
GRID = 4
NOT_DRAWN = "no picture"
_NUMBERED = re.compile(r"(.+)[_-](\d{1,6})")
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127})*")


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Where one picture is: a file, or a quarter of it (0 top left, 1 top right, 2 bottom left, 3 bottom right).

    Without a file it is nowhere: an image that was not whole and so was not drawn, or one that is not here.
    """

    file: Path | None
    crop: int | None = None

    def open(self, whole: Image.Image | None = None) -> Image.Image:
        """The picture as RGB; `whole` is its file's content where that is at hand. Raises `ImageError`."""
        if self.file is None:
            raise ImageError(NOT_DRAWN)
        whole = open_picture(self.file) if whole is None else whole
        if self.crop is None:
            return whole
        width, height = whole.width // 2, whole.height // 2
        if not width or not height:
            raise ImageError(f"{self.file}: {whole.width} x {whole.height} pixels cannot hold four pictures")
        left, top = self.crop % 2 * width, self.crop // 2 * height
        return whole.crop((left, top, left + width, top + height))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The pictures of one thought in order; a `failed` one has none.

    Of ours are known the tokens of each picture, and the seconds of work up to each and up to the thought's end.

    Of a `recorded` thought there are answers only: its spots stand for pictures that nobody has here.
    """

    item_id: str
    sample: int
    spots: tuple[Spot, ...] = ()
    failed: bool = False
    recorded: bool = False
    image_tokens: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PictureFolder:
    """What is in a folder: the samples of known prompts, files of no prompt, how many samples each prompt should
    have."""

    root: Path
    samples: Mapping[tuple[str, int], Sample]
    each: int
    unknown: tuple[str, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        item, last = max(self.samples, key=lambda key: key[1], default=("", 0))
        if last >= self.each:
            raise ConfigError(f"{self.root}: picture {last + 1} of {item}, not {self.each}: say --samples {last + 1}")

    def missing(self, ids: Iterable[str]) -> list[tuple[str, int]]:
        """(prompt, sample) of what should be there and is not."""
        return [(item, n) for item in ids for n in range(self.each) if (item, n) not in self.samples]


def find_pictures(
    root: Path, ids: Container[str], *, crops: int | None = None, samples: int | None = None
) -> PictureFolder:
    """The pictures of a folder, for prompts with these ids.

    Args:
        crops: how many pictures an ``ID.png`` holds, 1 or 4; only the user knows.
        samples: how many pictures each prompt should have; by default as many as the run was told, or 4.

    Raises:
        RunError: no such folder, nothing in it, one picture twice, or it is not said how many pictures a file holds.
    """
    if not root.is_dir():
        raise RunError(f"{root}: no such folder of pictures")
    if (root / MANIFEST).is_file():
        return _from_manifest(root, ids, samples)
    if parts := [part for part in shards_in(root) if (part / MANIFEST).is_file()]:
        return _from_parts(root, [_from_manifest(part, ids, samples) for part in parts])
    if (root / RUN).is_file():
        raise RunError(f"{root} is a run without {MANIFEST}: finish it with twgi eval dpg --resume")
    return _from_names(root, ids, crops, samples)


def _from_names(root: Path, ids: Container[str], crops: int | None, samples: int | None) -> PictureFolder:
    """Files that say by their names what they are."""
    placed = [(path, _place(path.relative_to(root), ids)) for path in _files(root)]
    unknown = tuple(str(path.relative_to(root)) for path, place in placed if place is None)
    found: dict[tuple[str, int], Sample] = {}
    for path, place in placed:
        for sample in _samples(path, *place, crops) if place else ():
            _put(found, sample)
    if not found:
        raise RunError(f"{root}: {len(unknown)} picture files and none of a known prompt; they must be named ID.png")
    single = crops == 1 and all(number == 0 for _, number in found)
    each = samples or (1 if single else GRID)
    return PictureFolder(root=root, samples=_counted_from_0(found), each=each, unknown=unknown)


def _counted_from_0(found: Mapping[tuple[str, int], Sample]) -> dict[tuple[str, int], Sample]:
    first = 0 if any(number == 0 for _, number in found) else 1
    return {
        (item, number - first): replace(sample, sample=number - first)
        for (item, number), sample in sorted(found.items())
    }


def recorded_pictures(
    images: Mapping[tuple[str, int], int], ids: Container[str], *, samples: int | None = None
) -> PictureFolder:
    """Pictures that are not here, of which there are recorded answers: (prompt, sample) -> how many pictures it had.

    Raises:
        RunError: there are none of a known prompt.
    """
    found = {
        (item, number): Sample(item_id=item, sample=number, spots=(Spot(file=None),) * count, recorded=True)
        for (item, number), count in images.items()
        if item in ids
    }
    if not found:
        raise RunError(f"the recording speaks of {len(images)} pictures and of none of a known prompt")
    unknown = tuple(f"{item}, sample {number}" for item, number in images if item not in ids)
    each = samples or 1 + max(number for _, number in found)
    return PictureFolder(root=Path(), samples=found, each=each, unknown=unknown)


def _files(root: Path) -> Iterator[Path]:
    """Pictures in the folder and one level below, in order of their names."""
    for path in sorted(root.iterdir()):
        if path.is_dir():
            yield from (inner for inner in sorted(path.iterdir()) if _is_picture(inner))
        elif _is_picture(path):
            yield path


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def _place(path: Path, ids: Container[str]) -> tuple[str, int | None] | None:
    """The prompt and sample that a file's name speaks of; None as the sample: the file is the prompt's only one."""
    if len(path.parts) == 2:
        named = path.parts[0] in ids and path.stem.isdecimal()
        return (path.parts[0], int(path.stem)) if named else None
    if path.stem in ids:
        return path.stem, None
    numbered = _NUMBERED.fullmatch(path.stem)
    return (numbered[1], int(numbered[2])) if numbered and numbered[1] in ids else None


def _samples(path: Path, item: str, number: int | None, crops: int | None) -> Iterator[Sample]:
    if number is not None:
        yield Sample(item_id=item, sample=number, spots=(Spot(file=path),))
    elif crops == GRID:
        yield from (Sample(item_id=item, sample=n, spots=(Spot(file=path, crop=n),)) for n in range(GRID))
    elif crops == 1:
        yield Sample(item_id=item, sample=0, spots=(Spot(file=path),))
    else:
        raise RunError(f"{path}: is this one picture, or four in a 2 x 2 grid? Say --crops 1 or --crops 4")


def _put(found: dict[tuple[str, int], Sample], sample: Sample) -> None:
    there = found.setdefault((sample.item_id, sample.sample), sample)
    if there is not sample:
        files = f"{there.spots[0].file} and {sample.spots[0].file}"
        raise RunError(f"two files for picture {sample.sample} of {sample.item_id}: {files}; take one away")


def _from_manifest(root: Path, ids: Container[str], samples: int | None) -> PictureFolder:
    """A run of ours: its first line describes it, the others are its thoughts."""
    found, unknown = {}, []
    try:
        head, *lines = (json.loads(line) for line in (root / MANIFEST).read_text(encoding="utf-8").splitlines())
        for row in lines:
            sample = _manifest_sample(root, row)
            if sample.item_id in ids:
                found[sample.item_id, sample.sample] = sample
            else:
                unknown.append(f"{sample.item_id}, sample {sample.sample}")
        each, made = samples or int(head["samples"]), dict(head["made"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{root / MANIFEST} is damaged ({error}): make it again with twgi eval dpg --resume") from None
    return PictureFolder(root=root, samples=found, each=each, unknown=tuple(unknown), made=made)


def _from_parts(root: Path, parts: Sequence[PictureFolder]) -> PictureFolder:
    """The parts of one run, drawn apart (`--shard`), as one."""
    for part in parts[1:]:
        if _whole(part.made) != _whole(parts[0].made):
            raise RunError(f"{parts[0].root} and {part.root} are not parts of one run: model or settings differ")
    samples = {key: sample for part in parts for key, sample in part.samples.items()}
    unknown = tuple(name for part in parts for name in part.unknown)
    made = _whole(parts[0].made)
    return PictureFolder(root=root, samples=samples, each=parts[0].each, unknown=unknown, made=made)


def _whole(made: Mapping[str, Any]) -> dict[str, Any]:
    return {**made, "settings": {key: value for key, value in made["settings"].items() if key != "shard"}}


def _manifest_sample(root: Path, row: Mapping[str, Any]) -> Sample:
    """One thought. A path from the file is used only where it is plain and relative."""
    for image in row["images"]:
        if image is not None and not _PLAIN.fullmatch(image):
            raise ValueError(f"the path {image!r} is not plain")
    spots = tuple(Spot(file=root / image if image else None) for image in row["images"])
    return Sample(
        item_id=row["item_id"], sample=int(row["sample"]), spots=spots, failed=row["status"] == "failed",
        image_tokens=tuple(map(int, row["image_tokens"])), seconds=tuple(map(float, row["seconds"])),
    )  # fmt: skip
