"""Options in groups: a command takes one value for many options, and the command line shows each of them.

A parameter whose type is a dataclass stands for its fields; these are annotated as a command's own options are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from twgi.commands.options import ASK, DRAW, GUIDE, MODEL, RUN, Device, Model, Rounds, Seed, Vq, option
from twgi.console import bytes_bar, complain
from twgi.decoding.compat import PUBLISHED_LENGTH, Quirk, parse_compat
from twgi.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from twgi.runs.run import Thinks
    from twgi.thinking.settings import Settings
    from twgi.thinking.thinker import Thinker

DTYPES = ("float32", "bfloat16", "float16")
ROWS = ("parallel", "serial")


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command as the parser sees it: each group replaced by its options, whose defaults are those of the fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {n: hint for n, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    shown: dict[str, Parameter] = {}
    for name, parameter in signature(command).parameters.items():
        if name not in groups:
            shown[name] = parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)
            continue
        of_group = get_type_hints(groups[name], include_extras=True)
        for one in fields(groups[name]):
            annotation = of_group[one.name]
            shown[one.name] = Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=annotation)

    @wraps(command)
    def run(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        return command(**given)

    run.__signature__ = Signature(list(shown.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in shown.items()}
    return run


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What to load, and how. The same words as the options of the command line."""

    model: Model = "icons"
    device: Device = "cpu"
    dtype: Annotated[str | None, option("float32, bfloat16, float16. Default: by the device.", MODEL)] = None
    vq: Vq = None
    context: Annotated[int | None, option("Positions of a row. Default: the model's.", MODEL)] = None
    int8: Annotated[bool, option("Language model in 8 bits (extra quant).", MODEL, "--int8")] = False
    cfg_rows: Annotated[str, option("parallel, or serial: slow, saves device memory.", MODEL)] = "parallel"
    compat: Annotated[str, option("reference, or quirks of the published code by name.", GUIDE)] = ""

    def __post_init__(self) -> None:
        parse_compat(self.compat)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {self.dtype!r}; known are {', '.join(DTYPES)}")
        if self.cfg_rows not in ROWS:
            raise ConfigError(f"cfg-rows must be {' or '.join(ROWS)}, got {self.cfg_rows!r}")

    @property
    def torch_dtype(self) -> torch.dtype | None:
        import torch

        return getattr(torch, self.dtype) if self.dtype else None

    def loading(self) -> dict[str, Any]:
        """What `twgi.load` is to be told beside the model's name."""
        long = self.context is None and Quirk.PUBLISHED_LIMITS in parse_compat(self.compat)
        return {
            "dtype": self.torch_dtype,
            "context": PUBLISHED_LENGTH if long else self.context,
            "serial": self.cfg_rows == "serial",
            **{name: getattr(self, name) for name in ("device", "vq", "int8")},
        }


@dataclass(frozen=True, kw_only=True)
class DrawingOptions:
    """How pictures are guided, how tokens are drawn, and where a thought ends."""

    guidance: Annotated[str | None, option("paper, reference or icons. Default: the model's.", GUIDE)] = None
    scale_full: Annotated[float | None, option("Towards all that was thought so far.", GUIDE)] = None
    scale_image: Annotated[float | None, option("Towards the pictures so far.", GUIDE)] = None
    scale_negative: Annotated[float | None, option("Away from the negative prompt.", GUIDE)] = None
    scale_prompt: Annotated[float | None, option("Towards the bare prompt.", GUIDE)] = None
    negative_prompt: Annotated[str | None, option("What a picture should not be. Default: the paper's.", GUIDE)] = None
    temperature: Annotated[float | None, option("Of text; 0 takes the likeliest token.", DRAW)] = None
    top_p: Annotated[float | None, option("Of text: likeliest tokens up to this sum.", DRAW)] = None
    top_k: Annotated[int | None, option("Of text: so many likeliest tokens; 0: all.", DRAW)] = None
    image_temperature: Annotated[float | None, option("The same for pictures.", DRAW)] = None
    image_top_p: Annotated[float | None, option("The same for pictures.", DRAW)] = None
    image_top_k: Annotated[int | None, option("The same for pictures.", DRAW)] = None
    max_tokens: Annotated[int | None, option("Most tokens of a thought, pictures too.", DRAW)] = None
    max_images: Annotated[int | None, option("Most pictures of a thought.", DRAW)] = None

    def settings(self, *, mode: str, rounds: int, compat: str) -> Settings:
        """How to think, of these options and of those that stand elsewhere. Raises `ConfigError`."""
        from twgi.decoding.params import SamplingParams
        from twgi.thinking.settings import Settings

        said = {name: value for name, value in vars(self).items() if value is not None}
        scales = {name.removeprefix("scale_"): said.pop(name) for name in list(said) if name.startswith("scale_")}
        own = {name: said.pop(name) for name in ("guidance", "negative_prompt") if name in said}
        sampling = {f"text_{name}" if name in ("temperature", "top_p", "top_k") else name: said[name] for name in said}
        params = SamplingParams(**sampling)
        return Settings(mode=mode, rounds=rounds, sampling=params, scales=scales, compat=compat, **own)


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Which thoughts a benchmark asks for, and who makes them."""

    mode: Annotated[str, option("direct, subgoal or critique. Default: direct.", ASK)] = "direct"
    rounds: Rounds = 1
    samples: Annotated[int, option("Thoughts for each prompt. Default: 4, as published.", ASK)] = 4
    seed: Seed = 0
    limit: Annotated[int | None, option("Only so many prompts (GenEval: of each task).", ASK)] = None
    batch: Annotated[int, option("Thoughts at a time, for speed alone. Default: 16.", RUN)] = 16
    shard: Annotated[str, option("Only this part of the prompts, as 2/4; see twgi score.", RUN)] = "1/1"
    ray: Annotated[int, option("So many Ray actors do the work; 0: none.", RUN)] = 0
    resume: Annotated[bool, option("Go on with the run in --out.", RUN, "--resume")] = False

    def plan(self, options: ModelOptions, drawing: DrawingOptions) -> dict[str, Any]:
        """The settings of the `RunPlan` that all of these make together."""
        from twgi.runs.parts import parse_part

        settings = drawing.settings(mode=self.mode, rounds=self.rounds, compat=options.compat)
        return {"settings": settings, "samples": self.samples, "seed": self.seed, "part": parse_part(self.shard)}

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch must be 1 or more, got {self.batch}")
        if self.ray < 0:
            raise ConfigError(f"ray must be 0 or more actors, got {self.ray}")


ICONS, AS_TRAINED, ALONE = ModelOptions(), DrawingOptions(), BenchmarkOptions()


def load_thinker(options: ModelOptions) -> Thinker:
    """The thinker of these options. What is worth knowing about it is said on stderr."""
    from twgi import load

    thinker = load(options.model, **options.loading(), progress=bytes_bar("loading"))
    for remark in thinker.remarks:
        complain(remark)
    if options.device != "cpu":
        width = str(thinker.model.embed.weight.dtype).removeprefix("torch.")
        complain(f"{options.model} runs on {options.device} in {'int8 and ' if options.int8 else ''}{width}")
    return thinker


def thinks(options: ModelOptions, how: BenchmarkOptions) -> Thinks:
    """Whatever makes the thoughts: this process, or Ray actors."""
    if not how.ray:
        return load_thinker(options)
    from twgi.runs.ray import RayThinker

    return RayThinker(options.model, actors=how.ray, loading=options.loading())
