"""Prompts as people bring them: one on the command line, or many in a file of JSON lines.

A line is an object with a ``prompt`` and, if it wants them, ``images`` (paths beside the file), ``mode`` and ``seed``.
GenEval's metadata lines and DPG-Bench's lines are such objects too; what they carry beside the prompt is left alone.
A line that cannot be used becomes a ``BadLine`` that says where and why, and the other lines live.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twgi.errors import PromptError

IMAGE = "<image>"
FIELDS = ("prompt", "images", "mode", "seed")
CARRIED = frozenset({"id", "item_id", "tag", "include", "exclude"})  # metadata of GenEval and DPG-Bench


@dataclass(frozen=True, kw_only=True)
class PromptLine:
    """One prompt, with what it fixes for itself; ``where`` is ``file:line``.

    Its pictures stand where the prompt says ``<image>``, or all at its end when it does not (see ``place_pictures``).

    Raises:
        PromptError: the text is empty or not Unicode, or it has another number of ``<image>`` than pictures.
    """

    where: str
    prompt: str
    images: tuple[Path, ...] = ()
    mode: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_text(self.prompt)
        places = self.prompt.count(IMAGE)
        if places and places != len(self.images):
            raise PromptError(
                f"the prompt has {places} {IMAGE} and {len(self.images)} pictures: give one picture for each {IMAGE}"
            )


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that cannot be used: where it stands and what is wrong with it."""

    where: str
    problem: str


def check_text(text: str) -> None:
    """Refuse a prompt without words, and one that UTF-8 cannot hold (half of a surrogate pair)."""
    if not text.strip():
        raise PromptError("the prompt is empty: say what to think about")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"the prompt is not valid Unicode at character {error.start}") from None


def place_pictures(text: str, count: int) -> str:
    """The prompt with a place for each picture: where it says ``<image>``, else at its end, as in the reference."""
    return text if IMAGE in text else text + IMAGE * count


def read_prompts(path: Path) -> list[PromptLine | BadLine]:
    """Every line of a prompts file that is not blank, in order.

    Raises:
        PromptError: the file cannot be read, or has no line at all.
    """
    lines = _text_of(path).split("\n")
    entries = [_entry(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise PromptError(f'{path}: no prompts in this file; write one line for each, like {{"prompt": "a red couch"}}')
    return entries


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: not a UTF-8 text file (byte {error.start}); expected JSON lines") from None
    except OSError as error:
        raise PromptError(f"cannot read the prompts file {path}: {error.strerror}") from None


def _entry(line: str, path: Path, number: int) -> PromptLine | BadLine:
    where = f"{path}:{number}"
    try:
        return parse_line(line, where=where, folder=path.parent)
    except PromptError as error:
        return BadLine(where=where, problem=str(error))


def parse_line(line: str, *, where: str, folder: Path) -> PromptLine:
    """One JSON line as a prompt; picture paths are taken from ``folder``.

    Raises:
        PromptError: broken JSON, an unknown or wrong field, no prompt, or pictures that do not fit.
    """
    record = _object(line)
    _check_fields(record)
    paths = tuple(folder / image for image in record.get("images") or [])
    mode, seed = record.get("mode"), record.get("seed")
    return PromptLine(where=where, prompt=record["prompt"], images=paths, mode=mode, seed=seed)


def _object(line: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptError(f"broken JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise PromptError("broken JSON: nested too deep") from None
    if not isinstance(record, dict):
        raise PromptError(f'expected an object like {{"prompt": "..."}}, got {type(record).__name__}')
    return record


def _check_fields(record: Mapping[str, Any]) -> None:
    unknown = sorted(set(record) - set(FIELDS) - CARRIED)
    if unknown:
        raise PromptError(f"unknown field {unknown[0]!r}; known are {', '.join(FIELDS)}")
    if not isinstance(record.get("prompt"), str):
        raise PromptError('no text under "prompt"')
    images = record.get("images") or []
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise PromptError('"images" must be a list of paths')
    if not isinstance(record.get("mode"), str | None):
        raise PromptError('"mode" must be a name, like "subgoal"')
    if isinstance(record.get("seed"), bool) or not isinstance(record.get("seed"), int | None):
        raise PromptError('"seed" must be a whole number')
