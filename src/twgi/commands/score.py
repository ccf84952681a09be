"""`twgi score`: judge pictures that are there already, by this program or by any other."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twgi.commands.options import ASK, RUN, option
from twgi.errors import TwgiError

JUDGE = "The judge"

app = typer.Typer(help="Judge the pictures of a benchmark, apart from drawing them.")
Out = Annotated[Path | None, option("For scores.json, results.jsonl, what the judge said. Default: the folder.", RUN)]
Json = Annotated[bool, option("Print scores.json and nothing else.", RUN, "--json")]


@app.command("geneval")
def score_geneval(
    folder: Annotated[Path, typer.Argument(help="A run folder of twgi eval, or 00000/samples/... made elsewhere.")],
    prompts: Annotated[Path | None, option("evaluation_metadata.jsonl: for pictures made elsewhere.", RUN)] = None,
    samples: Annotated[int, option("Pictures of each prompt made elsewhere. Default: 4.", RUN)] = 4,
    which: Annotated[str, option("final, first, or each: all judged, final counts. Default: each.", RUN)] = "each",
    detector: Annotated[str, option("icons, mask2former, or replay:FILE. Default: icons.", JUDGE)] = "icons",
    weights: Annotated[str | None, option("Mask2Former, a folder or a name on the hub.", JUDGE)] = None,
    clip: Annotated[str | None, option("CLIP, a folder or a name on the hub.", JUDGE)] = None,
    device: Annotated[str, option("Where mask2former and CLIP run. Default: cpu.", JUDGE)] = "cpu",
    out: Out = None,
    json: Json = False,
) -> int:
    """Judge pictures by GenEval's rules. What is missing, or could not be looked at, makes the score PARTIAL, and the
    exit status 2.

    In the icon world: twgi score geneval out/critique

    Photographs, on a GPU (downloads 0.3 GB and 1.7 GB once; needs the extra eval):
    twgi score geneval out/run --detector mask2former --device cuda

    Made elsewhere: twgi score geneval pictures/ --prompts evaluation_metadata.jsonl --detector mask2former
    """
    from twgi.console import counting
    from twgi.evaluation.detectors.suite import CLIP, WEIGHTS, suite_named
    from twgi.evaluation.evaluate import score
    from twgi.evaluation.geneval.benchmark import GenEval

    benchmark = GenEval(suite_named(detector, weights=weights or WEIGHTS, clip=clip or CLIP, device=device))
    if prompts is not None:
        asked, pictures = benchmark.from_elsewhere(folder, prompts, samples=samples)
    else:
        asked, pictures = benchmark.from_run(folder)
        benchmark.lay_out(asked, pictures)
    content = score(benchmark, asked, pictures, out or folder, which=which, counting=counting)
    return show(content, benchmark.table(content), json=json)


@app.command("dpg")
def score_dpg(
    questions: Annotated[Path, option("Question file: dpg_bench.csv, dsg-1k-anns.csv, or lines like theirs.", ASK)],
    judge: Annotated[str, option("icons, hf:PATH, openai:URL#MODEL, or replay:FILE.", JUDGE)],
    pictures: Annotated[
        Path | None,
        typer.Argument(help="Folder: of twgi eval dpg, or ID.png, or ID/K.png; none: a recording is scored alone."),
    ] = None,
    out: Out = None,
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
    parameter: Annotated[
        list[str] | None, option("key=value: a field of each request to an endpoint, such as max_tokens=2048.", JUDGE)
    ] = None,
    test: Annotated[
        bool, option("Whether a model must first tell red from blue.", JUDGE, "--self-test/--no-self-test")
    ] = True,
    json: Json = False,
) -> int:
    """DPG-Bench, DSG-1k and GenEval 2: ask a judge about every picture, and make the scores of its answers.

    Answers are kept: run it again to go on where it stopped. The status is 2 where anything is missing, or more than
    5 % of the answers are neither yes nor no.

    Example: twgi score dpg out/direct --questions dpg_bench.csv --judge openai:http://127.0.0.1:8000/v1#qwen

    Recorded: twgi score dpg --questions dsg-1k-anns.csv --judge replay:mplug_dsg.csv#sd2dot1 --gating one-level

    Icons: twgi score dpg out/direct --questions dense.csv --judge icons --compat official
    """
    from twgi.console import counting
    from twgi.evaluation.dpg.benchmark import Dpg
    from twgi.evaluation.dpg.questions import read_questions
    from twgi.evaluation.evaluate import judge_all, score
    from twgi.evaluation.judges.named import judge_named
    from twgi.runs.parts import parse_part

    part, asked = parse_part(shard), read_questions(questions)
    judging = judge_named(
        judge, concurrency=concurrency, timeout=timeout, key_variable=key_variable, probabilities=asked.soft,
        parameters=parameter or (),
    )  # fmt: skip
    benchmark = Dpg(asked, judging, gating=gating, compat=compat, self_test=test)
    found = benchmark.asked, benchmark.pictures(pictures, crops=crops, samples=samples)
    place = out or pictures or Path("out") / "recorded"
    if part != (1, 1):
        thoughts = judge_all(benchmark, *found, place, which=which, counting=counting, part=part)
        print(f"the answers of part {shard} are in {place}; when all parts are there, score without --shard")
        whole = not any(thought.pending or thought.status == "not looked at" for thought in thoughts)
        return 0 if whole else TwgiError.exit_status
    content = score(benchmark, *found, place, which=which, counting=counting)
    return show(content, benchmark.table(content), json=json)


def show(content: dict[str, Any], table: str, *, json: bool) -> int:
    """Print what was found as a table, or as the JSON file that holds it; the exit status.

    That is 2 where it is PARTIAL or too much of it UNKNOWN. Half a surrogate pair becomes its escape.
    """
    from json import dumps

    text = dumps(content, ensure_ascii=False, indent=2) if json else table
    print(text.encode("utf-8", "backslashreplace").decode())
    return TwgiError.exit_status if content.get("partial") or content.get("unknown") else 0
