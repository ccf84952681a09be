"""What pictures there are: thoughts of this program, pictures made elsewhere, and recorded ones that nobody has here.

Every reader gives a `PictureSet`, keyed by the prompt's id and the sample. An id is a name, and names repeat: what a
picture is of, its prompt's words say wherever they are known (`matched`).

- `read_pictures`: a run folder in which `twgi eval` said what it is about, or the folder of its parts
- `read_numbered`: GenEval's shape, ``00012/samples/00000.png``
- `read_named`: ``ID.png`` (one picture, or four as a 2 x 2 grid), ``ID_0.png``, ``ID/0.png``
- `recorded_pictures`: pictures of which there are answers only
"""

import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.errors import ConfigError, ImageError, RefusedImageError, RunError
from twgi.files import open_regular, read_objects
from twgi.runs.folder import ERRORS, Description, read_run, read_thoughts
from twgi.runs.parts import merge, parts_in
from twgi.runs.plan import parse_job_id
from twgi.tokenizer.image import MAX_BYTES, read_picture
from twgi.trace import Trace

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
GRID = 4
ACROSS = 2  # pictures in a row of a grid
PROMPTS = "prompts.jsonl"
NOT_DRAWN = "no picture"
_NUMBERED = re.compile(r"(.+)[_-](\d{1,6})")

Key = tuple[str, int]
"""(id of the prompt, sample)"""


@dataclass(frozen=True, kw_only=True)
class PictureRef:
    """One picture of a thought: its file, or a quarter of it (0 top left, 1 top right, 2 and 3 below).

    Without a file it was not whole and so not drawn, or is not here. `kind` is what it was drawn as, None: not known.
    """

    file: Path | None
    crop: int | None = None
    kind: str | None = None
    image_tokens: int = 0


class PictureReader:
    """Opens pictures. The last file stays open: the four pictures of a grid come one after the other."""

    def __init__(self) -> None:
        self._last: tuple[Path, str, Image.Image] | None = None

    def open(self, ref: PictureRef) -> tuple[str, Image.Image]:
        """(SHA-256 of its file, the picture as RGB). Raises `ImageError`."""
        if ref.file is None:
            raise ImageError(NOT_DRAWN)
        if self._last is None or self._last[0] != ref.file:
            self._last = None
            try:
                with open_regular(ref.file) as file:
                    if os.fstat(file.fileno()).st_size > MAX_BYTES * ACROSS**2:
                        raise RefusedImageError(f"{ref.file}: more than {MAX_BYTES * ACROSS**2 // 2**20} MiB")
                    content = file.read(MAX_BYTES * ACROSS**2)
            except FileNotFoundError:
                raise ImageError(f"{ref.file}: no such file") from None
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or error
                raise RefusedImageError(f"{ref.file}: cannot be read ({why})") from None
            whole = read_picture(content, name=str(ref.file), across=ACROSS)
            self._last = ref.file, hashlib.sha256(content).hexdigest(), whole
        _, digest, whole = self._last
        if ref.crop is None:
            return digest, whole
        width, height = whole.width // 2, whole.height // 2
        if not width or not height:
            raise ImageError(f"{ref.file}: {whole.width} x {whole.height} pixels cannot hold four pictures")
        left, top = ref.crop % 2 * width, ref.crop // 2 * height
        return digest, whole.crop((left, top, left + width, top + height))


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The pictures of one thought in order, or why it `failed`.

    Of a `recorded` one there are answers only, and its pictures are not here. `seconds` are the work up to the end of
    each picture, and last up to the end of the thought.
    """

    pictures: tuple[PictureRef, ...] = ()
    failed: str | None = None
    well_formed: bool | None = None
    finish_reason: str = "unknown"
    recorded: bool = False
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """The thoughts that are there, with how many `samples` each prompt should have.

    `unknown` are pictures of no prompt. `told` is what a run of ours says of its benchmark (`run.json`). `prompts` are
    the words of each prompt that was drawn, where they are known. `by_name` are prompts whose pictures nothing but a
    name says to be theirs.
    """

    root: Path
    samples: int
    generations: Mapping[Key, Generation]
    made: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    by_name: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name, last = max(self.generations, key=lambda key: key[1], default=("", 0))
        if last >= self.samples:
            what = f"picture {last + 1} of {name}, not {self.samples}"
            raise ConfigError(f"{self.root}: {what}: say --samples {last + 1}")

    def about(self, asked: Mapping[str, str]) -> "PictureSet":
        """Those of the prompts that are asked about (id -> words), under the ids of these; the others are `unknown`.

        Raises `RunError` where all are of other prompts.
        """
        names = {name: self.prompts.get(name, "") for name, _ in self.generations}
        ours = matched(names, asked)
        known = {(ours[name], sample): there for (name, sample), there in self.generations.items() if name in ours}
        others = [key for key in self.generations if key[0] not in ours]
        unknown = [f"{name}, sample {sample}" + f" ({names[name]})" * bool(names[name]) for name, sample in others]
        if unknown and not known:
            raise RunError(f"{self.root} is of other prompts than are asked about: it has {unknown[0]}")
        by_name = tuple(id for name, id in ours.items() if not (words(names[name]) and words(asked[id])))
        return replace(self, generations=known, unknown=(*self.unknown, *unknown), by_name=by_name)


def words(text: str) -> str:
    """What makes a prompt that prompt, however it is spaced."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def matched(told: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str]:
    """Name of a prompt as told -> its name as asked: that of the same words. Both are (name -> words).

    Of several with the same words that of the same name, else the next one. Where either has no words, the name is all
    there is.
    """
    free = defaultdict[str, list[str]](list)
    for name, text in asked.items():
        free[words(text)].append(name)
    found = {}
    for name, text in told.items():
        if name in asked and (words(text) == words(asked[name]) or not words(text) or not words(asked[name])):
            found[name] = name
            free[words(asked[name])].remove(name)
    for name, text in told.items():
        if name not in found and words(text) and free[words(text)]:
            found[name] = free[words(text)].pop(0)
    return found


def read_pictures(folder: Path, benchmark: str, *, samples: int | None = None) -> PictureSet:
    """The thoughts of a run folder, finished or not; its parts are merged first.

    Raises `RunError`: it cannot be read, or has a thought about another prompt than it says.
    """
    if parts_in(folder):
        merge(folder)
    run = read_run(folder)
    told = told_of(folder, run)
    if told["name"] != benchmark:
        raise RunError(f"{folder} is a run of {told['name']}, not of {benchmark}")
    found = _failures(folder, told["ids"], run.samples)
    prompts = {id: line["prompt"] for id, line in zip(told["ids"], told["lines"], strict=True) if "prompt" in line}
    for trace in read_thoughts(folder):
        try:
            number, sample = parse_job_id(trace.id)
            name = told["ids"][number]
        except (ValueError, IndexError):
            raise RunError(f"{folder} has a thought {trace.id!r} about none of its prompts") from None
        if words(prompts.setdefault(name, trace.prompt)) != words(trace.prompt):
            raise RunError(f"{folder}: thought {trace.id} is about {trace.prompt!r}, not about {prompts[name]!r}")
        found[name, sample] = _generation(trace, folder)
    made = {**run.made, "seed": run.seed, "samples": run.samples}
    return PictureSet(
        root=folder, samples=samples or run.samples, generations=found, made=made, told=told, prompts=prompts
    )


def told_of(folder: Path, run: Description) -> Mapping[str, Any]:
    """What a run says of its benchmark (see `PromptSet.describe`). Raises `RunError`."""
    told = run.about.get("benchmark")
    if not isinstance(told, dict) or not told.keys() >= {"name", "whole", "left_out", "lines"}:
        raise RunError(f"{folder} is a run of no benchmark: make one with twgi eval")
    try:
        told = {"ids": [f"{index:05d}" for index in told.get("indices", ())], **told}  # older: places in GenEval's file
        usable = len(told["ids"]) == len(told["lines"]) and all(isinstance(line, dict) for line in told["lines"])
        usable &= all(isinstance(line.get("prompt", ""), str) for line in told["lines"])
        usable &= isinstance(told["whole"], int) and isinstance(told["left_out"], list)
    except (AttributeError, TypeError, ValueError):
        usable = False
    if not usable or not all(isinstance(id, str) for id in told["ids"]):
        raise RunError(f"{folder}: what its run.json says of its benchmark cannot be read")
    return told


def _generation(trace: Trace, folder: Path) -> Generation:
    """A thought; a picture whose file is gone counts as not whole."""
    images, timing = trace.images, trace.timing
    return Generation(
        pictures=tuple(
            PictureRef(file=image.file(folder), kind=image.kind, image_tokens=len(image.tokens)) for image in images
        ),
        well_formed=bool(images) and not trace.anomalies and all(image.image for image in images),
        finish_reason=trace.finish_reason,
        seconds=(*timing.get("busy_at_pictures", ()), timing["busy"]) if "busy" in timing else (),
    )


def _failures(folder: Path, ids: list[str], samples: int) -> dict[Key, Generation]:
    """Thoughts that failed, as the run noted them; a line that cannot be used fails in every sample."""
    known = {f"prompt {name}": name for name in ids}
    found: dict[Key, Generation] = {}
    for line in read_objects(folder / ERRORS) if (folder / ERRORS).exists() else ():
        name = known.get(line.value.get("where", ""))
        failed, why = line.value.get("sample"), str(line.value.get("error", "failed"))
        if name is not None and (failed is None or isinstance(failed, int)):
            numbers = range(samples) if failed is None else [failed]
            found |= {(name, sample): Generation(failed=why) for sample in numbers}
    return found


def read_numbered(root: Path, ids: Collection[str], *, samples: int) -> PictureSet:
    """GenEval's shape: every folder whose name is a number, every picture in its `samples` whose name is one.

    Pictures may be counted from anywhere. Folders of no prompt are `unknown`. Raises `ConfigError` for more pictures of
    a prompt than `samples`, `RunError` where there is no such folder, or two pictures have one number.
    """
    folders = {f"{int(path.name):05d}": path for path in _entries(root) if path.name.isdecimal() and path.is_dir()}
    if not folders:
        raise RunError(f"{root} holds no folders like 00000 with pictures in 00000/samples, and no run")
    found: dict[Key, Generation] = {}
    for name, folder in folders.items():
        drawn = [path for path in sorted((folder / "samples").glob("*")) if path.suffix.lower() in ENDINGS]
        files = {path: int(path.stem) for path in drawn if path.stem.isdecimal()}
        numbers = sorted(files.values())
        anyhow = len(numbers) <= samples and max(numbers, default=0) >= samples
        for path, number in files.items() if name in ids else ():
            _put(found, name, numbers.index(number) if anyhow else number, PictureRef(file=path))
    unknown = tuple(folder.name for name, folder in folders.items() if name not in ids)
    return PictureSet(root=root, samples=samples, generations=found, unknown=unknown, made={"made": "elsewhere"})


def read_named(root: Path, ids: Collection[str], *, crops: int | None = None, samples: int | None = None) -> PictureSet:
    """Files that say by their names what they are, in the folder and one level below; ID ends at the last dot.

    An ``ID.png`` holds `crops` pictures, 1 or 4; only the user knows. Each prompt should have `samples` pictures, by
    default 4, or 1 where each has a file of one. A ``prompts.jsonl`` beside them, lines of id and prompt, says what an
    ID stands for; without it `ids` are all there are. Raises `RunError` for nothing of a known prompt, one picture
    twice, or a file of which it is not said how many pictures it holds.
    """
    found: dict[Key, Generation] = {}
    unknown, prompts = [], dict[str, str]()
    for line in read_objects(root / PROMPTS) if (root / PROMPTS).is_file() else ():
        if isinstance(line.value.get("prompt"), str) and "id" in line.value:
            prompts[str(line.value["id"])] = line.value["prompt"]
    ids = prompts or ids
    for path in (file for entry in _entries(root) for file in (_entries(entry) if entry.is_dir() else (entry,))):
        if path.suffix.lower() not in ENDINGS or path.name.startswith(".") or not path.is_file():
            continue
        name, sample = _place(path.relative_to(root), ids)
        if name is None:
            unknown.append(str(path.relative_to(root)))
        elif sample is not None or crops == 1:
            _put(found, name, sample or 0, PictureRef(file=path))
        elif crops == GRID:
            for crop in range(GRID):
                _put(found, name, crop, PictureRef(file=path, crop=crop))
        else:
            raise RunError(f"{path}: is this one picture, or four in a 2 x 2 grid? Say --crops 1 or --crops 4")
    if not found:
        raise RunError(f"{root}: {len(unknown)} picture files and none of a known prompt; they must be named ID.png")
    first = min(1, *(sample for _, sample in found))  # counted from 0 or from 1
    counted = {(name, sample - first): generation for (name, sample), generation in sorted(found.items())}
    each = samples or (1 if crops == 1 and all(sample == 0 for _, sample in found) else GRID)
    return PictureSet(root=root, samples=each, generations=counted, unknown=tuple(unknown), prompts=prompts)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise RunError(f"{folder}: no such folder of pictures ({error.strerror})") from None


def _place(path: Path, ids: Collection[str]) -> tuple[str | None, int | None]:
    """The prompt and sample that a file's name speaks of; None as the sample: the file is the prompt's only one."""
    if len(path.parts) == 2:
        named = path.parts[0] in ids and path.stem.isdecimal()
        return (path.parts[0], int(path.stem)) if named else (None, None)
    if path.stem in ids:
        return path.stem, None
    numbered = _NUMBERED.fullmatch(path.stem)
    return (numbered[1], int(numbered[2])) if numbered and numbered[1] in ids else (None, None)


def _put(found: dict[Key, Generation], name: str, sample: int, ref: PictureRef) -> None:
    if (name, sample) in found:
        files = f"{found[name, sample].pictures[0].file} and {ref.file}"
        raise RunError(f"two files for picture {sample} of {name}: {files}; take one away")
    found[name, sample] = Generation(pictures=(ref,))


def recorded_pictures(images: Mapping[Key, int], prompts: Mapping[str, str]) -> PictureSet:
    """Pictures that are not here, only answers: (prompt, sample) -> how many there were; the words of the prompts."""
    nowhere = PictureRef(file=None)
    there = {key: Generation(pictures=(nowhere,) * count, recorded=True) for key, count in images.items()}
    samples = 1 + max((sample for _, sample in images), default=0)
    return PictureSet(root=Path("the recording"), samples=samples, generations=there, prompts=prompts)
