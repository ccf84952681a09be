"""The table of benchmarks: what is to be known of one without loading it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One benchmark: its title, and what its overall score is the mean of."""

    title: str
    overall: Literal["tasks", "prompts"]


BENCHMARKS: Mapping[str, Entry] = {
    "geneval": Entry(title="GenEval", overall="tasks"),
    "dpg": Entry(title="DPG-Bench", overall="prompts"),
}


def entry_of(name: str) -> Entry:
    """The entry of a benchmark; of any other name one that is its own title."""
    return BENCHMARKS.get(name, Entry(title=name, overall="tasks"))
