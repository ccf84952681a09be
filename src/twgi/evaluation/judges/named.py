"""A judge by its name on the command line."""

from pathlib import Path

from twgi.errors import ConfigError
from twgi.evaluation.judges.answer import Judge
from twgi.evaluation.judges.icons import IconJudge
from twgi.evaluation.judges.openai import KEY, JudgeOptions, OpenAIJudge
from twgi.evaluation.judges.replay import ReplayJudge

KNOWN = "icons, hf:PATH, openai:URL#MODEL, replay:FILE"


def judge_named(
    name: str, *, concurrency: int = 8, timeout: float = 60.0, key_variable: str = KEY, probabilities: bool = False
) -> Judge:
    """The judge of this name; the options are for endpoints (see `JudgeOptions`).

    Raises:
        ConfigError: nobody is called that, or what stands behind the colon cannot be used.
        CheckpointError: the model cannot be loaded.
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
            logprobs=probabilities,
        )  # fmt: skip
        return OpenAIJudge(options)
    if kind == "replay" and rest:
        return ReplayJudge(Path(target), model=model or None)
    raise ConfigError(f"unknown judge {name!r}; known are {KNOWN}")
