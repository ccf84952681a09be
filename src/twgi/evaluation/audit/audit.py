"""The audit of a run in the icon world: rates from its thoughts, and what becomes of them when a step is changed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twgi.errors import ConfigError
from twgi.evaluation.audit.interventions import Changed, Thought, changed, redrawn
from twgi.evaluation.audit.rates import Auditor, Rate, critique_rates, rate, subgoal_rates
from twgi.evaluation.collection import items_of, read_description, thoughts
from twgi.evaluation.detectors.eyes import self_test
from twgi.evaluation.detectors.icons import icon_eyes
from twgi.evaluation.report.statistics import Estimate, Sums, differences
from twgi.thinking.thinker import Thinker
from twgi.trace import write_file

AUDIT, VERSION = "audit.json", 1


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Rates, and the difference that each change made to the score, by prompt."""

    mode: str
    rates: Sequence[Rate]
    effects: Mapping[str, Estimate] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of `audit.json`."""
        return {
            "version": VERSION,
            "mode": self.mode,
            "model": dict(self.model),
            "rates": [rate.to_json() for rate in self.rates],
            "effects": {name: estimate.to_json() for name, estimate in self.effects.items()},
        }


class Audited:
    """The thoughts of a run folder, with what they are of.

    Raises:
        RunError: the folder holds no run of a benchmark.
        ConfigError: its mode has no steps.
        CheckpointError: the icon checker fails its self-test.
    """

    def __init__(self, folder: Path) -> None:
        self.described = read_description(folder)
        self.settings = self.described["settings"]
        self.mode = self.settings["mode"]
        if self.mode not in ("critique", "subgoal"):
            raise ConfigError(f"{folder} is a run of mode {self.mode}; there are steps in critique and subgoal only")
        items, found = items_of(self.described), thoughts(folder, self.described)
        jobs = sorted(found, key=lambda job: (job.sample, job.number))
        self.thoughts: list[Thought] = [(items[job.number], found[job].with_pictures(folder)) for job in jobs]
        self.auditor = Auditor(icon_eyes())
        self_test(self.auditor.eyes)

    def rates(self) -> list[Rate]:
        """What the thoughts themselves tell."""
        if self.mode == "critique":
            return critique_rates([step for item, trace in self.thoughts for step in self.auditor.steps(item, trace)])
        parted = [(item, trace) for item, trace in self.thoughts if any(i.role == "subgoal" for i in trace.images)]
        return subgoal_rates([(self.auditor.parts_right(i, t), self.auditor.right(i, t.images[-1])) for i, t in parted])

    def changes(self, thinker: Thinker, limit: int) -> list[Changed]:
        """So many thoughts with a step, spread evenly over the run's prompts, each in all conditions.

        Raises:
            ConfigError: the model is another one than that of the run, or there is nothing to change.
        """
        sha = self.described["model"]["sha256"]
        if thinker.thinking.model.sha256 != sha:
            raise ConfigError(f"these thoughts are of another model ({sha[:12]}): give it as --model")
        made = changed(self.thoughts, self.mode, thinker.tokenizer)
        keys = list(dict.fromkeys((one.item.index, one.trace.sample) for one in made))
        count = min(limit, len(keys))
        chosen = {keys[place * len(keys) // count] for place in range(count)}
        return [one for one in made if (one.item.index, one.trace.sample) in chosen]

    def intervene(
        self, thinker: Thinker, changes: Sequence[Changed], *, batch: int, advance: Callable[[], None]
    ) -> tuple[list[Rate], dict[str, Estimate]]:
        """The score with each condition, and its difference from what was kept, paired by prompt."""
        pictures = redrawn(thinker, changes, self.settings, batch=batch, advance=advance)
        verdicts: dict[str, dict[tuple[int, int], tuple[Changed, bool]]] = {"kept": {}}
        for change, picture in zip(changes, pictures, strict=True):
            key = change.item.index, change.trace.sample
            right = picture is not None and self.auditor.right(change.item, picture)
            verdicts.setdefault(change.condition, {})[key] = change, right
            verdicts["kept"][key] = change, self.auditor.right(change.item, change.trace.images[change.picture])
        step = "critique" if self.mode == "critique" else "pictures of the parts"
        rates = [
            rate(f"right with the {step} {name}", (right for _, right in found.values()))
            for name, found in verdicts.items()
        ]
        kept = verdicts.pop("kept")
        effects = {name: _effect({key: kept[key] for key in found}, found) for name, found in verdicts.items()}
        return rates, effects


def _effect(kept: Mapping[Any, tuple[Changed, bool]], found: Mapping[Any, tuple[Changed, bool]]) -> Estimate:
    return differences(_sums(kept), _sums(found))["all"]


def _sums(found: Mapping[Any, tuple[Changed, bool]]) -> Sums:
    by_prompt: dict[str, tuple[float, float]] = {}
    for change, right in found.values():
        total, count = by_prompt.get(str(change.item.index), (0.0, 0.0))
        by_prompt[str(change.item.index)] = total + right, count + 1
    return {"all": by_prompt}


def write_audit(audit: Audit, folder: Path) -> dict[str, Any]:
    """Write `audit.json`, which a report takes up; returns what it holds. Raises `RunError`."""
    content = audit.to_json()
    write_file(folder / AUDIT, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
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
