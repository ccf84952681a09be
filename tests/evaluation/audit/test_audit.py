"""An audit counts what steps are worth, and goes on from changed steps with all else as it was."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.thinking.tiny import thinker

from twgi.console import Quiet
from twgi.decoding.params import SamplingParams
from twgi.errors import ConfigError
from twgi.evaluation.audit.audit import (
    AUDIT,
    Audited,
    Auditor,
    CritiqueStep,
    Intervention,
    blank_tokens,
    critique_rates,
    interventions,
    rate,
    redrawn,
    subgoal_rates,
    table,
    task_of,
    write_audit,
)
from twgi.evaluation.audit.remarks import Remark
from twgi.evaluation.evaluate import draw
from twgi.evaluation.geneval.benchmark import GenEval
from twgi.evaluation.geneval.rules import GenEvalItem
from twgi.evaluation.icons import icon_suite
from twgi.icons.chains import FITS
from twgi.icons.world import Placed, Scene, render
from twgi.runs.plan import RunPlan
from twgi.thinking.settings import Settings
from twgi.thinking.thinker import Thinker
from twgi.trace import ImageSegment, ModelId, TextSegment, Trace

pytestmark = pytest.mark.usefixtures("tiny_world")

RECORD = {"tag": "two_object", "prompt": "p", "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1}]}
ITEM = GenEvalItem.from_json(RECORD, 0)
CAT, DOG = Placed("cat", "red", 0, 0), Placed("dog", "blue", 5, 5)
AUDITOR = Auditor(icon_suite())


def image(*things: Placed, kind: str = "draft") -> ImageSegment:
    return ImageSegment(tokens=(1,), kind=kind, picture=render(Scene(things)))


def trace(mode: str, *parts: ImageSegment | TextSegment | str) -> Trace:
    segments = tuple(TextSegment(text=part) if isinstance(part, str) else part for part in parts)
    return Trace(
        prompt="p", mode=mode, seed=0, model=ModelId(name="m", sha256="0"), finish_reason="stop", segments=segments
    )


def test_steps_say_of_each_picture_what_is_so_and_what_came_of_it() -> None:
    thought = trace("critique", image(CAT), "There is a cat. A dog is missing.", image(CAT, DOG), f"Both. {FITS}")
    first, second = AUDITOR.steps(ITEM, thought)
    assert first == CritiqueStep(right=False, remark=Remark(says="flaw", true=True), redrawn=True)
    assert second == CritiqueStep(right=True, remark=Remark(says="fits", true=True), redrawn=None)


def step(right: bool, says: str, true: bool, redrawn: bool | None) -> CritiqueStep:
    return CritiqueStep(right=right, remark=Remark(says=says, true=true), redrawn=redrawn)


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
    counts = {r["what"]: (round(r["share"] * r["of"]), r["of"]) for r in critique_rates(steps)}
    assert counts == {
        "of right pictures, the critique says that they fit": (1, 3),
        "of wrong pictures, the critique names a true flaw": (2, 4),
        "of wrong pictures, the critique says that they fit": (1, 4),
        "critique right, redraw wrong": (1, 2),
        "of wrong pictures redrawn, the next is right": (1, 3),
        "of right pictures redrawn, the next is wrong": (1, 2),
    }


def test_parts_are_right_when_together_they_fulfil_the_prompt() -> None:
    cat, dog = image(CAT, kind="part"), image(DOG, kind="part")
    whole = image(CAT, kind="whole")
    assert AUDITOR.right(ITEM, *AUDITOR.parts(trace("subgoal", "a", cat, "b", dog, "c", whole)))
    assert not AUDITOR.right(ITEM, *AUDITOR.parts(trace("subgoal", "a", cat, "b", cat, "c", whole)))
    assert not AUDITOR.right(ITEM, whole)
    found = subgoal_rates([(True, False), (True, True), (False, True)])
    assert [(r["share"], r["of"]) for r in found] == [(2 / 3, 3), (1 / 2, 2), (1, 1)]


def test_a_rate_of_nothing_is_none() -> None:
    assert rate("x", ()) == {"what": "x", "share": None, "of": 0}
    assert rate("x", (True, False))["share"] == 0.5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of the tiny model in each mode."""
    folders = {mode: tmp_path_factory.mktemp(mode) / "run" for mode in ("direct", "critique", "subgoal")}
    for mode, folder in folders.items():
        run(folder, mode)
    return folders


SAMPLES = {"direct": 1, "critique": 4, "subgoal": 8}


def run(folder: Path, mode: str, *, compat: str = "") -> None:
    """Several thoughts about two prompts."""
    lines = [{"tag": "colors", "include": [{"class": n, "count": 1}], "prompt": f"a {n}"} for n in ("cat", "dog")]
    path = folder.parent / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = GenEval().prompts(path)
    settings = Settings(mode=mode, sampling=SamplingParams(max_tokens=240), compat=compat)
    plan = RunPlan(prompts=asked.lines(), settings=settings, samples=SAMPLES[mode], seed=3)
    draw(thinker(), GenEval(), asked, plan, folder, report=Quiet(), batch=4)


@pytest.mark.parametrize(("mode", "condition"), [("critique", "swapped"), ("subgoal", "blanked")])
def test_a_changed_step_leaves_all_else_as_it_was(runs: dict[str, Path], mode: str, condition: str) -> None:
    audited, model = Audited(runs[mode]), thinker()
    changes = interventions(audited.thoughts, model.tokenizer)
    change = next(change for change in changes if change.condition == condition)
    (picture,) = redrawn(model, [change], audited.run.settings, batch=3, advance=lambda: None)
    ((_, thought),) = model.think_many([task_of(change, audited.run.settings)])
    assert isinstance(thought, Trace)
    assert thought.tokens[: len(change.given)] == change.given
    assert picture is None or picture.tokens == thought.images[change.picture].tokens
    if mode == "critique":
        assert thought.images[0].tokens == change.trace.images[0].tokens
    else:
        blank = blank_tokens(model.tokenizer)
        assert all(image.tokens == blank for image in thought.images[: change.picture])


def thought(item: GenEvalItem, *tokens: tuple[int, ...]) -> tuple[GenEvalItem, Trace]:
    """Two parts and a whole, with words between them."""
    first, second, last = (ImageSegment(tokens=each, kind="part") for each in tokens)
    words = [TextSegment(text=f"{n}", tokens=(n,)) for n in (1, 2, 3)]
    told = trace("subgoal", words[0], first, words[1], second, words[2], replace(last, kind="whole"))
    return item, replace(told, prompt=item.prompt)


def test_swapped_parts_are_those_of_a_thought_about_another_prompt() -> None:
    other = replace(ITEM, prompt="q")
    one, same = thought(ITEM, (10,), (11,), (12,)), thought(ITEM, (40,), (41,), (42,))
    changes = interventions([one, same, thought(other, (20,), (21,), (22,))], thinker().tokenizer)
    blank, swapped = (change for change in changes if change.trace is one[1])
    assert (blank.condition, swapped.condition, swapped.picture) == ("blanked", "swapped", 2)
    assert swapped.given == (1, 20, 2, 21), "the words stay"
    assert blank.given[0] == 1
    assert len(blank.given) > 4


def kept(change: Intervention) -> Intervention:
    """Nothing is changed: the thought goes on from what it had thought itself."""
    first, second = change.trace.images[:2]
    upto = change.trace.tokens.index(second.tokens[0], len(first.tokens)) + 1
    return replace(change, given=change.trace.tokens[:upto])


def redraws_its_own(folder: Path, model: Thinker) -> bool:
    audited = Audited(folder)
    changes = [kept(change) for change in interventions(audited.thoughts, model.tokenizer)[:2]]
    pictures = redrawn(model, changes, audited.run.settings, batch=2, advance=lambda: None)
    own = [change.trace.images[1].tokens for change in changes]
    return [picture and picture.tokens for picture in pictures] == own


def test_what_is_kept_is_the_run_s_own_picture(runs: dict[str, Path]) -> None:
    assert redraws_its_own(runs["critique"], thinker())


def test_what_is_kept_is_the_run_s_own_picture_with_quirks_too(tmp_path: Path) -> None:
    """Without its quirk the same thought goes on to another picture."""
    run(tmp_path / "run", "critique", compat="prompt-without-bos")
    assert redraws_its_own(tmp_path / "run", thinker())
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["settings"]["compat"] == ["prompt-without-bos"]
    described["settings"]["compat"] = []
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    assert not redraws_its_own(tmp_path / "run", thinker())


def test_an_audit_is_written_beside_its_run(runs: dict[str, Path]) -> None:
    folder = runs["critique"]
    audited, model = Audited(folder), thinker()
    every = sorted({c.item.id for c in audited.changes(model, 10**6)})
    changes = audited.changes(model, 2)
    assert min(c.item.id for c in changes) == every[0]
    assert max(c.item.id for c in changes) > every[0]
    assert len({(c.item.id, c.trace.sample) for c in changes}) == 2
    rates, effects = audited.intervene(model, changes, batch=2, advance=lambda: None)
    content = write_audit(audited, folder, rates=[*audited.rates(), *rates], effects=effects)
    assert content == json.loads((folder / AUDIT).read_text())
    assert [entry["of"] for entry in content["rates"][-3:]] == [2, 2, 2]
    assert content["effects"].keys() == {"blanked", "swapped"}
    assert "critique right, redraw wrong" in table(content)


def test_an_audit_of_another_model_or_of_no_steps_is_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="no steps"):
        Audited(runs["direct"])
    audited = Audited(runs["critique"])
    audited.run = replace(audited.run, model=ModelId(name="m", sha256="1" * 64))
    with pytest.raises(ConfigError, match="another model"):
        audited.changes(thinker(), 1)
