"""`twgi eval`: benchmarks, from prompts to pictures and scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from twgi.commands.groups import ALONE, AS_TRAINED, BenchmarkOptions, DrawingOptions, grouped, thinks
from twgi.commands.loading import ICONS, ModelOptions
from twgi.commands.options import ASK, RUN, option
from twgi.commands.think import conclude
from twgi.errors import ConfigError

if TYPE_CHECKING:
    from twgi.console import Quiet
    from twgi.evaluation.frame import Benchmark, PromptSet
    from twgi.runs.run import Outcome


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
    if not plain:
        benchmark.check()
    drawn = _draw(benchmark, asked, out, options, drawing, how)
    if drawn.laid_out and benchmark.suite and drawn.whole and not plain:
        found = benchmark.from_run(drawn.folder)
        print(benchmark.table(score(benchmark, *found, drawn.folder, which=which, counting=counting)))
    elif drawn.laid_out and plain:
        print(f"pictures: {drawn.laid_out}; nothing is judged, as nothing says what is right")
    else:
        drawn.say(f"twgi score geneval {drawn.folder} --detector mask2former", f"twgi score geneval {out}")
    return conclude(drawn.report, drawn.outcome)


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

    benchmark = Dpg()
    drawn = _draw(benchmark, benchmark.prompts(prompts).limited(how.limit), out, options, drawing, how)
    again = "--questions FILE --judge JUDGE"
    drawn.say(f"twgi score dpg {drawn.folder} {again}", f"twgi score dpg {out} {again}")
    return conclude(drawn.report, drawn.outcome)


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """What came of drawing: the run in `folder`, `whole` or a part of one."""

    outcome: "Outcome"
    folder: Path
    part: tuple[int, int]
    laid_out: Path | None
    report: "Quiet"

    @property
    def whole(self) -> bool:
        return self.part == (1, 1)

    def say(self, judge: str, judge_all: str) -> None:
        """How to go on."""
        if self.laid_out is not None and self.whole:
            print(f"pictures: {self.laid_out}; judge them with: {judge}")
        elif self.laid_out is not None:
            print(f"shard {self.part[0]}/{self.part[1]} is done; after the last: {judge_all}")


def _draw(
    benchmark: "Benchmark", asked: "PromptSet", out: Path, options: ModelOptions, drawing: DrawingOptions,
    how: BenchmarkOptions,
) -> _Drawn:  # fmt: skip
    from twgi.console import reporter
    from twgi.evaluation.evaluate import draw
    from twgi.runs.folder import check_folder
    from twgi.runs.parts import part_folder
    from twgi.runs.plan import RunPlan

    plan = RunPlan(prompts=asked.lines(), **how.plan(options, drawing))
    folder = part_folder(out, plan.part)
    check_folder(folder, resume=how.resume)
    report = reporter(many=True, json=False)
    try:
        outcome, laid_out = draw(
            thinks(options, how), benchmark, asked, plan, folder, report=report, batch=how.batch, resume=how.resume
        )
    finally:
        report.close()
    return _Drawn(outcome=outcome, folder=folder, part=plan.part, laid_out=laid_out, report=report)


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
