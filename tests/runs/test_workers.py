"""A whole run can be handed to another process as plain data; Ray actors give the records of one process."""

import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import save_tiny

from twgi import load
from twgi.console import Quiet
from twgi.decoding.params import SamplingParams
from twgi.errors import ConfigError
from twgi.runs.folder import read_thoughts
from twgi.runs.parts import merge, parse_part, part_folder
from twgi.runs.plan import RunPlan
from twgi.runs.prompts import PromptLine
from twgi.runs.run import run
from twgi.thinking.settings import Settings
from twgi.trace import TRACES

SETTINGS = Settings(mode="critique", sampling=SamplingParams(max_tokens=60), guidance="paper", compat="any-text")
PLAN = RunPlan(
    prompts=tuple(PromptLine(where=f"p:{n}", prompt=f"a {word}") for n, word in enumerate(("cat", "dog", "cow"))),
    settings=SETTINGS,
    samples=2,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole") / "run"
    work(str(model), PLAN, out)
    return records(out)


def work(model: str, plan: RunPlan, out: Path) -> int:
    """What a worker is told: the name of a model, a plan, and a folder."""
    return run(load(model), plan, out, report=Quiet(), batch=4).thoughts


def records(folder: Path) -> list[dict[str, Any]]:
    traces = sorted(read_thoughts(folder), key=lambda trace: trace.id)
    return [{key: value for key, value in trace.to_json().items() if key != "timing"} for trace in traces]


def test_another_process_does_a_run_from_plain_data(tmp_path: Path, model: Path, whole: list[dict[str, Any]]) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(work, str(model), PLAN, tmp_path / "out").result() == 6
    assert records(tmp_path / "out") == whole


def test_merged_parts_are_the_run_of_one_process(tmp_path: Path, model: Path, whole: list[dict[str, Any]]) -> None:
    for number in (1, 2):
        part = RunPlan(prompts=PLAN.prompts, settings=SETTINGS, samples=2, part=(number, 2))
        work(str(model), part, part_folder(tmp_path, part.part))
    merge(tmp_path)
    assert records(tmp_path) == whole
    assert len(list((tmp_path / "images").glob("*.png"))) == sum(
        len([segment for segment in trace["segments"] if segment["type"] == "image"]) for trace in whole
    )
    merge(tmp_path)
    assert records(tmp_path) == whole


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2"])
def test_a_part_is_which_of_how_many(text: str) -> None:
    with pytest.raises(ConfigError, match="1/4 to 4/4"):
        parse_part(text)
    assert parse_part("2/2") == (2, 2)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from twgi.runs.ray import RayThinker

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"twgi\[ray\]"):
        RayThinker("icons", actors=1, loading={})


def test_ray_actors_give_the_records_of_one_process_even_when_one_dies(
    tmp_path: Path, model: Path, whole: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    from twgi.runs.ray import RayThinker

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    thinker, out = RayThinker(str(model), actors=2, loading={}), tmp_path / "out"
    killed: list[bool] = []

    def kill_one() -> None:
        """As soon as a thought is there, an actor is killed that has others on its way."""
        deadline = time.monotonic() + 60
        while not (out / TRACES).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        ray.kill(thinker.handles[0])
        killed.append(True)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        outcome = run(thinker, PLAN, out, report=Quiet(), batch=1)
    finally:
        killer.join()
        ray.shutdown()
    assert killed
    assert outcome.thoughts == 6
    assert records(out) == whole
