"""What became of each chain: kept, dropped by the filter, or failed because somebody did not answer. All are kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from twgi.data.factory.chains import Dropped, Made
from twgi.data.factory.crew import Unanswered
from twgi.data.factory.teachers import Job, Teacher
from twgi.thinking.modes import mode_named

Status = Literal["kept", "dropped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One line of `items.jsonl`.

    Args:
        step: the role at which it ended; of a kept chain the last one.
        reason: why it ended there; of a judged chain the judge's.
        score: the judge's, if it came that far.
        record: the training record (docs/data.md), of a dropped chain too; None where it was not finished.
        notes: what else the teacher told.
    """

    id: str
    mode: str
    about: str | int
    status: Status
    step: str
    reason: str
    score: float | None = None
    record: Mapping[str, Any] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value not in (None, {})}


def made(job: Job, teacher: Teacher, keep_from: float) -> Outcome:
    """Have one chain made and judged; whatever a teacher could not do is an outcome too."""
    ended: dict[str, Any] = {"id": job.id, "mode": job.mode, "about": job.about}
    try:
        chain = teacher.make(job)
    except Dropped as error:
        return Outcome(**ended, status="dropped", step=error.step, reason=str(error))
    except Unanswered as error:
        return Outcome(**ended, status="failed", step=error.role, reason=str(error))
    status: Status = "kept" if chain.verdict.score >= keep_from else "dropped"
    ended |= {"score": chain.verdict.score, "reason": chain.verdict.reason, "notes": chain.notes}
    return Outcome(**ended, status=status, step=teacher.steps[job.mode][-1], record=_record(job, chain))


def _record(job: Job, chain: Made) -> dict[str, Any]:
    given = {"input_images": list(chain.input_images)} if chain.input_images else {}
    segments = [part.to_json() for part in chain.response]
    return {"id": job.id, "prompt": mode_named(job.mode).prompt_text(chain.prompt), **given, "segments": segments}


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """The last outcome of each chain in a file of them, by name."""
    with path.open("rb") as lines:
        return {line["id"]: Outcome(**line) for line in map(json.loads, lines)}
