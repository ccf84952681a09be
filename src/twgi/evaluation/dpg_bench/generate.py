"""Prompts -> pictures in DPG-Bench's shape, beside the run that drew them.

A run folder of `twgi eval dpg` holds, beside what every run folder holds::

    pictures.jsonl       a line for each thought: its pictures in order, or why there are none
    samples/ID/K.png     the last picture of thought K about prompt ID
    grids/ID.png         the four of them as a 2 x 2 grid: what the published program reads; only with 4 samples

"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.errors import PromptError
from twgi.evaluation.dpg_bench.pictures import GRID, MANIFEST
from twgi.evaluation.dpg_bench.questions import ID, read_questions
from twgi.evaluation.official import link
from twgi.evaluation.results import Status
from twgi.thinking.plan import Job, RunPlan
from twgi.thinking.prompts import BadLine, PromptLine
from twgi.thinking.run import Outcome
from twgi.trace import RUN, Failure, Trace, png, write_file

SAMPLES, GRIDS = "samples", "grids"


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts by id, in order, from a folder of text files, lines of `{"id", "prompt"}`, or a question file."""

    path: Path
    texts: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, *, limit: int | None = None) -> "Prompts":
        """All prompts, or the first so many.

        Raises:
            PromptError: there are none, an id cannot be a file's name, or a prompt is empty.
        """
        texts = (
            _from_folder(path) if path.is_dir() else _from_lines(path) if _has_lines(path) else _from_questions(path)
        )
        for name, text in texts.items():
            if not ID.fullmatch(name) or name.startswith("."):
                raise PromptError(
                    f"{path}: the id {name!r} cannot be a file's name; use letters, digits, '.', '_', '-'"
                )
            if not text.strip():
                raise PromptError(f"{path}: the prompt {name!r} is empty")
        if not texts or (limit is not None and limit < 1):
            raise PromptError(
                f"{path}: no prompts to think about" if not texts else f"limit must be 1 or more, got {limit}"
            )
        return cls(path=path, texts=dict(list(texts.items())[:limit]))

    def plan(self, **settings: Any) -> RunPlan:
        """The run that thinks about every prompt; `settings` are those of `RunPlan`."""
        lines = (_line(f"{self.path}, {name}", text) for name, text in self.texts.items())
        return RunPlan(prompts=tuple(lines), **settings)


def _line(where: str, text: str) -> PromptLine | BadLine:
    try:
        return PromptLine(where=where, prompt=text)
    except PromptError as error:
        return BadLine(where=where, problem=str(error))


def _from_folder(path: Path) -> dict[str, str]:
    """A folder like DPG-Bench's own: ID.txt."""
    try:
        return {file.stem: file.read_text(encoding="utf-8").strip() for file in sorted(path.glob("*.txt"))}
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: a prompt cannot be read: {error}") from None


def _has_lines(path: Path) -> bool:
    """Whether a file is of prompts and not of questions."""
    if path.suffix.lower() != ".jsonl":
        return False
    row = next((row for _, row in _lines(path)), {})
    return "prompt" in row and "id" in row and "vqa_list" not in row and "proposition_id" not in row


def _from_lines(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for where, row in _lines(path):
        name, text = row.get("id"), row.get("prompt")
        if name is None or not isinstance(text, str):
            raise PromptError(f'{where}: expected {{"id": ..., "prompt": "..."}}')
        if str(name) in texts:
            raise PromptError(f"{where}: the id {name!r} stands twice")
        texts[str(name)] = text.strip()
    return texts


def _lines(path: Path) -> Sequence[tuple[str, Mapping[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"cannot read the prompts file {path}: {error}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append((f"{path}:{number}", dict(json.loads(line))))
            except (TypeError, ValueError, RecursionError):
                raise PromptError(f"{path}:{number}: not a JSON object") from None
    return rows


def _from_questions(path: Path) -> dict[str, str]:
    return {item.id: item.prompt for item in read_questions(path).items.values()}


def write_pictures(outcome: Outcome, prompts: Prompts, plan: RunPlan) -> Path:
    """Lay out what a run has drawn so far, and the manifest last; returns its path. Raises `RunError`."""
    names = list(prompts.texts)
    jobs = sorted(outcome.traces.items(), key=lambda entry: (entry[0].number, entry[0].sample))
    rows = [_row(names[job.number], job, trace) for job, trace in jobs]
    rows += [
        row
        for (number, sample), failure in sorted(outcome.failures.items())
        for row in _failed(names[number], sample, failure, plan.prompts[number], plan.samples)
    ]
    finals = {(row["item_id"], row["sample"]): row["images"][-1] for row in rows if row["status"] == "scored"}
    for (name, sample), image in finals.items():
        link(outcome.folder / image, outcome.folder / SAMPLES / name / f"{sample}.png")
    if plan.samples == GRID:
        _write_grids(outcome.folder, names, finals)
    head = {"version": 1, "samples": plan.samples, "made": _made(outcome.folder)}
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (head, *rows))
    write_file(outcome.folder / MANIFEST, text.encode())
    return outcome.folder / MANIFEST


def _row(name: str, job: Job, trace: Trace) -> dict[str, Any]:
    status: Status = "scored" if trace.images and trace.images[-1].image else "no picture"
    images = [image.image for image in trace.images]
    tokens = [len(image.tokens) for image in trace.images]
    timing = trace.timing  # of an older run without the seconds of work
    seconds = [*timing["busy_at_pictures"], timing["busy"]] if "busy" in timing else []
    costs = {"image_tokens": tokens, "seconds": seconds}
    return {"item_id": name, "sample": job.sample, "status": status, "images": images, **costs}


def _failed(
    name: str, sample: int, failure: Failure, line: PromptLine | BadLine, samples: int
) -> Iterator[dict[str, Any]]:
    """A thought that failed, or every thought about a prompt that cannot be used."""
    for number in range(samples) if isinstance(line, BadLine) else (sample,):
        empty: dict[str, Any] = {"images": [], "image_tokens": [], "seconds": [], "problem": failure.error}
        yield {"item_id": name, "sample": number, "status": "failed", **empty}


def _made(folder: Path) -> dict[str, Any]:
    described = json.loads((folder / RUN).read_text(encoding="utf-8"))
    return {key: described[key] for key in ("model", "settings", "versions")}


def _write_grids(folder: Path, names: Sequence[str], finals: Mapping[tuple[str, int], str]) -> None:
    """Of each prompt that has all four pictures, in the published order."""
    for name in names:
        files = [finals.get((name, sample)) for sample in range(GRID)]
        if all(files):
            pictures = [Image.open(folder / file) for file in files if file]
            write_file(folder / GRIDS / f"{name}.png", png(grid(pictures)))


def grid(pictures: Sequence[Image.Image]) -> Image.Image:
    """Four pictures of one size as one: top left, top right, bottom left, bottom right."""
    width, height = pictures[0].size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % 2 * width, number // 2 * height))
    return whole
