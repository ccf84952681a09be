"""`twgi think`: one prompt or many, into a run folder."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twgi.commands.loading import ModelOptions, load_thinker
from twgi.commands.options import (
    ASK,
    DRAW,
    RUN,
    CfgRows,
    Compat,
    Context,
    Device,
    Dtype,
    GuidanceName,
    ImageTemperature,
    ImageTopK,
    ImageTopP,
    Int8,
    Model,
    Resume,
    Rounds,
    ScaleFull,
    ScaleImage,
    ScaleNegative,
    ScalePrompt,
    Seed,
    Temperature,
    Vq,
    given,
    option,
)
from twgi.console import complain
from twgi.errors import ConfigError, PromptError, TwgiError

if TYPE_CHECKING:
    from twgi.console import Quiet
    from twgi.thinking.plan import RunPlan
    from twgi.thinking.prompts import BadLine, PromptLine
    from twgi.thinking.run import Outcome

INTERRUPTED = 130


def think(
    prompt: Annotated[str | None, typer.Argument(help="What to think about.", show_default=False)] = None,
    prompts: Annotated[Path | None, option('File of {"prompt": "..."} lines; GenEval\'s is fine.', ASK)] = None,
    image: Annotated[
        list[Path] | None, option("Picture for <image> in the prompt, or its end; repeatable.", ASK)
    ] = None,
    model: Model = "icons",
    device: Device = "cpu",
    dtype: Dtype = None,
    vq: Vq = None,
    context: Context = None,
    int8: Int8 = False,
    cfg_rows: CfgRows = "parallel",
    mode: Annotated[
        str, option("direct, subgoal, critique, general. Default: direct; general with --image.", ASK)
    ] = "",
    rounds: Rounds = 1,
    samples: Annotated[int, option("Thoughts for each prompt. Default: 1.", ASK)] = 1,
    seed: Seed = 0,
    guidance: GuidanceName = None,
    scale_full: ScaleFull = None,
    scale_image: ScaleImage = None,
    scale_negative: ScaleNegative = None,
    scale_prompt: ScalePrompt = None,
    compat: Compat = "",
    temperature: Temperature = None,
    top_p: Annotated[float | None, option("Of text: likeliest tokens up to this sum.", DRAW)] = None,
    top_k: Annotated[int | None, option("Of text: so many likeliest tokens; 0: all.", DRAW)] = None,
    image_temperature: ImageTemperature = None,
    image_top_p: ImageTopP = None,
    image_top_k: ImageTopK = None,
    max_tokens: Annotated[int | None, option("Most tokens of a thought, pictures too.", DRAW)] = None,
    max_images: Annotated[int | None, option("Most pictures of a thought.", DRAW)] = None,
    batch: Annotated[int, option("Thoughts at a time; only speed changes. Default: 8.", RUN)] = 8,
    out: Annotated[Path | None, option("Run folder. Default: a new one in out/.", RUN)] = None,
    resume: Resume = False,
    json: Annotated[bool, option("Print traces as JSON lines, nothing else.", RUN, "--json")] = False,
) -> int:
    """Think about a prompt, or about many, and make a page of it.

    Example: twgi think "a photo of a red couch and a blue horse" --mode subgoal --out out/couch

    With a picture: twgi think "What is in this picture?" --image couch.png

    Many, and again after a crash: twgi think --prompts prompts.jsonl --mode critique --out out/many --resume
    """
    from twgi.thinking.plan import RunPlan

    options = ModelOptions(
        model=model, device=device, dtype=dtype, vq=vq, context=context, int8=int8, cfg_rows=cfg_rows, compat=compat
    )
    plan = RunPlan(
        prompts=_prompts(prompt, prompts, image or []),
        mode=mode or ("general" if image else "direct"),
        rounds=rounds,
        samples=samples,
        seed=seed,
        guidance=guidance,
        compat=compat,
        scales=given(full=scale_full, image=scale_image, negative=scale_negative, prompt=scale_prompt),
        sampling=given(
            text_temperature=temperature, text_top_p=top_p, text_top_k=top_k, image_temperature=image_temperature,
            image_top_p=image_top_p, image_top_k=image_top_k, max_tokens=max_tokens, max_images=max_images,
        ),
    )  # fmt: skip
    return run_plan(plan, options, out=out, title=prompt or str(prompts), batch=batch, resume=resume, json=json)


def _prompts(prompt: str | None, prompts: Path | None, images: list[Path]) -> "tuple[PromptLine | BadLine, ...]":
    from twgi.thinking.prompts import PromptLine, read_prompts

    if (prompt is None) == (prompts is None):
        raise ConfigError("give one prompt, or a file of them with --prompts")
    if prompt is not None:
        return (PromptLine(where="", prompt=prompt, images=tuple(images)),)
    if images:
        raise ConfigError('--image is for a single prompt; in a file, write "images" on its line')
    assert prompts is not None
    return tuple(read_prompts(prompts))


def run_plan(
    plan: "RunPlan", options: ModelOptions, *, out: Path | None, title: str, batch: int, resume: bool, json: bool
) -> int:
    from twgi.thinking.run_folder import check_folder, fresh_folder

    if batch < 1:
        raise ConfigError(f"batch must be 1 or more, got {batch}")
    if resume and out is None:
        raise ConfigError("--resume needs --out: the folder of the run to go on with")
    jobs = sum(1 for _ in plan.jobs())
    if not jobs:
        first = next(line for _, line in plan.bad_lines())
        raise PromptError(f"no prompt in the file can be used; {first.where}: {first.problem}")
    folder = out or fresh_folder(Path("out"), title)
    check_folder(folder, resume=resume)

    from twgi.console import reporter
    from twgi.thinking.run import run

    report = reporter(many=jobs > 1 or len(plan.prompts) > 1, json=json)
    try:
        outcome = run(load_thinker(options), plan, folder, report=report, batch=batch, resume=resume)
    finally:
        report.close()
    return conclude(report, outcome)


def conclude(report: "Quiet", outcome: "Outcome") -> int:
    """Say what came of a run; the exit status."""
    if outcome.interrupted:
        complain(f"stopped: {outcome.kept}; go on with: {_again(outcome.folder)}")
        return INTERRUPTED
    report.conclude(outcome)
    return TwgiError.exit_status if outcome.failures else 0


def _again(folder: Path) -> str:
    """The command that goes on with this run."""
    words = [*sys.argv[1:], *([] if any(w.split("=")[0] == "--out" for w in sys.argv) else ["--out", str(folder)])]
    return shlex.join(["twgi", *words, *([] if "--resume" in words else ["--resume"])])
