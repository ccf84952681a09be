"""`twgi think`: one prompt or many, into a run folder."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twgi.commands.groups import AS_TRAINED, ICONS, DrawingOptions, ModelOptions, grouped, load_thinker
from twgi.commands.options import ASK, RUN, Resume, Rounds, Seed, option
from twgi.console import Quiet, complain, reporter
from twgi.errors import ConfigError, PromptError, TwgiError

if TYPE_CHECKING:
    from twgi.runs.prompts import BadLine, PromptLine
    from twgi.runs.run import Outcome

INTERRUPTED = 130


@grouped
def think(
    prompt: Annotated[str | None, typer.Argument(help="What to think about.", show_default=False)] = None,
    prompts: Annotated[Path | None, option('File of {"prompt": "..."} lines; GenEval\'s is fine.', ASK)] = None,
    image: Annotated[
        list[Path] | None, option("Picture for <image> in the prompt, or its end; repeatable.", ASK)
    ] = None,
    options: ModelOptions = ICONS,
    mode: Annotated[
        str, option("direct, subgoal, critique, general. Default: direct; general with --image.", ASK)
    ] = "",
    rounds: Rounds = 1,
    samples: Annotated[int, option("Thoughts for each prompt. Default: 1.", ASK)] = 1,
    seed: Seed = 0,
    drawing: DrawingOptions = AS_TRAINED,
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
    from twgi.runs.folder import check_folder, fresh_folder
    from twgi.runs.plan import RunPlan

    mode = mode or ("general" if image else "direct")
    plan = RunPlan(
        prompts=_prompts(prompt, prompts, image or []),
        settings=drawing.settings(mode=mode, rounds=rounds, compat=options.compat),
        samples=samples,
        seed=seed,
    )
    if batch < 1:
        raise ConfigError(f"batch must be 1 or more, got {batch}")
    if resume and out is None:
        raise ConfigError("--resume needs --out: the folder of the run to go on with")
    if not plan.count:
        first = next(line for _, line in plan.bad_lines())
        raise PromptError(f"no prompt in the file can be used; {first.where}: {first.problem}")
    folder = out or fresh_folder(Path("out"), prompt or str(prompts))
    check_folder(folder, resume=resume)

    from twgi.runs.run import run

    report = reporter(many=plan.count > 1 or len(plan.prompts) > 1, json=json)
    try:
        outcome = run(load_thinker(options), plan, folder, report=report, batch=batch, resume=resume)
    finally:
        report.close()
    return conclude(report, outcome)


def _prompts(prompt: str | None, prompts: Path | None, images: list[Path]) -> "tuple[PromptLine | BadLine, ...]":
    from twgi.runs.prompts import PromptLine, read_prompts

    if (prompt is None) == (prompts is None):
        raise ConfigError("give one prompt, or a file of them with --prompts")
    if prompt is not None:
        return (PromptLine(where="", prompt=prompt, images=tuple(images)),)
    if images:
        raise ConfigError('--image is for a single prompt; in a file, write "images" on its line')
    assert prompts is not None
    return tuple(read_prompts(prompts))


def conclude(report: Quiet, outcome: "Outcome") -> int:
    """Say what came of a run; the exit status."""
    if outcome.interrupted:
        words = ["twgi", *sys.argv[1:]]  # the command that goes on with this run
        words += [] if any(word.split("=")[0] == "--out" for word in words) else ["--out", str(outcome.folder)]
        words += [] if "--resume" in words else ["--resume"]
        complain(f"stopped: {outcome.kept}; go on with: {shlex.join(words)}")
        return INTERRUPTED
    report.conclude(outcome)
    return TwgiError.exit_status if outcome.failures else 0
