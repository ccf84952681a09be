"""`twgi eval`: benchmarks, from prompts to scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from twgi.commands.dpg import eval_dpg
from twgi.commands.groups import ALONE, AS_TRAINED, BenchmarkOptions, DrawingOptions, grouped, thinks
from twgi.commands.loading import ICONS, ModelOptions
from twgi.commands.options import ASK, RUN, option
from twgi.commands.think import conclude
from twgi.errors import ConfigError

if TYPE_CHECKING:
    from twgi.evaluation.detectors.eyes import Eyes
    from twgi.evaluation.generate import Benchmark
    from twgi.thinking.plan import RunPlan


class Benchmarks(TyperGroup):
    """The named benchmarks; any other word is a file of prompts."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """`twgi eval prompts.jsonl ...` is `twgi eval geneval --prompts prompts.jsonl ...`."""
        if args and args[0] not in self.commands and Path(args[0]).suffix:
            args = ["geneval", "--prompts", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    help="Run a benchmark: think about its prompts, then judge the pictures. A file of prompts will do.",
    cls=Benchmarks,
)
Which = Annotated[
    str,
    option("Picture of a thought that counts: final, first, or each (all judged, final counts). Default: each.", RUN),
]


@app.command("geneval")
@grouped
def eval_geneval(
    prompts: Annotated[Path, option("GenEval's evaluation_metadata.jsonl; plain prompts are not judged.", ASK)],
    out: Annotated[Path, option("Run folder; scores.json, results.jsonl and geneval/ go there too.", RUN)],
    options: ModelOptions = ICONS,
    drawing: DrawingOptions = AS_TRAINED,
    how: BenchmarkOptions = ALONE,
    judge: Annotated[str, option("icons, or none: draw, and judge with twgi score. Default: icons.", RUN)] = "icons",
    which: Which = "each",
) -> int:
    """GenEval: four thoughts about each of its prompts, the last picture of each in GenEval's own folder shape, judged.

    Example: twgi eval geneval --prompts evaluation_metadata.jsonl --mode critique --out out/critique

    A model of photographs: --judge none, then twgi score geneval OUT --detector mask2former

    Two machines: --shard 1/2 and --shard 2/2 with the same --out, then twgi score geneval OUT
    """
    from twgi.evaluation.detectors.named import eyes_named
    from twgi.evaluation.generate import Benchmark
    from twgi.evaluation.shards import shard_folder
    from twgi.thinking.run_folder import check_folder

    eyes = None if judge == "none" else eyes_named(judge)
    benchmark = Benchmark.read(prompts, names=eyes.names if eyes else None, limit=how.limit)
    plan = benchmark.plan(**how.plan(options, drawing))
    folder = shard_folder(out, plan.shard)
    check_folder(folder, resume=how.resume)
    return _evaluate(benchmark, plan, folder, options, how, eyes, which)


def _evaluate(
    benchmark: "Benchmark", plan: "RunPlan", folder: Path, options: ModelOptions, how: BenchmarkOptions,
    eyes: "Eyes | None", which: str,
) -> int:  # fmt: skip
    from twgi.console import reporter
    from twgi.evaluation.generate import evaluate
    from twgi.evaluation.official import OFFICIAL
    from twgi.evaluation.score import table

    report = reporter(many=True, json=False)
    try:
        result = evaluate(
            thinks(options, how), benchmark, plan, folder, report=report, eyes=eyes, which=which, batch=how.batch,
            resume=how.resume,
        )  # fmt: skip
    finally:
        report.close()
    if result.scores is not None:
        print(table(result.scores))
    elif result.outcome.traces and benchmark.plain:
        print(f"pictures: {folder / OFFICIAL}; nothing is judged, as nothing says what is right")
    elif result.outcome.traces and plan.shard == (1, 1):
        print(f"pictures: {folder / OFFICIAL}; judge them with: twgi score geneval {folder} --detector mask2former")
    elif result.outcome.traces:
        print(f"shard {plan.shard[0]}/{plan.shard[1]} is done; after the last: twgi score geneval {folder.parent}")
    return conclude(report, result.outcome)


app.command("dpg")(eval_dpg)


@app.command("tokenizer")
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
