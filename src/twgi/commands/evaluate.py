"""`twgi eval`: benchmarks, from prompts to pictures and scores."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from twgi.commands.groups import (
    ALONE,
    AS_TRAINED,
    ICONS,
    BenchmarkOptions,
    DrawingOptions,
    ModelOptions,
    grouped,
    thinks,
)
from twgi.commands.options import ASK, RUN, option
from twgi.commands.score import show
from twgi.commands.think import conclude
from twgi.errors import ConfigError

if TYPE_CHECKING:
    from twgi.evaluation.frame import Benchmark, PromptSet


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
    from twgi.console import counting
    from twgi.evaluation.detectors.suite import suite_named
    from twgi.evaluation.evaluate import score
    from twgi.evaluation.geneval.benchmark import GenEval

    benchmark = GenEval(None if judge == "none" else suite_named(judge))
    asked = benchmark.prompts(prompts).limited(how.limit)
    plain = any(not item.include for item in asked.items)

    def then(folder: Path, laid_out: Path) -> int:
        if plain:
            print(f"pictures: {laid_out}; nothing is judged, as nothing says what is right")
        elif benchmark.suite is None:
            print(f"pictures: {laid_out}; judge them with: twgi score geneval {folder} --detector mask2former")
        else:
            found = benchmark.from_run(folder)
            content = score(benchmark, *found, folder, which=which, counting=counting)
            return show(content, benchmark.table(content), json=False)
        return 0

    if plain:
        benchmark.suite = None
    benchmark.check()
    again = None if plain else f"twgi score geneval {out}"
    side = benchmark.suite.side if benchmark.suite else None
    return _draw(benchmark, asked, out, options, drawing, how, then=then, again=again, side=side)


@app.command("dpg")
@grouped
def eval_dpg(
    prompts: Annotated[Path, option("Folder of ID.txt, lines of id and prompt, or a question file.", ASK)],
    out: Annotated[Path, option("Run folder; samples/ and grids/ go there too.", RUN)],
    options: ModelOptions = ICONS,
    drawing: DrawingOptions = AS_TRAINED,
    how: BenchmarkOptions = ALONE,
) -> int:
    """Think about DPG-Bench's prompts and lay the pictures out as its scorer wants them; then: twgi score dpg.

    Example: twgi eval dpg --prompts dpg_bench/prompts --model twgi-subgoal --mode subgoal --out out/dpg

    Two machines: --shard 1/2 and --shard 2/2 with the same --out, then twgi score dpg OUT

    Icons: twgi icons dense --out dense.csv; twgi eval dpg --prompts dense.csv --out out/dense
    """
    from twgi.evaluation.dpg.benchmark import Dpg

    def then(folder: Path, laid_out: Path) -> int:
        print(f"pictures: {laid_out}; judge them with: twgi score dpg {folder} --questions FILE --judge JUDGE")
        return 0

    benchmark, again = Dpg(), f"twgi score dpg {out} --questions FILE --judge JUDGE"
    asked = benchmark.prompts(prompts).limited(how.limit)
    return _draw(benchmark, asked, out, options, drawing, how, then=then, again=again)


def _draw(
    benchmark: "Benchmark", asked: "PromptSet", out: Path, options: ModelOptions, drawing: DrawingOptions,
    how: BenchmarkOptions, *, then: Callable[[Path, Path], int], again: str | None,
    side: int | None = None,
) -> int:  # fmt: skip
    """Draw, and say what comes of the pictures: `then` (run folder, pictures), or `again` after the last part.

    Raises `ConfigError` for a model whose pictures the judge does not know, as their `side` is another one.
    """
    from twgi.console import reporter
    from twgi.evaluation.evaluate import draw
    from twgi.runs.folder import check_folder
    from twgi.runs.parts import part_folder
    from twgi.runs.plan import RunPlan

    plan = RunPlan(prompts=asked.lines(), **how.plan(options, drawing))
    folder, (part, of) = part_folder(out, plan.part), plan.part
    check_folder(folder, resume=how.resume)
    status, thinker = 0, thinks(options, how)
    images = getattr(getattr(thinker, "tokenizer", None), "image", None)  # Ray's actors have it, not this process
    if side is not None and images is not None and images.resolution != side:
        knows = f"the judge icons knows pictures of {side} pixels a side, and {options.model} draws {images.resolution}"
        raise ConfigError(f"{knows}: give --judge none, then twgi score geneval {out} --detector mask2former")
    with closing(reporter(many=True, json=False)) as report:
        outcome, laid_out = draw(
            thinker, benchmark, asked, plan, folder, report=report, batch=how.batch, resume=how.resume
        )
    if laid_out is not None:
        if of == 1 or again is None:
            status = then(folder, laid_out)
        else:
            print(f"shard {part}/{of} is done; after the last: {again}")
    return max(status, conclude(report, outcome))


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
