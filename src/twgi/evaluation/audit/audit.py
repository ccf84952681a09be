"""The audit of a run in the icon world: rates from its thoughts, and what becomes of them when a step is changed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twgi.errors import ConfigError
from twgi.evaluation.audit.interventions import AboutItem, Intervention, interventions, redrawn, step_of
from twgi.evaluation.audit.rates import Auditor, Rate, critique_rates, rate, subgoal_rates
from twgi.evaluation.detectors.icons import icon_suite
from twgi.evaluation.detectors.suite import self_test
from twgi.evaluation.geneval.rules import GenEvalItem
from twgi.evaluation.pictures import ids_of, told_of
from twgi.evaluation.report.statistics import Estimate, Sums, differences
from twgi.files import write_json
from twgi.runs.folder import read_run, read_thoughts
from twgi.runs.plan import parse_job_id
from twgi.thinking.thinker import Thinker

AUDIT, VERSION = "audit.json", 1
STEPS = {"draft": "critique", "part": "pictures of the parts"}
Verdicts = Mapping[tuple[str, int], bool]
"""(id of the prompt, sample) -> whether the picture is right"""


class Audited:
    """The thoughts of a run folder, with what they are of.

    Raises:
        RunError: the folder holds no run of a benchmark.
        ConfigError: its thoughts have no steps.
        CheckpointError: the icon checker fails its self-test.
    """

    def __init__(self, folder: Path) -> None:
        self.run = read_run(folder)
        told = told_of(folder, self.run)
        items = [GenEvalItem.from_json(line, int(n)) for line, n in zip(told["lines"], ids_of(told), strict=True)]
        found = {parse_job_id(trace.id): trace.with_pictures(folder) for trace in read_thoughts(folder)}
        keys = sorted(found, key=lambda key: (key[1], key[0]))
        self.thoughts: list[AboutItem] = [(items[key[0]], found[key]) for key in keys]
        step = step_of([trace for _, trace in self.thoughts])
        if step is None:
            raise ConfigError(f"{folder}: its thoughts have no steps; there are some in critique and subgoal")
        self.step, self.auditor = step, Auditor(icon_suite())
        self_test(self.auditor.suite)

    def rates(self) -> list[Rate]:
        """What the thoughts themselves tell."""
        if self.step == "draft":
            return critique_rates([step for item, trace in self.thoughts for step in self.auditor.steps(item, trace)])
        parted = [(item, trace) for item, trace in self.thoughts if self.auditor.parts(trace)]
        return subgoal_rates([(self.auditor.parts_right(i, t), self.auditor.right(i, t.images[-1])) for i, t in parted])

    def changes(self, thinker: Thinker, limit: int) -> list[Intervention]:
        """So many thoughts with a step, spread evenly over the run's prompts, each in all conditions.

        Raises:
            ConfigError: the model is another one than that of the run, or there is nothing to change.
        """
        sha = self.run.model.sha256
        if thinker.identity.sha256 != sha:
            raise ConfigError(f"these thoughts are of another model ({sha[:12]}): give it as --model")
        made = interventions(self.thoughts, thinker.tokenizer)
        keys = list(dict.fromkeys(one.key for one in made))
        count = min(limit, len(keys))
        chosen = {keys[place * len(keys) // count] for place in range(count)}
        return [one for one in made if one.key in chosen]

    def intervene(
        self, thinker: Thinker, changes: Sequence[Intervention], *, batch: int, advance: Callable[[], None]
    ) -> tuple[list[Rate], dict[str, Estimate]]:
        """The score with each condition, and its difference from what was kept, paired by prompt."""
        pictures = redrawn(thinker, changes, self.run.settings, batch=batch, advance=advance)
        kept: dict[tuple[str, int], bool] = {}
        changed: dict[str, dict[tuple[str, int], bool]] = {}
        for change, picture in zip(changes, pictures, strict=True):
            right = picture is not None and self.auditor.right(change.item, picture)
            changed.setdefault(change.condition, {})[change.key] = right
            kept[change.key] = self.auditor.right(change.item, change.trace.images[change.picture])
        rates = [
            rate(f"right with the {STEPS[self.step]} {name}", found.values())
            for name, found in {"kept": kept, **changed}.items()
        ]
        return rates, {name: _effect(kept, found) for name, found in changed.items()}


def _effect(kept: Verdicts, found: Verdicts) -> Estimate:
    return differences(_sums({key: kept[key] for key in found}), _sums(found))["all"]


def _sums(found: Verdicts) -> Sums:
    by_prompt: dict[str, tuple[float, float]] = {}
    for (prompt, _), right in found.items():
        total, count = by_prompt.get(prompt, (0.0, 0.0))
        by_prompt[prompt] = total + right, count + 1
    return {"all": by_prompt}


def write_audit(
    audited: Audited, folder: Path, *, rates: Sequence[Rate], effects: Mapping[str, Estimate]
) -> dict[str, Any]:
    """Write `audit.json`, which a report takes up; returns what it holds. Raises `RunError`."""
    content = {
        "version": VERSION,
        "mode": audited.run.settings.mode,
        "model": audited.run.model.to_json(),
        "rates": [rate.to_json() for rate in rates],
        "effects": {name: estimate.to_json() for name, estimate in effects.items()},
    }
    write_json(folder / AUDIT, content)
    return content


def table(content: Mapping[str, Any]) -> str:
    """`audit.json` as lines for people."""
    lines = [f"{'what':52} {'share':>6} {'of':>6}"]
    for entry in content["rates"]:
        share = "-" if entry["share"] is None else f"{entry['share']:.3f}"
        lines.append(f"{entry['what']:52} {share:>6} {entry['of']:>6}")
    for name, effect in content["effects"].items():
        interval = f"{effect['low']:+.3f} to {effect['high']:+.3f}"
        lines.append(f"{name} less kept: {effect['value']:+.3f} ({interval}), p = {effect['p']:.4f}")
    return "\n".join(lines)
