"""A benchmark is one class in the frame, and a mode one entry: all else asks what is recorded."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.thinking.tiny import thinker

from twgi.cli import execute
from twgi.console import Quiet, counting
from twgi.evaluation import benchmarks
from twgi.evaluation.evaluate import Evaluation, draw, score
from twgi.evaluation.frame import Judged, Part, PictureToJudge, PromptSet, Verdict
from twgi.evaluation.pictures import PictureSet, read_pictures
from twgi.runs.plan import RunPlan


@dataclass(frozen=True)
class Line:
    """A prompt, and how much red its picture must have."""

    id: str
    prompt: str
    red: int
    task: str = "red"

    @property
    def label(self) -> str:
        return self.id

    @property
    def record(self) -> Mapping[str, Any]:
        return {"prompt": self.prompt, "red": self.red}


class Redness:
    """A benchmark: its prompts, what is right about a picture, and how judgements become scores."""

    name = "redness"

    def prompts(self, path: Path) -> PromptSet:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        items = tuple(Line(f"line{number}", line["prompt"], line["red"]) for number, line in enumerate(lines))
        return PromptSet(items=items, whole=len(items))

    def judge(self, pictures: Iterable[PictureToJudge], out: Path, part: Part) -> Iterable[Judged]:
        for picture in pictures:
            assert picture.image is not None
            red = picture.image.resize((1, 1)).tobytes()[0]
            yield picture, Verdict(score=float(red >= picture.item.red), reasons=(f"red is {red}",))

    def wrong(self, item: Line, problem: str) -> Verdict:
        return Verdict(score=0.0, reasons=(problem,))

    def scores(self, evaluation: Evaluation) -> dict[str, Any]:
        return {"overall": sum(row.score for row in evaluation.rows) / len(evaluation.rows)}

    def describe(self) -> dict[str, Any]:
        return {"judge": {"name": "eyes", "version": "1"}}

    def lay_out(self, asked: PromptSet, pictures: PictureSet) -> Path:
        return pictures.root

    def table(self, scores: Mapping[str, Any]) -> str:
        return f"overall {scores['overall']}"


def test_a_benchmark_is_drawn_judged_scored_and_reported_by_the_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"prompt": "a cat", "red": 0}, {"prompt": "a dog", "red": 256}, {"prompt": "a cow " * 400, "red": 0}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    benchmark, out = Redness(), tmp_path / "run"
    asked = benchmark.prompts(tmp_path / "prompts.jsonl")
    draw(thinker(), benchmark, asked, RunPlan(prompts=asked.lines(), samples=2), out, report=Quiet())
    pictures = read_pictures(out, "redness")
    content = score(benchmark, asked, pictures, out, which="final", counting=counting)
    assert content["statuses"] == {"scored": 4, "failed": 2}
    assert (content["overall"], content["partial"], content["thoughts"]) == (2 / 6, None, 6)
    entry = benchmarks.Entry(title="The reddest pictures", overall="tasks")
    monkeypatch.setitem(benchmarks.BENCHMARKS, "redness", entry)
    assert execute(["report", str(out), "--out", f"{tmp_path}/report"]) == 0
    page = (tmp_path / "report" / "report.md").read_text()
    assert "# The reddest pictures" in page
    assert "judged by eyes 1" in page
