"""An audit counts what steps are worth, and goes on from changed steps with all else as it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.thinking.tiny import thinker

from twgi.console import Quiet
from twgi.errors import ConfigError
from twgi.evaluation.audit.audit import AUDIT, Audit, Audited, table, write_audit
from twgi.evaluation.audit.interventions import blank_tokens, changed, redrawn, task_of
from twgi.evaluation.audit.rates import Auditor, Step, critique_rates, rate, subgoal_rates
from twgi.evaluation.audit.remarks import Remark
from twgi.evaluation.detectors.icons import icon_eyes
from twgi.evaluation.generate import Benchmark, evaluate
from twgi.evaluation.geneval import Item
from twgi.icons.chains import FITS
from twgi.icons.world import Placed, Scene, render
from twgi.trace import ImageSegment, ModelId, Role, TextSegment, Trace

RECORD = {"tag": "two_object", "prompt": "p", "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1}]}
ITEM = Item.from_json(RECORD, 0)
CAT, DOG = Placed("cat", "red", 0, 0), Placed("dog", "blue", 5, 5)
AUDITOR = Auditor(icon_eyes())


def image(*things: Placed, role: Role = "draft") -> ImageSegment:
    return ImageSegment(tokens=(1,), role=role, picture=render(Scene(things)))


def trace(mode: str, *parts: ImageSegment | str) -> Trace:
    segments = tuple(TextSegment(text=part) if isinstance(part, str) else part for part in parts)
    return Trace(
        prompt="p", mode=mode, seed=0, model=ModelId(name="m", sha256="0"), finish_reason="stop", segments=segments
    )


def test_steps_say_of_each_picture_what_is_so_and_what_came_of_it() -> None:
    thought = trace("critique", image(CAT), "There is a cat. A dog is missing.", image(CAT, DOG), f"Both. {FITS}")
    first, second = AUDITOR.steps(ITEM, thought)
    assert first == Step(right=False, remark=Remark(says="flaw", true=True), redrawn=True)
    assert second == Step(right=True, remark=Remark(says="fits", true=True), redrawn=None)


def step(right: bool, says: str, true: bool, redrawn: bool | None) -> Step:
    return Step(right=right, remark=Remark(says=says, true=true), redrawn=redrawn)


def test_critique_rates_are_counts_of_steps() -> None:
    steps = [
        step(True, "fits", True, None),
        step(True, "flaw", False, False),
        step(True, "flaw", False, True),
        step(False, "flaw", True, True),
        step(False, "flaw", True, False),
        step(False, "flaw", False, False),
        step(False, "fits", False, None),
    ]
    counts = {r.what: (r.right, r.of) for r in critique_rates(steps)}
    assert counts == {
        "of right pictures, the critique says that they fit": (1, 3),
        "of wrong pictures, the critique names a true flaw": (2, 4),
        "of wrong pictures, the critique says that they fit": (1, 4),
        "critique right, redraw wrong": (1, 2),
        "of wrong pictures redrawn, the next is right": (1, 3),
        "of right pictures redrawn, the next is wrong": (1, 2),
    }


def test_parts_are_right_when_together_they_fulfil_the_prompt() -> None:
    cat, dog = image(CAT, role="subgoal"), image(DOG, role="subgoal")
    whole = image(CAT, role="final")
    assert AUDITOR.parts_right(ITEM, trace("subgoal", "a", cat, "b", dog, "c", whole))
    assert not AUDITOR.parts_right(ITEM, trace("subgoal", "a", cat, "b", cat, "c", whole))
    assert not AUDITOR.right(ITEM, whole)
    counts = {r.what: (r.right, r.of) for r in subgoal_rates([(True, False), (True, True), (False, True)])}
    assert list(counts.values()) == [(2, 3), (1, 2), (1, 1)]


def test_a_rate_of_nothing_is_none() -> None:
    assert rate("x", ()).to_json() == {"what": "x", "share": None, "of": 0}
    assert rate("x", (True, False)).to_json()["share"] == 0.5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of the tiny model in each mode."""
    folders = {mode: tmp_path_factory.mktemp(mode) / "run" for mode in ("direct", "critique", "subgoal")}
    for mode, folder in folders.items():
        run(folder, mode)
    return folders


def run(folder: Path, mode: str) -> None:
    """Several thoughts about a few prompts."""
    lines = [
        {"tag": "colors", "include": [{"class": n, "count": 1}], "prompt": f"a {n}"} for n in ("cat", "dog", "cow")
    ]
    path = folder.parent / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    benchmark = Benchmark.read(path)
    plan = benchmark.plan(mode=mode, samples=12 if mode == "subgoal" else 4, seed=3, sampling={"max_tokens": 240})
    evaluate(thinker(), benchmark, plan, folder, report=Quiet(), eyes=icon_eyes(), batch=4)


@pytest.mark.parametrize("mode", ["critique", "subgoal"])
def test_a_changed_step_leaves_all_else_as_it_was(runs: dict[str, Path], mode: str) -> None:
    audited, model = Audited(runs[mode]), thinker()
    settings = audited.settings
    changes = changed(audited.thoughts, mode, model.tokenizer)
    assert {change.condition for change in changes} == {"blanked", "swapped"}
    changes = [next(c for c in changes if c.condition == name) for name in ("blanked", "swapped")]
    pictures = redrawn(model, changes, settings, batch=3, advance=lambda: None)
    blank = blank_tokens(model.tokenizer)
    for change, picture in zip(changes, pictures, strict=True):
        thought = model.think(**vars_of(task_of(change, settings)))
        assert thought.tokens[: len(change.given)] == change.given
        assert picture is None or picture.tokens == thought.images[change.picture].tokens
        parts = change.trace.images[: change.picture]
        if mode == "critique":
            assert thought.images[0].tokens == parts[0].tokens
        elif change.condition == "blanked":
            assert all(image.tokens == blank for image in thought.images[: change.picture])
        else:
            assert [i.tokens for i in thought.images[: change.picture]] != [i.tokens for i in parts]


def vars_of(task: Any) -> dict[str, Any]:
    return {name: getattr(task, name) for name in type(task).__dataclass_fields__}


def test_what_is_kept_is_the_run_s_own_picture(runs: dict[str, Path]) -> None:
    audited, model = Audited(runs["critique"]), thinker()
    settings = audited.settings
    for change in changed(audited.thoughts, "critique", model.tokenizer)[:2]:
        first, second = change.trace.images[:2]
        tokens = change.trace.tokens
        upto = tokens.index(second.tokens[0], len(first.tokens)) + 1
        (picture,) = redrawn(model, [replace(change, given=tokens[:upto])], settings, batch=1, advance=lambda: None)
        assert picture is not None
        assert picture.tokens == second.tokens


def test_an_audit_is_written_beside_its_run(runs: dict[str, Path]) -> None:
    folder = runs["critique"]
    audited, model = Audited(folder), thinker()
    every = sorted({c.item.index for c in audited.changes(model, 10**6)})
    changes = audited.changes(model, 2)
    assert min(c.item.index for c in changes) == every[0]
    assert max(c.item.index for c in changes) > every[0]
    assert len({(c.item.index, c.trace.sample) for c in changes}) == 2
    rates, effects = audited.intervene(model, changes, batch=2, advance=lambda: None)
    content = write_audit(Audit(mode="critique", rates=[*audited.rates(), *rates], effects=effects), folder)
    assert content == json.loads((folder / AUDIT).read_text())
    assert [entry["of"] for entry in content["rates"][-3:]] == [2, 2, 2]
    assert content["effects"].keys() == {"blanked", "swapped"}
    assert "critique right, redraw wrong" in table(content)


def test_an_audit_of_another_model_or_of_no_steps_is_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="critique and subgoal only"):
        Audited(runs["direct"])
    audited = Audited(runs["critique"])
    audited.described["model"]["sha256"] = "1" * 64
    with pytest.raises(ConfigError, match="another model"):
        audited.changes(thinker(), 1)
