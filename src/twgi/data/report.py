"""What becomes of a line of a data file: a row, too long a row, or a fault; and of all lines of files."""

from dataclasses import dataclass, field
from typing import Any

from twgi.data.records import TrainingRecord
from twgi.data.rows import TrainingRow
from twgi.files import Fault, Object


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A row, and the record it was made from; the record is None where the line was a row already.

    `published` is the line that the published code would write, where it was made in its way.
    """

    row: TrainingRow
    record: TrainingRecord | None = None
    published: Object | None = None


@dataclass(frozen=True, kw_only=True)
class TooLong:
    """A line whose row would have more tokens than the limit."""

    where: str
    tokens: int

    def to_json(self) -> Object:
        return {"where": self.where, "tokens": self.tokens}


LineOutcome = Encoded | TooLong | Fault


@dataclass(kw_only=True)
class EncodingReport:
    """Counts of what was kept, and the place of everything that was not. `limit`: most tokens of a row."""

    kept: int = 0
    tokens: int = 0
    learnt: int = 0
    images: int = 0
    limit: int | None
    too_long: list[TooLong] = field(default_factory=list)
    refused: list[Fault] = field(default_factory=list)

    def add(self, outcome: LineOutcome) -> None:
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
        return {
            "lines": self.kept + len(self.too_long) + len(self.refused),
            **vars(self),
            "too_long": [row.to_json() for row in self.too_long],
            "refused": [fault.to_json() for fault in self.refused],
        }

    @classmethod
    def from_json(cls, value: Object) -> "EncodingReport":
        """Read `to_json` back."""
        counts = {name: value[name] for name in ("kept", "tokens", "learnt", "images", "limit")}
        too_long = [TooLong(**row) for row in value["too_long"]]
        return cls(**counts, too_long=too_long, refused=[Fault(**row) for row in value["refused"]])
