"""An evaluation is a run with a verdict on each thought: it resumes, and says what it could not draw."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.thinking.tiny import thinker

from twgi.console import Quiet, counting
from twgi.errors import PromptError
from twgi.evaluation.evaluate import draw, score
from twgi.evaluation.frame import PromptSet
from twgi.evaluation.geneval.benchmark import GenEval
from twgi.evaluation.icons import icon_suite
from twgi.evaluation.results import RESULTS, SCORES
from twgi.runs.plan import RunPlan
from twgi.trace import Trace

pytestmark = pytest.mark.usefixtures("tiny_world")

BENCHMARK = GenEval(icon_suite())


def line(name: str, tag: str = "single_object") -> dict[str, Any]:
    return {"tag": tag, "include": [{"class": name, "count": 1}], "prompt": f"a {name}"}


def prompts_of(folder: Path, *lines: dict[str, Any]) -> PromptSet:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return BENCHMARK.prompts(path)


class Stopping(Quiet):
    """Ctrl-C after the first thought."""

    def finished(self, trace: Trace) -> None:
        raise KeyboardInterrupt


def evaluated(asked: PromptSet, out: Path, *, report: Quiet | None = None, resume: bool = False) -> dict[str, Any]:
    plan = RunPlan(prompts=asked.lines(), samples=2)
    draw(thinker(), BENCHMARK, asked, plan, out, report=report or Quiet(), batch=2, resume=resume)
    return score(BENCHMARK, *BENCHMARK.from_run(out), out, which="each", counting=counting)


def test_an_evaluation_writes_a_row_for_each_thought_and_the_scores(tmp_path: Path) -> None:
    prompts = prompts_of(tmp_path, line("cat"), line("dog", "colors"))
    scores = evaluated(prompts, tmp_path / "out")
    assert scores == json.loads((tmp_path / "out" / SCORES).read_text())
    assert scores["thoughts"] == 4
    assert scores["tasks"] == {"single_object": 0.0, "colors": 0.0}
    assert scores["well_formed"] == 1.0
    assert scores["model"]["name"] == "tiny"
    rows = [json.loads(row) for row in (tmp_path / "out" / RESULTS).read_text().splitlines()[1:]]
    assert [(row["id"], row["sample"]) for row in rows] == [("00000", 0), ("00000", 1), ("00001", 0), ("00001", 1)]
    assert all((tmp_path / "out" / row["pictures"][0]["image"]).is_file() for row in rows)


def test_a_stopped_evaluation_is_partial_and_goes_on_to_the_same_scores(tmp_path: Path) -> None:
    prompts = prompts_of(tmp_path, line("cat"), line("dog"))
    assert evaluated(prompts, tmp_path / "a", report=Stopping())["partial"] == "1/4"
    evaluated(prompts, tmp_path / "a", resume=True)
    evaluated(prompts, tmp_path / "b")
    assert (tmp_path / "a" / RESULTS).read_text() == (tmp_path / "b" / RESULTS).read_text()
    assert json.loads((tmp_path / "a" / SCORES).read_text())["partial"] is None


def test_what_the_world_cannot_draw_is_left_out_and_listed(tmp_path: Path) -> None:
    prompts = prompts_of(tmp_path, line("cat"), line("unicorn"), line("dog"))
    assert [item.id for item in prompts.items] == ["00000", "00002"]
    scores = evaluated(prompts, tmp_path / "out")
    assert scores["left_out"] == ["a unicorn"]
    with pytest.raises(PromptError, match="none of its 1 prompts"):
        prompts_of(tmp_path, line("unicorn"))


def test_a_thought_that_fails_is_wrong_and_listed_and_its_folder_has_a_gap(tmp_path: Path) -> None:
    prompts = prompts_of(tmp_path, line("cat"), line("dog") | {"prompt": "a dog " * 400})
    scores = evaluated(prompts, tmp_path / "out")
    assert (scores["partial"], scores["thoughts"], scores["missing"]) == (None, 4, [])
    assert [entry.split(":")[1].split(",")[0].strip() for entry in scores["wrong_without_a_look"]] == ["failed"] * 2
    assert all("too long" in entry or "exceed" in entry for entry in scores["wrong_without_a_look"])
    assert (tmp_path / "out" / "geneval" / "00000" / "samples" / "00001.png").exists()
    assert not (tmp_path / "out" / "geneval" / "00001" / "samples").exists()


def test_a_limit_keeps_the_first_of_each_task(tmp_path: Path) -> None:
    lines = [line("cat"), line("dog"), line("cow", "colors"), line("bird", "colors"), line("bus")]
    assert [item.prompt for item in prompts_of(tmp_path, *lines).limited(1).items] == ["a cat", "a cow"]
