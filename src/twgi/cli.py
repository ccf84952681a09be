"""The command line: a table of commands. Each parses, calls one function, and prints; torch comes with the call."""

import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twgi import __version__
from twgi.console import complain
from twgi.errors import ConfigError, PromptError, TwgiError

if TYPE_CHECKING:
    from twgi.console import Quiet
    from twgi.thinking.plan import RunPlan
    from twgi.thinking.prompts import BadLine, PromptLine
    from twgi.thinking.run import Outcome

INTERRUPTED, CLOSED_PIPE, OURS = 130, 141, 1

app = typer.Typer(
    help="Think in pictures: a model that writes, draws, looks at what it drew, and draws again.",
    epilog='Try: twgi think "a photo of a red couch and a blue horse" --mode subgoal --seed 0 --out out/couch',
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
icons = typer.Typer(help="The icon world: a small world in which every score is exact.")
train = typer.Typer(help="Train the image tokenizer or the language model by a recipe.")
app.add_typer(icons, name="icons")
app.add_typer(train, name="train")
benchmarks = typer.Typer(help="Run a benchmark: think about its prompts, then judge the pictures.")
app.add_typer(benchmarks, name="eval")


def _option(help: str, panel: str, *names: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)
    return option


def _version(asked: bool) -> None:
    if asked:
        print(f"twgi {__version__}")
        raise typer.Exit


@app.callback()
def _twgi(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None: ...


ASK, GUIDE, DRAW, RUN = "What to think about", "Guidance of pictures", "Sampling and limits", "The run"
Model = Annotated[str, _option("Preset, or folder of a checkpoint. Default: icons.", ASK)]
Rounds = Annotated[int, _option("How often critique looks and draws again. Default: 1.", ASK)]
Seed = Annotated[int, _option("Same seed, same thoughts. Default: 0.", ASK)]
GuidanceName = Annotated[str | None, _option("paper, reference or icons. Default: the model's.", GUIDE)]
ScaleFull = Annotated[float | None, _option("Towards all that was thought so far.", GUIDE)]
ScaleImage = Annotated[float | None, _option("Towards the pictures so far.", GUIDE)]
ScaleNegative = Annotated[float | None, _option("Away from the negative prompt.", GUIDE)]
ScalePrompt = Annotated[float | None, _option("Towards the bare prompt.", GUIDE)]
Temperature = Annotated[float | None, _option("Of text; 0 takes the likeliest token.", DRAW)]
ImageTemperature = Annotated[float | None, _option("The same for pictures.", DRAW)]
ImageTopP = Annotated[float | None, _option("The same for pictures.", DRAW)]
ImageTopK = Annotated[int | None, _option("The same for pictures.", DRAW)]
Resume = Annotated[bool, _option("Go on with the run in --out.", RUN, "--resume")]


@app.command()
def think(
    prompt: Annotated[str | None, typer.Argument(help="What to think about.", show_default=False)] = None,
    prompts: Annotated[Path | None, _option('File of {"prompt": "..."} lines; GenEval\'s is fine.', ASK)] = None,
    image: Annotated[
        list[Path] | None, _option("Picture for <image> in the prompt, or its end; repeatable.", ASK)
    ] = None,
    model: Model = "icons",
    mode: Annotated[
        str, _option("direct, subgoal, critique, general. Default: direct; general with --image.", ASK)
    ] = "",
    rounds: Rounds = 1,
    samples: Annotated[int, _option("Thoughts for each prompt. Default: 1.", ASK)] = 1,
    seed: Seed = 0,
    guidance: GuidanceName = None,
    scale_full: ScaleFull = None,
    scale_image: ScaleImage = None,
    scale_negative: ScaleNegative = None,
    scale_prompt: ScalePrompt = None,
    temperature: Temperature = None,
    top_p: Annotated[float | None, _option("Of text: likeliest tokens up to this sum.", DRAW)] = None,
    top_k: Annotated[int | None, _option("Of text: so many likeliest tokens; 0: all.", DRAW)] = None,
    image_temperature: ImageTemperature = None,
    image_top_p: ImageTopP = None,
    image_top_k: ImageTopK = None,
    max_tokens: Annotated[int | None, _option("Most tokens of a thought, pictures too.", DRAW)] = None,
    max_images: Annotated[int | None, _option("Most pictures of a thought.", DRAW)] = None,
    batch: Annotated[int, _option("Thoughts at a time; only speed changes. Default: 8.", RUN)] = 8,
    out: Annotated[Path | None, _option("Run folder. Default: a new one in out/.", RUN)] = None,
    resume: Resume = False,
    json: Annotated[bool, _option("Print traces as JSON lines, nothing else.", RUN, "--json")] = False,
) -> int:
    """Think about a prompt, or about many, and make a page of it.

    Example: twgi think "a photo of a red couch and a blue horse" --mode subgoal --out out/couch

    With a picture: twgi think "What is in this picture?" --image couch.png

    Many, and again after a crash: twgi think --prompts prompts.jsonl --mode critique --out out/many --resume
    """
    from twgi.thinking.plan import RunPlan

    plan = RunPlan(
        prompts=_prompts(prompt, prompts, image or []),
        mode=mode or ("general" if image else "direct"),
        rounds=rounds,
        samples=samples,
        seed=seed,
        guidance=guidance,
        scales=_given(full=scale_full, image=scale_image, negative=scale_negative, prompt=scale_prompt),
        sampling=_given(
            text_temperature=temperature, text_top_p=top_p, text_top_k=top_k, image_temperature=image_temperature,
            image_top_p=image_top_p, image_top_k=image_top_k, max_tokens=max_tokens, max_images=max_images,
        ),
    )  # fmt: skip
    return _run(plan, model=model, out=out, title=prompt or str(prompts), batch=batch, resume=resume, json=json)


def _given(**options: float | int | None) -> dict[str, float | int]:
    return {name: value for name, value in options.items() if value is not None}


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


def _run(plan: "RunPlan", *, model: str, out: Path | None, title: str, batch: int, resume: bool, json: bool) -> int:
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

    from twgi import load
    from twgi.console import reporter
    from twgi.thinking.run import run

    report = reporter(many=jobs > 1 or len(plan.prompts) > 1, json=json)
    try:
        outcome = run(load(model), plan, folder, report=report, batch=batch, resume=resume)
    finally:
        report.close()
    return _end(report, outcome)


def _end(report: "Quiet", outcome: "Outcome") -> int:
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


@icons.command("sample")
def sample(
    out: Annotated[Path, typer.Option(help="A new folder for scenes.jsonl, traces.jsonl, images/ and the page.")],
    scenes: Annotated[int, typer.Option(help="How many.")] = 32,
    seed: Annotated[int, typer.Option(help="Same seed, same scenes.")] = 0,
) -> None:
    """Look at the icon world: scenes of every task, and a true thought of every mode about them.

    Example: twgi icons sample --scenes 64 --out out/sample
    """
    from twgi.icons.sample import write_sample

    written = write_sample(out, scenes=scenes, seed=seed)
    print(f"{written.scenes} scenes, {written.read_right} of them read right by the checker")
    print(f"page: {written.page}")


@benchmarks.command("geneval")
def eval_geneval(
    prompts: Annotated[Path, _option("GenEval's evaluation_metadata.jsonl, or lines like its.", ASK)],
    out: Annotated[Path, _option("Run folder; scores.json and results.jsonl go there too.", RUN)],
    model: Model = "icons",
    mode: Annotated[str, _option("direct, subgoal or critique. Default: direct.", ASK)] = "direct",
    rounds: Rounds = 1,
    samples: Annotated[int, _option("Thoughts for each prompt. Default: 4, as published.", ASK)] = 4,
    seed: Seed = 0,
    limit: Annotated[int | None, _option("Only the first so many prompts of each task.", ASK)] = None,
    guidance: GuidanceName = None,
    scale_full: ScaleFull = None,
    scale_image: ScaleImage = None,
    scale_negative: ScaleNegative = None,
    scale_prompt: ScalePrompt = None,
    temperature: Temperature = None,
    image_temperature: ImageTemperature = None,
    image_top_p: ImageTopP = None,
    image_top_k: ImageTopK = None,
    batch: Annotated[int, _option("Thoughts at a time; changes the speed alone. Default: 16.", RUN)] = 16,
    resume: Resume = False,
) -> int:
    """GenEval in the icon world, whose checker tells right from wrong exactly.

    Example: twgi eval geneval --prompts evaluation_metadata.jsonl --mode critique --out out/critique
    """
    from twgi import load
    from twgi.console import reporter
    from twgi.evaluation.generate import Benchmark, evaluate
    from twgi.evaluation.score import table
    from twgi.thinking.run_folder import check_folder

    benchmark = Benchmark.read(prompts, limit=limit)
    plan = benchmark.plan(
        mode=mode,
        rounds=rounds,
        samples=samples,
        seed=seed,
        guidance=guidance,
        scales=_given(full=scale_full, image=scale_image, negative=scale_negative, prompt=scale_prompt),
        sampling=_given(
            text_temperature=temperature, image_temperature=image_temperature, image_top_p=image_top_p,
            image_top_k=image_top_k,
        ),
    )  # fmt: skip
    check_folder(out, resume=resume)
    report = reporter(many=True, json=False)
    try:
        result = evaluate(load(model), benchmark, plan, out, report=report, batch=batch, resume=resume)
    finally:
        report.close()
    if result.scores is not None:
        print(table(result.scores))
    return _end(report, result.outcome)


@benchmarks.command("tokenizer")
def eval_tokenizer(
    model: Annotated[str, typer.Option(help="Preset, or folder of a checkpoint.")] = "icons",
    scenes: Annotated[int, typer.Option(help="How many, over GenEval's six tasks.")] = 1000,
    seed: Annotated[int, typer.Option(help="Same seed, same scenes.")] = 0,
) -> None:
    """How many icon scenes are still right after the image tokenizer has encoded and decoded them."""
    from twgi import load
    from twgi.evaluation.tokenizer import judge_tokenizer, table

    images = load(model).tokenizer.image
    if images is None:
        raise ConfigError(f"{model} has no image tokenizer")
    print(table(judge_tokenizer(images, scenes=scenes, seed=seed)))


Recipe = Annotated[Path, typer.Argument(help="A YAML file, such as those in recipes/.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value: changes to it.", show_default=False)]


@train.command("vq")
def train_vq(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train the image tokenizer.

    Example: twgi train vq recipes/icons_vq.yaml seed=1
    """
    _check(recipe)
    from twgi.training.vq import run_vq

    print(run_vq(recipe, overrides))


@train.command("lm")
def train_lm(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train the language model.

    Example: twgi train lm recipes/icons_lm.yaml seed=1
    """
    _check(recipe)
    from twgi.training.lm import run_lm

    print(run_lm(recipe, overrides))


def _check(recipe: Path) -> None:
    """Before what takes long to import."""
    if not recipe.is_file():
        raise ConfigError(f"{recipe}: no such recipe; some are in the folder recipes/ of the repository")


def main() -> None:
    """The command `twgi`. A request to end (as a cluster's scheduler sends it) is the same as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run a command; the exit status is 0 when all went well, 2 when the user can put it right, 1 when we must."""
    command = typer.main.get_command(app)
    try:
        status = command.main(list(arguments) or ["--help"], prog_name="twgi", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except TwgiError as error:
        complain(str(error))
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        complain("stopped")
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the parser makes the one the other
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to read what is still buffered
        return CLOSED_PIPE
    except Exception as error:
        return _other(error)


def _other(error: Exception) -> int:
    """A wrong option (the parser's own exception), or a bug of ours."""
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        complain(
            f"{' '.join(error.format_message().split())} (see {context.command_path if context else 'twgi'} --help)"
        )
        return 2
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", str(error), re.IGNORECASE):
        complain("out of memory: try a smaller --batch, or --resume later; what was finished is kept")
        return 2
    if os.environ.get("TWGI_DEBUG"):
        traceback.print_exc()
    complain(f"a mistake of ours: {type(error).__name__}: {error}; TWGI_DEBUG=1 shows where, please report it")
    return OURS
