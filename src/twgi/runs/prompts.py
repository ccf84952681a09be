"""Prompts as people bring them: one on the command line, or many in a file of JSON lines.

A line is an object with a ``prompt`` and, if it wants them, ``images`` (paths beside the file), ``mode`` and ``seed``.
GenEval's metadata lines and DPG-Bench's lines are such objects too; what they carry beside the prompt is left alone.
A line that cannot be used becomes a ``BadLine`` that says where and why, and the other lines live.
"""

from dataclasses import dataclass
from pathlib import Path

from twgi.errors import DataError, PromptError
from twgi.files import Fault, Line, Object, read_lines
from twgi.tokenizer.multimodal import check_prompt

FIELDS = ("prompt", "images", "mode", "seed")
CARRIED = frozenset({"id", "item_id", "tag", "include", "exclude"})  # metadata of GenEval and DPG-Bench


@dataclass(frozen=True, kw_only=True)
class PromptLine:
    """One prompt, with what it fixes for itself; ``where`` is ``file:line``.

    Its pictures stand where the prompt says ``<image>``, or all at its end when it does not. Raises `PromptError`: the
    text is empty or not Unicode, or it has another number of ``<image>`` than pictures.
    """

    where: str
    prompt: str
    images: tuple[Path, ...] = ()
    mode: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_prompt(self.prompt, len(self.images))


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that cannot be used: where it stands and what is wrong with it."""

    where: str
    problem: str


def read_prompts(path: Path) -> list[PromptLine | BadLine]:
    """Every line of a prompts file that is not blank, in order. Raises `PromptError`: it cannot be read, or has none."""
    try:
        entries = [_entry(line) for line in read_lines(path)]
    except DataError as error:
        raise PromptError(f"the prompts file cannot be used: {error}") from None
    if not entries:
        raise PromptError(f'{path}: no prompts in this file; write one line for each, like {{"prompt": "a red couch"}}')
    return entries


def _entry(line: Line | Fault) -> PromptLine | BadLine:
    if isinstance(line, Fault):
        return BadLine(where=line.where, problem=line.reason)
    try:
        _check_fields(line.value)
        paths = tuple(line.folder / image for image in line.value.get("images") or [])
        said = {name: line.value.get(name) for name in ("mode", "seed")}
        return PromptLine(where=line.where, prompt=line.value["prompt"], images=paths, **said)
    except PromptError as error:
        return BadLine(where=line.where, problem=str(error))


def _check_fields(record: Object) -> None:
    unknown = sorted(set(record) - set(FIELDS) - CARRIED)
    if unknown:
        raise PromptError(f"unknown field {unknown[0]!r}; known are {', '.join(FIELDS)}")
    if not isinstance(record.get("prompt"), str):
        raise PromptError('no text under "prompt", which must be a line like {"prompt": "a red couch"}')
    images = record.get("images") or []
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise PromptError('"images" must be a list of paths')
    if not isinstance(record.get("mode"), str | None):
        raise PromptError('"mode" must be a name, like "subgoal"')
    if isinstance(record.get("seed"), bool) or not isinstance(record.get("seed"), int | None):
        raise PromptError('"seed" must be a whole number')
