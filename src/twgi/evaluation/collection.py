"""What is there to be judged: the pictures of a benchmark's prompts, thought by this program or made elsewhere.

Two kinds of folder are read: a run folder (`run.json`, `traces.jsonl`, `images/`) in which `twgi eval` said what it is
about, and GenEval's own shape (`00012/metadata.jsonl`, `00012/samples/00000.png`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twgi.errors import PromptError, RunError
from twgi.evaluation.geneval import Item
from twgi.thinking.plan import Job, RunPlan
from twgi.thinking.prompts import PromptLine
from twgi.thinking.run import claimed
from twgi.thinking.run_folder import ERRORS
from twgi.trace import RUN, TRACES, ImageSegment, Trace, read_traces

MADE = ("model", "settings", "versions")  # what of `run.json` is written into every row

Key = tuple[int, int]
"""(index of the prompt in the benchmark's file, sample)"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thought: the file of each picture in order (None: not whole), or why there is no thought.

    `tokens` are those of each picture; `seconds` the work up to the end of each, and at last of the whole.
    """

    pictures: tuple[str | None, ...] = ()
    failed: str | None = None
    well_formed: bool | None = None
    finish_reason: str = "unknown"
    tokens: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Thoughts, with what was asked for: `samples` of each of `items`, out of the `whole` prompts of the benchmark.

    `left_out` are prompts that were not asked for, as they could not be drawn or judged.
    """

    folder: Path
    items: tuple[Item, ...]
    samples: int
    entries: Mapping[Key, Entry]
    whole: int
    left_out: tuple[str, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wanted(self) -> Iterator[tuple[Item, int]]:
        return ((item, sample) for item in self.items for sample in range(self.samples))

    @property
    def plain(self) -> bool:
        """Whether these are prompts alone, without what a picture of them must show."""
        return any(not item.include for item in self.items)

    @property
    def missing(self) -> list[str]:
        """The thoughts that are neither there nor failed, by prompt and sample."""
        return [
            f"prompt {item.index:05d} ({item.prompt}), sample {sample}"
            for item, sample in self.wanted
            if (item.index, sample) not in self.entries
        ]

    def seen_by(self, names: frozenset[str] | None) -> "Collection":
        """Only the prompts about things of these names (None: any); the others are left out, and listed."""
        if names is None:
            return self
        seen = tuple(item for item in self.items if item.names <= names)
        unseen = tuple(item.prompt for item in self.items if not item.names <= names)
        return replace(self, items=seen, left_out=(*self.left_out, *unseen))


def about(items: Sequence[Item], *, whole: int, left_out: Sequence[Item]) -> dict[str, Any]:
    """What a run says of its benchmark in `run.json`, so that its folder can be judged without anything else."""
    return {
        "benchmark": {
            "name": "geneval",
            "whole": whole,
            "left_out": [item.prompt for item in left_out],
            "indices": [item.index for item in items],
            "lines": [dict(item.record) for item in items],
        }
    }


def item_of(record: Mapping[str, Any], index: int) -> Item:
    """A line of GenEval's metadata, or of any prompts: then nothing says what is right. Raises `PromptError`."""
    if "include" in record:
        return Item.from_json(record, index)
    return Item(index=index, tag="", prompt=record["prompt"], include=(), record=record)


def prompt_line(item: Item) -> PromptLine:
    return PromptLine(where=f"prompt {item.index:05d}", prompt=item.prompt)


def read_run(folder: Path) -> Collection:
    """The thoughts of a run folder, whether or not the run has come to its end.

    Raises:
        RunError: it holds no run of a benchmark, or thoughts of something else.
    """
    described = read_description(folder)
    told, items = described["benchmark"], items_of(described)
    entries = {_key(job, items): entry_of(trace, folder) for job, trace in thoughts(folder, described).items()}
    return Collection(
        folder=folder,
        items=items,
        samples=described["settings"]["samples"],
        entries=_failures(folder, items) | entries,
        whole=told["whole"],
        left_out=tuple(told["left_out"]),
        made={key: described[key] for key in MADE},
    )


def items_of(described: Mapping[str, Any]) -> tuple[Item, ...]:
    """The prompts that a run is about."""
    told = described["benchmark"]
    return tuple(item_of(line, i) for line, i in zip(told["lines"], told["indices"], strict=True))


def thoughts(folder: Path, described: Mapping[str, Any]) -> dict[Job, Trace]:
    """The thoughts in a run folder, or in that of a shard, by what they are of. Raises `RunError`."""
    settings = described["settings"]
    common = {key: settings[key] for key in ("mode", "seed", "samples", "rounds")}
    plan = RunPlan(prompts=tuple(prompt_line(item) for item in items_of(described)), **common)
    return claimed(list(plan.jobs()), read_traces(folder)) if (folder / TRACES).exists() else {}


def read_description(folder: Path) -> dict[str, Any]:
    """`run.json` of a run that is about a benchmark. Raises `RunError`."""
    try:
        described = json.loads((folder / RUN).read_text(encoding="utf-8"))
        told = described["benchmark"]
        _ = told["lines"], told["indices"], told["whole"], told["left_out"], [described[key] for key in MADE]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder} is no run of GenEval ({type(error).__name__} {error}); "
            "make one with twgi eval geneval, or give GenEval's own folder shape and --prompts"
        ) from None
    return dict(described)


def _key(job: Job, items: Sequence[Item]) -> Key:
    return items[job.number].index, job.sample


def entry_of(trace: Trace, folder: Path) -> Entry:
    """A trace as a thing to be judged; a picture whose file is gone counts as not whole."""
    images = trace.images
    whole = bool(images) and not trace.anomalies and all(image.image for image in images)
    return Entry(
        pictures=tuple(image.image if _is_there(image, folder) else None for image in images),
        well_formed=whole,
        finish_reason=trace.finish_reason,
        tokens=tuple(len(image.tokens) for image in images),
        seconds=_seconds(trace),
    )


def _is_there(image: ImageSegment, folder: Path) -> bool:
    return image.image is not None and (folder / image.image).is_file()


def _seconds(trace: Trace) -> tuple[float, ...]:
    timing = trace.timing
    return (*timing.get("busy_at_pictures", ()), timing["busy"]) if "busy" in timing else ()


def _failures(folder: Path, items: Sequence[Item]) -> dict[Key, Entry]:
    """Thoughts that failed, as the run noted them; a later resumption empties the file before it tries again."""
    path = folder / ERRORS
    if not path.exists():
        return {}
    index = {prompt_line(item).where: item.index for item in items}
    notes = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {
        (index[note["where"]], note.get("sample", 0)): Entry(failed=note["error"])
        for note in notes
        if note.get("where") in index
    }


def check_metadata(item: Item, path: Path) -> None:
    """Whether a prompt's folder says that it is of this prompt.

    Raises:
        PromptError: it is of another one: the pictures were made from another prompts file.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise PromptError(f"{path} cannot be read: {error}") from None
    if record != dict(item.record):
        said = record.get("prompt") if isinstance(record, dict) else record
        raise PromptError(f"{path} says {said!r}, but prompt {item.index} of --prompts is {item.prompt!r}")
