"""`twgi eval dpg`: DPG-Bench's prompts, from words to pictures in the published shape."""

from pathlib import Path
from typing import Annotated

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


def eval_dpg(
    prompts: Annotated[Path, option("Folder of ID.txt, lines of id and prompt, or a question file.", ASK)],
    out: Annotated[Path, option("Run folder; pictures.jsonl, samples/ and grids/ go there too.", RUN)],
    model: Model = "icons",
    mode: Annotated[str, option("direct, subgoal or critique. Default: direct.", ASK)] = "direct",
    rounds: Rounds = 1,
    samples: Annotated[int, option("Thoughts for each prompt. Default: 4, as published.", ASK)] = 4,
    seed: Seed = 0,
    limit: Annotated[int | None, option("Only the first so many prompts.", ASK)] = None,
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
    shard: Annotated[str, option("Only part i/n of the prompts, in a folder of its own.", RUN)] = "1/1",
    resume: Resume = False,
) -> int:
    """Think about DPG-Bench's prompts and lay the pictures out as its scorer wants them; then: twgi score dpg.

    Example: twgi eval dpg --prompts dpg_bench/prompts --model twgi-subgoal --mode subgoal --out out/dpg

    Icons: twgi icons dense --out dense.csv; twgi eval dpg --prompts dense.csv --out out/dense
    """
    from twgi.evaluation.dpg_bench.generate import Prompts, write_pictures
    from twgi.thinking.run_folder import check_folder

    read = Prompts.read(prompts, limit=limit)
    plan = read.plan(
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
        shard=parsed_shard(shard),
    )  # fmt: skip
    check_folder(out, resume=resume)

    from twgi import load
    from twgi.console import reporter
    from twgi.thinking.run import run

    report = reporter(many=True, json=False)
    try:
        outcome = run(load(model), plan, out, report=report, batch=batch, resume=resume)
    finally:
        report.close()
    if outcome.traces:
        print(f"pictures: {write_pictures(outcome, read, plan)}")
    return conclude(report, outcome)


def parsed_shard(text: str) -> tuple[int, int]:
    """``2/4`` as (2, 4). Raises `ConfigError`."""
    which, _, of = text.partition("/")
    if not (which.isdecimal() and of.isdecimal()):
        raise ConfigError(f"--shard must be like 1/4, got {text!r}")
    return int(which), int(of)
