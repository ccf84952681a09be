"""A run thinks about each job once, whatever stops it, and gives the same thoughts in any order and any batch."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from PIL import Image
from tests.thinking.tiny import thinker

from twgi.decoding.params import SamplingParams
from twgi.errors import ConfigError, RunError
from twgi.runs.folder import RunFolder, read_thoughts
from twgi.runs.plan import RunPlan, digest
from twgi.runs.prompts import BadLine, PromptLine
from twgi.runs.run import Outcome, describe, run
from twgi.thinking.events import Done, Task, ThoughtEvent
from twgi.thinking.settings import Settings
from twgi.trace import ImageSegment, Trace, read_traces

SHORT = SamplingParams(max_tokens=24)
OF_RUN = ("seed", "samples", "part")


class Log:
    """A report that remembers, and calls `then` after each stored thought."""

    def __init__(self, then: Callable[[int], None] = lambda count: None) -> None:
        self.then = then
        self.todo, self.count, self.problems, self.paths = 0, 0, list[tuple[str, str]](), list[Path]()

    def begin(self, todo: int) -> None:
        self.todo = todo

    def hear(self, event: ThoughtEvent, path: Path | None) -> None:
        if path is not None:
            assert path.exists()
            self.paths.append(path)

    def finished(self, trace: Trace) -> None:
        self.count += 1
        self.then(self.count)

    def failed(self, where: str, problem: str) -> None:
        self.problems.append((where, problem))


def prompts(*texts: str, **fixed: Any) -> tuple[PromptLine, ...]:
    return tuple(PromptLine(where=f"p:{number}", prompt=text, **fixed) for number, text in enumerate(texts, start=1))


def plan(lines: Sequence[PromptLine | BadLine], **settings: Any) -> RunPlan:
    of_run = {name: settings.pop(name) for name in OF_RUN if name in settings}
    how = Settings(**{"mode": "general", "sampling": SHORT, "guidance": "icons", **settings})
    return RunPlan(prompts=tuple(lines), settings=how, **of_run)


def go(out: Path, what: RunPlan, *, log: Log | None = None, **options: Any) -> Outcome:
    return run(thinker(), what, out, report=log or Log(), **options)


def tokens(outcome: Outcome) -> dict[str, tuple[int, ...]]:
    return {trace.id: trace.tokens for trace in read_thoughts(outcome.folder)}


def stored(out: Path) -> list[tuple[str, int]]:
    return sorted((trace.prompt, trace.sample) for trace in read_traces(out))


SIX = plan(prompts("a", "b", "c"), samples=2)
EVERY = [(text, sample) for text in "abc" for sample in (0, 1)]


def test_a_run_is_its_folder(tmp_path: Path) -> None:
    log = Log()
    outcome = go(tmp_path / "out", SIX, log=log)
    assert stored(tmp_path / "out") == EVERY
    described = json.loads((tmp_path / "out" / "run.json").read_text())
    assert described["settings"]["sampling"]["max_tokens"] == 24
    assert described["settings"]["guidance"]["name"] == "icons"
    assert described["model"] == {"name": "tiny", "sha256": "0" * 64}
    assert set(described["versions"]) == {"twgi", "torch", "python"}
    assert outcome.page == tmp_path / "out" / "index.html"
    assert (log.todo, log.count, log.problems) == (6, 6, [])
    assert outcome.kept.startswith("6 of 6 thoughts with")
    for trace in read_traces(tmp_path / "out"):
        for segment in trace.segments:
            if isinstance(segment, ImageSegment) and segment.image:
                assert (tmp_path / "out" / segment.image) in log.paths


def test_no_thought_depends_on_batch_or_order(tmp_path: Path) -> None:
    alone = tokens(go(tmp_path / "1", SIX, batch=1))
    assert tokens(go(tmp_path / "16", SIX, batch=16)) == alone
    backwards = tokens(go(tmp_path / "back", plan(prompts("c", "b", "a"), samples=2), batch=4))
    assert {f"0000{2 - int(id[4])}{id[5:]}": ids for id, ids in backwards.items()} == alone
    assert len(set(alone.values())) == 6


def stop(count: int) -> None:
    if count == 3:
        raise KeyboardInterrupt


def test_an_interrupted_run_keeps_its_thoughts_and_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = tokens(go(tmp_path / "whole", SIX))
    first = go(tmp_path / "out", SIX, log=Log(stop), batch=2)
    assert first.interrupted
    assert first.page is not None
    assert len(stored(tmp_path / "out")) == 3
    log = Log()
    second = go(tmp_path / "out", SIX, log=log, batch=3, resume=True)
    assert (log.todo, second.interrupted) == (3, False)
    assert stored(tmp_path / "out") == EVERY
    assert tokens(second) == whole


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    go(tmp_path, SIX)
    log = Log()
    assert go(tmp_path, SIX, log=log, resume=True).thoughts == 6
    assert log.todo == 0
    assert stored(tmp_path) == EVERY


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed was 0, is now 1"),
        ({"samples": 3}, "samples was 2, is now 3"),
        ({"mode": "subgoal"}, 'settings.mode was "general", is now "subgoal"'),
        ({"scales": {"full": 3.0}}, "settings.guidance.scales.free.full was 1.5, is now 3.0"),
        ({"sampling": SamplingParams(max_tokens=41)}, "settings.sampling.max_tokens was 24, is now 41"),
        ({"lines": prompts("a", "b", "d")}, "prompts.2 was"),
        ({"lines": prompts("a", "b")}, "prompts.2 was"),
    ],
)
def test_a_changed_run_is_not_resumed(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    RunFolder(tmp_path, run=describe(thinker(), SIX, {}).to_json()).close()
    with pytest.raises(RunError) as error:
        go(tmp_path, plan(**{"lines": prompts("a", "b", "c"), "samples": 2, **change}), resume=True)
    assert said in str(error.value)


def test_a_bad_prompt_is_told_once_and_harms_no_other(tmp_path: Path) -> None:
    lines: list[PromptLine | BadLine] = [
        PromptLine(where="p:1", prompt="a"),
        BadLine(where="p:2", problem="broken JSON"),
        PromptLine(where="p:3", prompt="x" * 1000),
        PromptLine(where="p:4", prompt="b", mode="dreaming"),
        PromptLine(where="p:5", prompt="b", images=(tmp_path / "none.png",)),
        PromptLine(where="p:6", prompt="c"),
    ]
    log = Log()
    outcome = go(tmp_path / "out", plan(lines, samples=2), log=log)
    assert stored(tmp_path / "out") == [("a", 0), ("a", 1), ("c", 0), ("c", 1)]
    assert [where for where, _ in log.problems] == ["p:2", "p:4", "p:3", "p:5"]
    for problem, (_, said) in zip(["broken JSON", "unknown mode", "too long", "no such"], log.problems, strict=True):
        assert problem in said
    assert outcome.failed_prompts == 4
    errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert [error["where"] for error in errors] == ["p:2", "p:4", "p:3", "p:3", "p:5", "p:5"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "unknown mode" in page


def test_what_failed_may_be_mended_and_is_done_by_resuming(tmp_path: Path) -> None:
    missing = tmp_path / "late.png"
    before = plan([PromptLine(where="p:1", prompt="a"), PromptLine(where="p:2", prompt="what?", images=(missing,))])
    assert go(tmp_path / "out", before).failed_prompts == 1
    Image.new("RGB", (12, 12), "red").save(missing)
    assert not go(tmp_path / "out", before, resume=True).failures
    assert stored(tmp_path / "out") == [("a", 0), ("what?", 0)]
    assert not (tmp_path / "out" / "errors.jsonl").exists()


def test_a_run_without_a_thought_leaves_nothing_behind(tmp_path: Path) -> None:
    outcome = go(tmp_path / "deep" / "out", plan(prompts("x" * 1000)))
    assert (outcome.page, outcome.failed_prompts) == (None, 1)
    assert not (tmp_path / "deep").exists()
    (tmp_path / "mine").mkdir()

    def at_once(event: ThoughtEvent, path: Path | None) -> None:
        raise KeyboardInterrupt

    log = Log()
    log.hear = at_once  # type: ignore[method-assign]
    assert go(tmp_path / "mine", SIX, log=log).interrupted
    assert [file.name for file in tmp_path.rglob("*")] == ["mine"]


def test_settings_that_fit_no_prompt_are_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    for settings, said in [
        ({"scales": {"full": -1.0}}, "scale-full"),
        ({"scales": {"full": 0.0}}, "no weight on the prompt"),
        ({"scales": {"negative": 1.0}}, "scale-negative has no effect"),
    ]:
        with pytest.raises(ConfigError, match=said):
            go(tmp_path / "out", plan(prompts("a"), **settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "dreaming"}, "unknown mode 'dreaming'"),
        ({"rounds": 2}, "has no rounds"),
        ({"samples": 0}, "samples must be 1 or more"),
        ({"guidance": "papr"}, "unknown guidance"),
    ],
)
def test_a_plan_checks_itself(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(prompts("a"), **settings)


def test_a_line_may_say_its_own_mode_and_seed() -> None:
    first, second = plan([*prompts("a"), *prompts("b", mode="direct", seed=7)], seed=1).jobs()
    told = [(job.task.settings.mode, job.task.seed) for job in (first, second)]
    assert told == [("general", 1), ("direct", 7)]


def test_the_digest_of_a_prompt_knows_its_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    line = PromptLine(where="p:1", prompt="a", images=(picture,))
    assert digest(line) == digest(BadLine(where="p:1", problem="broken")) == "unusable"
    Image.new("RGB", (4, 4), "red").save(picture)
    red = digest(line)
    Image.new("RGB", (4, 4), "blue").save(picture)
    assert len({red, digest(line), digest(prompts("a")[0])}) == 3


def test_equal_prompts_are_thought_about_as_often_as_they_stand(tmp_path: Path) -> None:
    twice = plan(prompts("a", "a", "b"))
    first = go(tmp_path, twice, log=Log(lambda count: stop(count + 2)), batch=1)
    assert first.interrupted
    assert go(tmp_path, twice, resume=True).thoughts == 3
    assert stored(tmp_path) == [("a", 0), ("a", 0), ("b", 0)]


def test_the_parts_of_a_plan_are_its_jobs_each_once() -> None:
    plan = RunPlan(prompts=tuple(PromptLine(where=f"f:{n}", prompt=f"p{n}") for n in range(7)), samples=2)
    parts_of_it = [replace(plan, part=(which, 3)) for which in (1, 2, 3)]
    parts = [list(part.jobs()) for part in parts_of_it]
    assert sorted((job for part in parts for job in part), key=lambda j: j.id) == list(plan.jobs())
    assert all(parts)


@pytest.mark.parametrize("part", [(0, 2), (3, 2), (1, 0)])
def test_a_part_that_cannot_be_is_refused(part: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="1/4 to 4/4"):
        RunPlan(prompts=(), part=part)


def test_the_work_on_thoughts_is_shared_out_among_them(tmp_path: Path) -> None:
    began = time.monotonic()
    timings = [
        result.timing
        for _, result in thinker().think_many([Task(prompt="a"), Task(prompt="b")])
        if isinstance(result, Trace)
    ]
    assert len(timings) == 2
    assert 0 < sum(timing["busy"] for timing in timings) <= time.monotonic() - began
    assert all(0 < timing["busy_at_pictures"][0] <= timing["busy"] for timing in timings)


def test_a_thought_that_is_stored_when_the_run_is_stopped_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = RunFolder.add

    def interrupted(folder: RunFolder, trace: Trace) -> None:
        """Between the line on disk and the note of its place."""
        add(folder, trace)
        folder._places.clear()
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "add", interrupted)
    outcome = go(tmp_path, SIX)
    assert (outcome.interrupted, outcome.thoughts) == (True, 1)
    assert outcome.page is not None


class Ready:
    """A thinker that has thought already: two thoughts with a picture each."""

    def __init__(self) -> None:
        self.inner = thinker()
        self.identity, self.resolved = self.inner.identity, self.inner.resolved
        picture = ImageSegment(picture=Image.new("RGB", (2, 2)), role="final")
        blank = Trace(prompt="a", mode="general", seed=0, model=self.identity, finish_reason="stop", segments=(picture,))
        self.traces = [blank, replace(blank, sample=1)]

    def stream_many(self, tasks: Iterable[Task], *, batch: int = 8) -> Iterator[tuple[int, ThoughtEvent]]:
        for index, (_, trace) in enumerate(zip(tasks, self.traces, strict=True)):
            yield index, Done(trace)


def test_counts_that_are_told_are_counts_that_are_stored_whenever_the_run_is_stopped(tmp_path: Path) -> None:
    """Ctrl-C at each line of the code that stores a thought."""
    ready, ended = Ready(), []
    for moment in count():
        left = moment

        def step(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if Path(frame.f_code.co_filename).name not in ("files.py", "folder.py"):
                return None
            if event == "line" and left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
            left -= event == "line"
            return step

        out = tmp_path / str(moment)
        log = Log(lambda number: sys.settrace(step) if number == 1 else sys.settrace(None))
        outcome = run(ready, plan(prompts("a"), samples=2), out, report=log)
        sys.settrace(None)
        lines = (out / "traces.jsonl").read_bytes().splitlines()
        assert outcome.thoughts == len(lines) == len(list(read_thoughts(out))), f"at moment {moment}"
        assert f"{len(lines)} of 2 thoughts" in outcome.kept
        assert f"{len(lines)} thought" in (out / "index.html").read_text() or len(lines) == 1
        ended.append(len(lines))
        if not outcome.interrupted:
            break
    assert ended[0] == 1
    assert ended[-1] == 2
    assert len(ended) > 20, "there were moments"


def test_a_run_of_many_samples_begins_at_once(tmp_path: Path) -> None:
    log = Log(stop_at_first)
    outcome = go(tmp_path, plan(prompts("a", "b"), samples=100_000), log=log)
    assert (log.todo, outcome.thoughts, outcome.jobs) == (200_000, 1, 200_000)
    with pytest.raises(ConfigError, match="samples must be 1 or more, and 100000 at most"):
        plan(prompts("a"), samples=100_001)


def stop_at_first(count: int) -> None:
    raise KeyboardInterrupt
