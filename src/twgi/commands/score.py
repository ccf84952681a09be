"""`twgi score`: judge pictures that are there already, by this program or by any other."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twgi.commands.dpg import parsed_shard
from twgi.commands.options import ASK, RUN, option
from twgi.errors import ConfigError, TwgiError

if TYPE_CHECKING:
    from twgi.evaluation.dpg_bench.pictures import PictureFolder
    from twgi.evaluation.dpg_bench.questions import QuestionSet
    from twgi.evaluation.judges.answer import Answer, Judge

app = typer.Typer(help="Judge the pictures of a benchmark, apart from drawing them.")
JUDGE = "Who judges"


@app.callback()
def _score() -> None: ...


@app.command("dpg")
def score_dpg(
    questions: Annotated[Path, option("Question file: dpg_bench.csv, dsg-1k-anns.csv, or lines like theirs.", ASK)],
    judge: Annotated[str, option("icons, hf:PATH, openai:URL#MODEL, or replay:FILE.", JUDGE)],
    pictures: Annotated[
        Path | None,
        typer.Argument(help="Folder: of twgi eval dpg, or ID.png, or ID/K.png; none: a recording is scored alone."),
    ] = None,
    out: Annotated[Path | None, option("For answers, rows, scores. Default: dpg-scores in the folder.", RUN)] = None,
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
    json: Annotated[bool, option("Print scores.json instead of the table.", RUN, "--json")] = False,
) -> int:
    """DPG-Bench, DSG-1k and GenEval 2: ask a judge about every picture, and make the scores of its answers.

    Answers are kept: run it again to go on where it stopped. The status is 2 where anything is missing.

    Example: twgi score dpg out/direct --questions dpg_bench.csv --judge openai:http://127.0.0.1:8000/v1#qwen

    Recorded: twgi score dpg --questions dsg-1k-anns.csv --judge replay:mplug_dsg.csv#sd2dot1 --gating one-level

    Icons: twgi score dpg out/direct --questions dense.csv --judge icons --compat official
    """
    from twgi.evaluation.dpg_bench.questions import read_questions
    from twgi.evaluation.dpg_bench.score import ScoreOptions, judge_folder, score_folder
    from twgi.evaluation.dpg_bench.table import shown
    from twgi.evaluation.judges.named import judge_named

    options = ScoreOptions.of(which=which, gating=gating, compat=compat, shard=parsed_shard(shard))
    asked = read_questions(questions)
    judging = judge_named(
        judge, concurrency=concurrency, timeout=timeout, key_variable=key_variable, probabilities=asked.soft
    )
    folder = _folder(pictures, asked, judging, crops=crops, samples=samples)
    place = out or (pictures or Path("out")) / "dpg-scores"
    sheets = judge_folder(asked, folder, judging, place, options=options, progress=Asking())
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


class Asking:
    """How many answers are there, as a line on stderr that is overwritten on a terminal and else written seldom."""

    def begin(self, todo: int) -> None:
        self.todo, self.done, self.kept, self.lost = todo, 0, 0, 0

    def answered(self, answer: "Answer", *, kept: bool) -> None:
        self.done += 1
        self.kept += kept
        self.lost += answer.problem is not None
        if self.done == self.todo or self.done % (10 if sys.stderr.isatty() else 1000) == 0:
            self._tell()

    def close(self) -> None:
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _tell(self) -> None:
        text = f"{self.done}/{self.todo} answers, {self.kept} from before, {self.lost} without an answer"
        terminal = sys.stderr.isatty()
        print(f"\r\033[K{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)
