"""What each role is told, and how its answer is read. Every answer in words is a JSON object; more around it is let be.

The steps are those of the paper's section on data (Chern et al., 2025, arXiv 2505.22525); the words are ours.
"""

from collections.abc import Callable
from typing import Any

from twgi.data.factory.recipe import BEST
from twgi.errors import DataError
from twgi.files import parse_object
from twgi.replies import Unusable
from twgi.thinking.modes import subgoal_kind
from twgi.tokenizer.multimodal import PLACEHOLDER

MAX_TEXT = 4000  # characters of one text
_OBJECT = "Answer with one JSON object and nothing else: "


WORDS = {  # what is wanted -> how it is asked for, with the pictures that it is about
    "prompts": "Write {count} different prompts for an image generator, in English, one sentence each, about {theme}. "
    "Name things that can be seen. This is request number {number}: write others than in the requests before. "
    f'{_OBJECT}{{{{"prompts": ["...", "..."]}}}}',
    "parts": "A painter makes this picture step by step, each thing alone at first: {prompt}\n"
    "Which are the things? Name each with what is said of it (colour, number, look), at most {most} in all. "
    f'{_OBJECT}{{{{"parts": ["...", "..."]}}}}',
    "draft": "{prompt}",
    "first part": "{part}, alone, on a plain background",
    "next part": "Draw another picture in the style of this one, which shows only this: {part}, alone, on a plain "
    "background",
    "whole": "Put the things of these pictures together in one picture: {prompt}",
    "steps": "These {count} pictures were made step by step for the prompt: {prompt}\n"
    "The first {parts} show parts ({listed}), the last shows the whole. Write what the painter thought "
    "before each picture: {count} texts, of one to three sentences, that say what is going to be drawn, as it is "
    'seen in that picture. The last text announces it with the words "the whole picture"; no other text says so. '
    f'{_OBJECT}{{{{"steps": ["...", "..."]}}}}',
    "critique": "This picture was made for the prompt: {prompt}\nSay what fits the prompt, what does not, and what to "
    'change. If all fits, "matches" is true, and "faults" and "change" are empty. '
    f'{_OBJECT}{{{{"matches": false, "fits": "...", "faults": "...", "change": "..."}}}}',
    "redrawn": "Correct this picture. It is to show: {prompt}\nWhat was said about it: {said}",
    "judgement": "How well does this picture show what the prompt says? Things, numbers, colours and places count. "
    "The prompt: {prompt}\nGive a score from 0 (something else) to {best} (all of it), and the reason in one sentence. "
    f'{_OBJECT}{{{{"score": 0, "reason": "..."}}}}',
}


def read_list(key: str, *, least: int, most: int | None = None) -> Callable[[str], list[str]]:
    """Reads an answer that is a list of texts under a key."""

    def read(answer: str) -> list[str]:
        values = _object(answer).get(key)
        if not isinstance(values, list) or len(values) < least or (most is not None and len(values) > most):
            raise Unusable(f'no list of {least} to {most or "many"} texts under "{key}"')
        return [_text(value, key) for value in values]

    return read


def read_steps(parts: int) -> Callable[[str], list[str]]:
    """Reads the texts of a subgoal chain; only the last may announce the whole, as the mode's guidance goes by it."""

    def read(answer: str) -> list[str]:
        steps = read_list("steps", least=parts + 1, most=parts + 1)(answer)
        if [subgoal_kind(number, step) for number, step in enumerate(steps)] != ["part"] * parts + ["whole"]:
            raise Unusable("the whole picture is announced before another than the last")
        return steps

    return read


def read_critique(answer: str) -> tuple[bool, str]:
    """Whether nothing need be changed in a picture, and all that is said of it."""
    value = _object(answer)
    if not isinstance(value.get("matches"), bool):
        raise Unusable('no true or false under "matches"')
    said = [value.get(key) or "" for key in ("fits", "faults", "change")]
    if not value["matches"] and not said[2]:
        raise Unusable('nothing under "change"')
    text = " ".join(_text(part, "fits, faults, change") for part in said if part)
    return value["matches"], _text(text, "fits")


def read_judgement(answer: str) -> tuple[float, str]:
    """The score of a picture, from 0 (something else) to `BEST` (all of the prompt), and why."""
    value = _object(answer)
    score = value.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= BEST:
        raise Unusable(f'no score from 0 to {BEST} under "score"')
    return float(score), _text(value.get("reason"), "reason")


def _object(answer: str) -> dict[str, Any]:
    start, end = answer.find("{"), answer.rfind("}")
    try:
        return parse_object(answer[start : end + 1])
    except DataError:
        raise Unusable("no JSON object") from None


def _text(value: Any, key: str) -> str:
    """A text that a record may hold."""
    text = value.strip() if isinstance(value, str) else ""
    if not 0 < len(text) <= MAX_TEXT:
        raise Unusable(f'no text of 1 to {MAX_TEXT} characters under "{key}"')
    if PLACEHOLDER in text or (not text.isprintable() and not text.replace("\n", "").replace("\t", "").isprintable()):
        raise Unusable(f'"{key}" has {PLACEHOLDER} or signs in it that cannot be printed')
    return text
