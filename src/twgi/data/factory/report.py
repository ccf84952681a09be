"""What a build has cost and what it has yielded, counted from its answers and its items."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twgi.data.factory.recipe import ROLES, Price
from twgi.files import Object

VERSION = 2
STATUSES = ("kept", "dropped", "failed")
COUNTS = ("answers", "unanswered", "attempts", "input_tokens", "output_tokens", "untold", "pictures")
_IN, _OUT = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")  # of words, of pictures


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """A build, over all its runs.

    Args:
        items: the last line of each chain in `items.jsonl`.
        planned: how many chains there are to be.
        prompts: how many were kept and dropped; empty where none are needed.
        spent: see `account`.
        seconds: of this run.
    """

    items: Sequence[Object]
    planned: int
    prompts: Mapping[str, int] = field(default_factory=dict)
    spent: Sequence[Object] = ()
    seconds: float

    def count(self, status: str, mode: str | None = None) -> int:
        """How many chains (of a mode) ended so."""
        return sum(item["status"] == status and mode in (None, item["mode"]) for item in self.items)

    @property
    def cost(self) -> float:
        """Of all answers, by the recipe's prices."""
        return float(sum(spent["cost"] for spent in self.spent))

    def yields(self) -> dict[str, dict[str, int]]:
        """Mode -> how its chains ended -> how many."""
        modes = dict.fromkeys(item["mode"] for item in self.items)
        return {mode: {status: self.count(status, mode) for status in STATUSES} for mode in modes}

    def to_json(self) -> Object:
        """The content of `report.json`."""
        return {
            "version": VERSION,
            "planned": self.planned,
            **{status: self.count(status) for status in STATUSES},
            "yield": self.yields(),
            "prompts": dict(self.prompts),
            "spent": list(self.spent),
            "cost": self.cost,
            "seconds": round(self.seconds, 3),
        }

    def problems(self) -> list[str]:
        """Why chains were not kept: the number, the step, the reason; most frequent first."""
        ends = Counter(
            f"{item['mode']} {item['status']} at {item['step']}: "
            + (f"score {item['score']:g}" if "score" in item else item["reason"])
            for item in self.items
            if item["status"] != "kept"
        )
        return [f"{number} {end}" for end, number in ends.most_common()]

    def summary(self) -> str:
        """All of it in a few lines."""
        lines = _table(self.spent) if self.spent else []
        lines += [f"{mode}: {ends['kept']} of {sum(ends.values())} kept" for mode, ends in self.yields().items()]
        left = self.planned - len(self.items)
        counts = ", ".join(f"{self.count(status)} {status}" for status in STATUSES)
        cost = f", cost {self.cost:.4f}" if self.spent else ""
        return "\n".join([*lines, f"{counts}{f', {left} not begun' if left > 0 else ''}{cost}, {self.seconds:.1f} s"])


def account(entries: Iterable[Mapping[str, Any]], prices: Mapping[str, Price]) -> list[Object]:
    """What each role took of each endpoint, in the order of the roles.

    `untold`: replies whose use of tokens the endpoint did not tell, so that they cost nothing here.
    """
    spent: dict[tuple[str, str], Counter[str]] = {}
    for entry in entries:
        price, usages = prices.get(entry["endpoint"], Price()), entry["usages"]
        tokens_in, tokens_out = (sum(_told(usage, keys) for usage in usages) for keys in (_IN, _OUT))
        picture, answered = int("picture" in entry), int("problem" not in entry)
        cost = (tokens_in * price.input + tokens_out * price.output) / 1e6 + picture * price.picture
        untold = sum(not usage for usage in usages)
        counts = (answered, 1 - answered, entry["attempts"], tokens_in, tokens_out, untold, picture)
        taken: dict[str, Any] = {**dict(zip(COUNTS, counts, strict=True)), "cost": cost}
        spent.setdefault((entry["role"], entry["endpoint"]), Counter()).update(taken)
    order = sorted(spent, key=lambda place: (ROLES.index(place[0]), place[1]))
    return [{"role": role, "endpoint": name, **spent[role, name]} for role, name in order]


def _table(spent: Sequence[Object]) -> list[str]:
    names = ("role", "endpoint", *COUNTS, "cost")
    rows = [names, *([*map(str, list(one.values())[:-1]), f"{one['cost']:.4f}"] for one in spent)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _told(usage: Mapping[str, Any], keys: Sequence[str]) -> int:
    told = next((usage[key] for key in keys if isinstance(usage.get(key), int)), 0)
    return max(0, int(told))
