"""What the published program would print (TencentQQGYLab/ELLA, `compute_dpg_bench.py` at 3c228f1), faults included.

It is here so that a number from a paper can be compared with one's own; `docs/dpg.md` lists what it does wrong:

- the first row of the file is lost, and a question that waits for it makes its whole prompt fail
- whatever fails (a picture, a name, a missing parent) leaves the mean without a trace
- categories hold the answers about a prompt's last picture alone
- a prompt whose rows do not stand together keeps only its last run of rows
- a file's name ends at its first dot

With several processes the published program mixes its categories up, differently each time; here they are as with one.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from twgi.errors import PromptError
from twgi.evaluation.dpg.questions import Row

Said = Mapping[int, str]  # question number -> what the judge said
Prompt = dict[int, tuple[str, list[int]]]  # question number -> category, parents, as the published program remembers
UNREADABLE = "cannot be opened"


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A file of one prompt, and what was said about each picture in it; None: it cannot be opened."""

    name: str
    crops: Sequence[Said] | None


class _Fails(Exception):
    """Where the published program catches an exception of its own and goes on with the next file."""


def official_scores(records: Sequence[Row], files: Iterable[PictureFile]) -> dict[str, Any]:
    """The published scores in percent for these rows and what was said, as `scores.json` has them.

    `vanished` says of each file that is not in the mean why; the published program does not. Raises `PromptError` for a
    dependency that is not a number; the published program stops there.
    """
    prompts = _prompts(records)
    means: list[float] = []
    l1, l2 = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    vanished: dict[str, str] = {}
    for file in files:
        key = file.name.split(".")[0]
        try:
            mean, last = _one_file(prompts, key, file.crops)
        except _Fails as reason:
            vanished[file.name] = str(reason)
            continue
        means.append(mean)
        for number, (category, _) in prompts[key].items():
            l1[category.split("-")[0].strip()].append(last[number])
            l2[category].append(last[number])
    return {
        "overall": 100 * fmean(means) if means else None,
        "l1": {name: 100 * fmean(l1[name]) for name in sorted(l1)},
        "l2": {name: 100 * fmean(l2[name]) for name in sorted(l2)},
        "files": len(means),
        "vanished": vanished,
    }


def _prompts(records: Sequence[Row]) -> dict[str, Prompt]:
    prompts: dict[str, Prompt] = {}
    before = ""
    for record in records[1:]:  # ELLA#61
        if record["item_id"] != before:
            prompts[record["item_id"]] = {}
        try:
            parents = [int(part.strip()) for part in record["dependency"].split(",")]
        except ValueError:
            raise PromptError(
                f"{record['where']}: the published program stops at the dependency {record['dependency']!r}: "
                "no official score"
            ) from None
        prompts[record["item_id"]][int(record["proposition"])] = record["tuple"].split("(")[0].strip(), parents
        before = record["item_id"]
    return prompts


def _one_file(prompts: Mapping[str, Prompt], key: str, crops: Sequence[Said] | None) -> tuple[float, dict[int, float]]:
    """The mean over its pictures, and the ungated answers about the last of them (ELLA#60)."""
    if crops is None:
        raise _Fails(UNREADABLE)
    if key not in prompts:
        raise _Fails(f"no prompt is called {key!r}")
    means, ungated = [], dict[int, float]()
    for said in crops:
        ungated = {number: float(said.get(number) == "yes") for number in prompts[key]}
        gated = _gated(prompts[key], ungated)
        means.append(sum(gated.values()) / len(gated))
    if not means:
        raise _Fails("no picture")
    return sum(means) / len(means), ungated


def _gated(prompt: Prompt, ungated: Mapping[int, float]) -> dict[int, float]:
    """In the order of the file, each no passed on to questions that stand later."""
    scores = dict(ungated)
    for number, (_, parents) in prompt.items():
        for parent in (parent for parent in parents if parent != 0):
            if parent not in scores:
                raise _Fails(f"question {number} waits for question {parent}, which is not there")
            if scores[parent] == 0:
                scores[number] = 0.0
                break
    return scores
