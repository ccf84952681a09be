"""What a build has cost and what it has yielded, counted from its account (`answers.jsonl`) and its outcomes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twgi.data.factory.outcome import Outcome
from twgi.data.factory.recipe import ROLES, Price

VERSION = 1
_IN, _OUT = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")  # of words, of pictures


@dataclass
class Spent:
    """What one role took of one endpoint.

    `untold`: replies whose use of tokens the endpoint did not tell, so that they cost nothing here. `seconds`: of the
    answers, with the pauses between attempts.
    """

    role: str
    endpoint: str
    answers: int = 0
    unanswered: int = 0
    attempts: int = 0
    untold: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    pictures: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def add(self, entry: Mapping[str, Any], price: Price) -> None:
        """One line of the account."""
        tokens_in, tokens_out = (sum(_told(usage, keys) for usage in entry["usages"]) for keys in (_IN, _OUT))
        picture, answered = int("picture" in entry), int("problem" not in entry)
        self.answers += answered
        self.unanswered += 1 - answered
        self.attempts += entry["attempts"]
        self.untold += sum(not usage for usage in entry["usages"])
        self.input_tokens += tokens_in
        self.output_tokens += tokens_out
        self.pictures += picture
        self.seconds += entry.get("seconds", 0.0)
        self.cost += (tokens_in * price.input + tokens_out * price.output) / 1e6 + picture * price.picture


@dataclass(frozen=True, kw_only=True)
class Report:
    """A build, over all its runs.

    Args:
        outcomes: of every chain so far.
        prompts: how many were kept, and why others were not; empty for a teacher that needs none.
        spent: by role and endpoint.
        seconds: of this run.
        planned: how many chains there are to be.
        steps: what a chain of each mode goes through.
    """

    outcomes: Sequence[Outcome]
    steps: Mapping[str, Sequence[str]]
    prompts: Mapping[str, int] = field(default_factory=dict)
    spent: Sequence[Spent] = ()
    seconds: float
    planned: int

    def count(self, status: str) -> int:
        """How many chains ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def cost(self) -> float:
        """Of all answers, by the recipe's prices."""
        return sum(spent.cost for spent in self.spent)

    def to_json(self) -> dict[str, Any]:
        """The content of `report.json`."""
        statuses = ("kept", "dropped", "failed")
        return {
            "version": VERSION,
            "planned": self.planned,
            **{status: self.count(status) for status in statuses},
            "yield": self.yields(),
            "prompts": dict(self.prompts),
            "spent": [{**vars(spent), "seconds": round(spent.seconds, 3)} for spent in self.spent],
            "cost": self.cost,
            "seconds": round(self.seconds, 3),
        }

    def yields(self) -> dict[str, dict[str, Any]]:
        """For each mode: how many chains were begun and kept, and how many came to each step and past it."""
        return {
            mode: _yield(steps, [outcome for outcome in self.outcomes if outcome.mode == mode])
            for mode, steps in self.steps.items()
        }

    def problems(self) -> list[str]:
        """Why chains were not kept: the number, the step, the reason; most frequent first."""
        ends = Counter(
            (outcome.status, outcome.step, outcome.reason if outcome.score is None else f"score {outcome.score:g}")
            for outcome in self.outcomes
            if outcome.status != "kept"
        )
        return [f"{number} {status} at {step}: {reason}" for (status, step, reason), number in ends.most_common()]

    def summary(self) -> str:
        """All of it in a few lines."""
        lines = [f"{'role':11} {'endpoint':14} answers unanswered attempts  tokens in/out  pictures  seconds  cost"]
        lines += [
            f"{s.role:11} {s.endpoint:14} {s.answers:7} {s.unanswered:10} {s.attempts:8}"
            f"  {s.input_tokens}/{s.output_tokens:<7} {s.pictures:9} {s.seconds:8.1f}  {s.cost:.4f}"
            for s in self.spent
        ]
        if untold := sum(spent.untold for spent in self.spent):
            lines.append(f"{untold} replies did not tell their tokens: those are not in the cost")
        lines = lines if self.spent else []
        for mode, steps in self.yields().items():
            passed = ", ".join(f"{step} {n['passed']}/{n['came']}" for step, n in steps["steps"].items())
            lines.append(f"{mode}: {steps['kept']} of {steps['begun']} kept ({passed})")
        left = self.planned - len(self.outcomes)
        counts = ", ".join(f"{self.count(status)} {status}" for status in ("kept", "dropped", "failed"))
        cost = f", cost {self.cost:.4f}" if self.spent else ""
        return "\n".join([*lines, f"{counts}{f', {left} not begun' if left > 0 else ''}{cost}, {self.seconds:.1f} s"])


def account(entries: Iterable[Mapping[str, Any]], prices: Mapping[str, Price]) -> list[Spent]:
    """The lines of an account added up, in the order of the roles."""
    spent: dict[tuple[str, str], Spent] = {}
    for entry in entries:
        if "key" in entry:
            place = (entry["role"], entry["endpoint"])
            spent.setdefault(place, Spent(*place)).add(entry, prices.get(entry["endpoint"], Price()))
    return sorted(spent.values(), key=lambda one: (ROLES.index(one.role), one.endpoint))


def _yield(steps: Sequence[str], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    ends = [steps.index(outcome.step) for outcome in outcomes]
    kept = sum(outcome.status == "kept" for outcome in outcomes)
    came = [sum(end >= number for end in ends) for number in range(len(steps))]
    passed = [*came[1:], kept]
    counts = {step: {"came": c, "passed": p} for step, c, p in zip(steps, came, passed, strict=True)}
    return {"begun": len(outcomes), "kept": kept, "steps": counts}


def _told(usage: Mapping[str, Any], keys: Sequence[str]) -> int:
    told = next((usage[key] for key in keys if isinstance(usage.get(key), int)), 0)
    return max(0, int(told))
