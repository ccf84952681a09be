"""A judge by its name on the command line, and whether it looks at pictures at all, before it is believed.

A server that drops the picture, or a model that loads with the wrong weights, still says yes to most questions, and
the score looks fine. So a judge is first asked about two plain pictures, once for a yes and once for a no each.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.errors import CheckpointError, ConfigError, RunError
from twgi.evaluation.icons import IconJudge
from twgi.evaluation.judges.answer import Judge, Picture, Query
from twgi.evaluation.judges.openai import KEY, JudgeOptions, OpenAIJudge
from twgi.evaluation.judges.replay import ReplayJudge

COLORS = {"red": (220, 20, 20), "blue": (20, 20, 220)}
SIDE = 224


def self_test(judge: Judge) -> None:
    """Ask the four questions; `item` says what is shown. Raises `CheckpointError` for a wrong answer, `RunError` for
    none."""
    pictures = {name: Picture(image=Image.new("RGB", (SIDE, SIDE), color)) for name, color in COLORS.items()}
    queries = [
        Query(picture=picture, question=f"Is this picture {asked}?", item=shown, proposition=number)
        for shown, picture in pictures.items()
        for number, asked in enumerate(COLORS, start=1)
    ]
    for query, answer in judge.answer(queries):
        shown, expected = query.item, "yes" if query.item in query.question else "no"
        if answer.problem is not None:
            raise RunError(f"{judge.name} gives no answer: {answer.problem}")
        if answer.parsed != expected:
            raise CheckpointError(
                f"{judge.name} fails the self-test: of a plain {shown} picture it says {answer.raw!r} to "
                f"{query.question!r}; does it see the picture? (--no-self-test believes it all the same)"
            )


def judge_named(
    name: str,
    *,
    concurrency: int = 8,
    timeout: float = 60.0,
    key_variable: str = KEY,
    probabilities: bool = False,
    parameters: Sequence[str] = (),
) -> Judge:
    """The judge of this name; the options are for endpoints, `parameters` as key=value.

    Raises `ConfigError` or `CheckpointError`.
    """
    kind, _, rest = name.partition(":")
    if name == "icons":
        return IconJudge()
    if kind == "hf" and rest:
        from twgi.evaluation.judges.hf import TransformersJudge

        return TransformersJudge(rest)
    target, _, model = rest.partition("#")
    if kind == "openai" and rest:
        options = JudgeOptions(
            url=target, model=model, key_variable=key_variable, concurrency=concurrency, timeout=timeout,
            logprobs=probabilities, parameters=dict(map(_parameter, parameters)),
        )  # fmt: skip
        return OpenAIJudge(options)
    if kind == "replay" and rest:
        return ReplayJudge(Path(target), model=model or None)
    raise ConfigError(f"unknown judge {name!r}; known are icons, hf:PATH, openai:URL#MODEL, replay:FILE")


def _parameter(text: str) -> tuple[str, Any]:
    """A value is JSON; what is none is a text."""
    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"a parameter must be key=value, got {text!r}")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value
