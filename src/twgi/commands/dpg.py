"""`twgi eval dpg` and `twgi score dpg`: DPG-Bench and its like, from prompts to pictures, from pictures to scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twgi.commands.groups import ALONE, AS_TRAINED, BenchmarkOptions, DrawingOptions, grouped, thinks
from twgi.commands.loading import ICONS, ModelOptions
from twgi.commands.options import ASK, RUN, option
from twgi.commands.think import conclude
from twgi.errors import ConfigError, TwgiError

if TYPE_CHECKING:
    from twgi.evaluation.dpg_bench.generate import Prompts
    from twgi.evaluation.dpg_bench.pictures import PictureFolder
    from twgi.evaluation.dpg_bench.questions import QuestionSet
    from twgi.evaluation.judges.answer import Judge
    from twgi.thinking.plan import RunPlan

JUDGE = "The judge"


@grouped
def eval_dpg(
    prompts: Annotated[Path, option("Folder of ID.txt, lines of id and prompt, or a question file.", ASK)],
    out: Annotated[Path, option("Run folder; pictures.jsonl, samples/ and grids/ go there too.", RUN)],
    options: ModelOptions = ICONS,
    drawing: DrawingOptions = AS_TRAINED,
    how: BenchmarkOptions = ALONE,
) -> int:
    """Think about DPG-Bench's prompts and lay the pictures out as its scorer wants them; then: twgi score dpg.

    Example: twgi eval dpg --prompts dpg_bench/prompts --model twgi-subgoal --mode subgoal --out out/dpg

    Two machines: --shard 1/2 and --shard 2/2 with the same --out, then twgi score dpg OUT

    Icons: twgi icons dense --out dense.csv; twgi eval dpg --prompts dense.csv --out out/dense
    """
    from twgi.evaluation.dpg_bench.generate import Prompts
    from twgi.evaluation.shards import shard_folder
    from twgi.thinking.run_folder import check_folder

    read = Prompts.read(prompts, limit=how.limit)
    plan = read.plan(**how.plan(options, drawing))
    folder = shard_folder(out, plan.shard)
    check_folder(folder, resume=how.resume)
    return _draw(read, plan, folder, options, how)


def _draw(prompts: "Prompts", plan: "RunPlan", folder: Path, options: ModelOptions, how: BenchmarkOptions) -> int:
    from twgi.console import reporter
    from twgi.evaluation.dpg_bench.generate import write_pictures
    from twgi.thinking.run import run

    report = reporter(many=True, json=False)
    try:
        outcome = run(thinks(options, how), plan, folder, report=report, batch=how.batch, resume=how.resume)
    finally:
        report.close()
    if outcome.traces:
        print(f"pictures: {write_pictures(outcome, prompts, plan)}")
    return conclude(report, outcome)


def score_dpg(
    questions: Annotated[Path, option("Question file: dpg_bench.csv, dsg-1k-anns.csv, or lines like theirs.", ASK)],
    judge: Annotated[str, option("icons, hf:PATH, openai:URL#MODEL, or replay:FILE.", JUDGE)],
    pictures: Annotated[
        Path | None,
        typer.Argument(help="Folder: of twgi eval dpg, or ID.png, or ID/K.png; none: a recording is scored alone."),
    ] = None,
    out: Annotated[Path | None, option("For answers, rows, scores. Default: the folder.", RUN)] = None,
    crops: Annotated[int | None, option("Pictures in each ID.png: 1, or 4 as a 2 x 2 grid.", ASK)] = None,
    samples: Annotated[int | None, option("Pictures each prompt should have. Default: the run's, or 4.", ASK)] = None,
    which: Annotated[str, option("Picture of a thought: final, first or each. Default: final.", ASK)] = "final",
    gating: Annotated[str, option("cascade (DPG), one-level (DSG) or none. Default: cascade.", ASK)] = "cascade",
    compat: Annotated[str | None, option("official: the published program's score too, faults included.", ASK)] = None,
    shard: Annotated[str, option("Judge part i/n of the prompts; score later, without it.", RUN)] = "1/1",
    concurrency: Annotated[int, option("Questions to an endpoint at a time. Default: 8.", JUDGE)] = 8,
    timeout: Annotated[float, option("Seconds for one answer of an endpoint. Default: 60.", JUDGE)] = 60.0,
    key_variable: Annotated[
        str, option("Variable with the endpoint's key. Default: TWGI_JUDGE_KEY.", JUDGE, "--key-env")
    ] = "TWGI_JUDGE_KEY",
    test: Annotated[
        bool, option("Whether a model must first tell red from blue.", JUDGE, "--self-test/--no-self-test")
    ] = True,
    json: Annotated[bool, option("Print scores.json instead of the table.", RUN, "--json")] = False,
) -> int:
    """DPG-Bench, DSG-1k and GenEval 2: ask a judge about every picture, and make the scores of its answers.

    Answers are kept: run it again to go on where it stopped. The status is 2 where anything is missing.

    Example: twgi score dpg out/direct --questions dpg_bench.csv --judge openai:http://127.0.0.1:8000/v1#qwen

    Recorded: twgi score dpg --questions dsg-1k-anns.csv --judge replay:mplug_dsg.csv#sd2dot1 --gating one-level

    Icons: twgi score dpg out/direct --questions dense.csv --judge icons --compat official
    """
    from twgi.console import counting
    from twgi.evaluation.dpg_bench.questions import read_questions
    from twgi.evaluation.dpg_bench.score import ScoreOptions, judge_folder, score_folder
    from twgi.evaluation.dpg_bench.table import shown
    from twgi.evaluation.judges.named import judge_named
    from twgi.evaluation.shards import parse_shard

    options = ScoreOptions.of(which=which, gating=gating, compat=compat, shard=parse_shard(shard), self_test=test)
    asked = read_questions(questions)
    judging = judge_named(
        judge, concurrency=concurrency, timeout=timeout, key_variable=key_variable, probabilities=asked.soft
    )
    folder = _folder(pictures, asked, judging, crops=crops, samples=samples)
    place = out or pictures or Path("out") / "recorded"
    sheets = judge_folder(asked, folder, judging, place, options=options, counting=counting)
    if options.shard != (1, 1):
        print(f"the answers of part {shard} are in {place}; when all parts are there, score without --shard")
        return TwgiError.exit_status if any(sheet.unanswered for sheet in sheets) else 0
    scores = score_folder(asked, folder, sheets, judging, place, options=options)
    print(shown(scores, json=json))
    return TwgiError.exit_status if scores["partial"] else 0


def _folder(
    pictures: Path | None, asked: "QuestionSet", judge: "Judge", *, crops: int | None, samples: int | None
) -> "PictureFolder":
    from twgi.evaluation.dpg_bench.pictures import find_pictures, recorded_pictures
    from twgi.evaluation.judges.replay import ReplayJudge

    if pictures is not None:
        return find_pictures(pictures, asked.items, crops=crops, samples=samples)
    if isinstance(judge, ReplayJudge):
        return recorded_pictures(judge.images, asked.items, samples=samples)
    raise ConfigError("give a folder of pictures; only a recording (--judge replay:FILE) can be scored without")
