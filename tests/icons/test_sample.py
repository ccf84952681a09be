"""A sample of the icon world: every task and mode, true, and as a run has it."""

import json
from pathlib import Path

import pytest

from twgi.errors import ConfigError, RunError
from twgi.icons.sample import SCENES, draw, write_sample
from twgi.icons.tasks import TASKS
from twgi.thinking.modes import MODES
from twgi.trace import read_traces


def test_a_sample_shows_every_task_in_every_mode() -> None:
    drawn = [draw(number, 0) for number in range(32)]
    assert {(d.request.tag, d.chain.mode) for d in drawn} == {(task, mode) for task in TASKS for mode in MODES}


def test_a_scene_is_a_function_of_its_seed_and_number() -> None:
    assert draw(3, 1) == draw(3, 1)
    assert len({draw(number, seed).scene for number in (3, 11) for seed in (1, 2)}) == 4


def test_a_sample_is_written_as_traces_with_pictures_and_a_page(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "out", scenes=12, seed=5)
    traces = [trace.with_pictures(tmp_path / "out") for trace in read_traces(tmp_path / "out")]
    lines = [json.loads(line) for line in (tmp_path / "out" / SCENES).read_text().splitlines()]
    assert len(traces) == len(lines) == sample.scenes == sample.read_right == 12
    assert all(image.picture is not None for trace in traces for image in trace.images)
    assert [line["prompt"] for line in lines] == [draw(number, 5).request.prompt for number in range(12)]
    assert sample.page.read_text().count("<article") == 12


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        write_sample(tmp_path)
    with pytest.raises(ConfigError, match="scenes"):
        write_sample(tmp_path / "new", scenes=0)
