"""`twgi eval`: benchmarks, from prompts to scores."""

from pathlib import Path
from typing import Annotated

import typer

from twgi.commands.dpg import eval_dpg
from twgi.commands.options import (
    ASK,
    RUN,
    GuidanceName,
    ImageTemperature,
    ImageTopK,
    ImageTopP,
    Model,
    Resume,
    Rounds,
    ScaleFull,
    ScaleImage,
    ScaleNegative,
    ScalePrompt,
    Seed,
    Temperature,
    given,
    option,
)
from twgi.commands.think import conclude
from twgi.errors import ConfigError

app = typer.Typer(help="Run a benchmark: think about its prompts, then judge the pictures.")


@app.command("geneval")
def eval_geneval(
    prompts: Annotated[Path, option("GenEval's evaluation_metadata.jsonl, or lines like its.", ASK)],
    out: Annotated[Path, option("Run folder; scores.json and results.jsonl go there too.", RUN)],
    model: Model = "icons",
    mode: Annotated[str, option("direct, subgoal or critique. Default: direct.", ASK)] = "direct",
    rounds: Rounds = 1,
    samples: Annotated[int, option("Thoughts for each prompt. Default: 4, as published.", ASK)] = 4,
    seed: Seed = 0,
    limit: Annotated[int | None, option("Only the first so many prompts of each task.", ASK)] = None,
    guidance: GuidanceName = None,
    scale_full: ScaleFull = None,
    scale_image: ScaleImage = None,
    scale_negative: ScaleNegative = None,
    scale_prompt: ScalePrompt = None,
    temperature: Temperature = None,
    image_temperature: ImageTemperature = None,
    image_top_p: ImageTopP = None,
    image_top_k: ImageTopK = None,
    batch: Annotated[int, option("Thoughts at a time; changes the speed alone. Default: 16.", RUN)] = 16,
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
        scales=given(full=scale_full, image=scale_image, negative=scale_negative, prompt=scale_prompt),
        sampling=given(
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
