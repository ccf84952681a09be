"""`twgi report`: scored folders side by side."""

from pathlib import Path
from typing import Annotated

import typer

from twgi.commands.options import RUN, option
from twgi.commands.score import show


def report(
    folders: Annotated[list[Path], typer.Argument(help="Scored folders; the first is what others are held against.")],
    out: Annotated[
        Path, option("Folder for index.html, report.md, report.json and curves. Default: out/report.", RUN)
    ] = (Path("out/report")),
    json: Annotated[bool, option("Print report.json and nothing else.", RUN, "--json")] = False,
) -> None:
    """Tables with intervals, paired tests, curves of score against cost, wins and losses, beside the paper's rows.

    Example: twgi report out/direct out/subgoal out/critique --out out/report
    """
    from twgi.evaluation.report.build import read_runs, sections
    from twgi.evaluation.report.write import write_report

    content = write_report(sections(read_runs(folders)), out)
    page = (out / "report.md").read_text(encoding="utf-8")
    show(content, f"{page}\npage: {out / 'index.html'}", json=json)
