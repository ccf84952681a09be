"""What became of the lines of data files: kept, too long, refused."""

from dataclasses import dataclass, field
from typing import Any

from twgi.data.encode import Encoded, Outcome, TooLong
from twgi.data.lines import Fault


@dataclass
class Report:
    """Counts of what was kept, and the place of everything that was not. `limit`: most tokens of a row."""

    limit: int | None
    kept: int = 0
    tokens: int = 0
    learnt: int = 0
    images: int = 0
    too_long: list[TooLong] = field(default_factory=list)
    refused: list[Fault] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """One more line."""
        if isinstance(outcome, Encoded):
            self.kept += 1
            self.tokens += len(outcome.row.tokens)
            self.learnt += int(outcome.row.mask.sum())
            self.images += sum(span.kind == "image" for span in outcome.row.spans)
        elif isinstance(outcome, TooLong):
            self.too_long.append(outcome)
        else:
            self.refused.append(outcome)

    @property
    def lines(self) -> int:
        """How many there were."""
        return self.kept + len(self.too_long) + len(self.refused)

    def problems(self) -> list[str]:
        """A line of text for each row that was not kept, as `file:line: reason`."""
        long = [f"{row.where}: too long: {row.tokens} tokens, at most {self.limit}" for row in self.too_long]
        return [*long, *(f"{fault.where}: {fault.reason}" for fault in self.refused)]

    def summary(self) -> str:
        """All of it in a line."""
        what = f"{self.tokens} tokens, {self.learnt} of them to be learnt, {self.images} images"
        return f"{self.kept} kept ({what}), {len(self.too_long)} too long, {len(self.refused)} refused"

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        counts = {"lines": self.lines, "kept": self.kept, "tokens": self.tokens, "learnt": self.learnt}
        return {
            **counts,
            "images": self.images,
            "limit": self.limit,
            "too_long": [row.to_json() for row in self.too_long],
            "refused": [fault.to_json() for fault in self.refused],
        }
