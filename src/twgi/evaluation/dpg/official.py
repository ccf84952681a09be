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

from twgi.errors import PromptError
from twgi.evaluation.dpg.questions import QuestionRecord

Said = Mapping[int, str]  # question number -> what the judge said
UNREADABLE = "cannot be opened"


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A file of one prompt: its name, and what was said about each picture in it; None for a file that cannot be
    opened."""

    name: str
    crops: Sequence[Said] | None


@dataclass(frozen=True, kw_only=True)
class OfficialScores:
    """In percent; `vanished` says of each file that is not in the mean why (the published program does not)."""

    overall: float | None
    l1: Mapping[str, float]
    l2: Mapping[str, float]
    files: int
    vanished: Mapping[str, str]


@dataclass
class _Prompt:
    """What the published program remembers of a prompt."""

    categories: dict[int, str]
    parents: dict[int, list[int]]


class _Fails(Exception):
    """Where the published program catches an exception of its own and goes on with the next file."""


def official_scores(records: Sequence[QuestionRecord], files: Iterable[PictureFile]) -> OfficialScores:
    """The published scores for these rows and what was said.

    Raises:
        PromptError: a dependency is not a number; the published program stops there.
    """
    prompts = _prompts(records)
    means: list[float] = []
    categories: dict[str, list[float]] = defaultdict(list)
    vanished: dict[str, str] = {}
    for file in files:
        try:
            mean, last = _one_file(prompts, file)
        except _Fails as reason:
            vanished[file.name] = str(reason)
            continue
        means.append(mean)
        for number, category in prompts[_key(file)].categories.items():
            categories[category].append(last[number])
    return OfficialScores(
        overall=100 * fmean(means) if means else None,
        l1=_means(categories, broad=True),
        l2=_means(categories, broad=False),
        files=len(means),
        vanished=vanished,
    )


def _means(categories: Mapping[str, Sequence[float]], *, broad: bool) -> dict[str, float]:
    gathered: dict[str, list[float]] = defaultdict(list)
    for category, values in categories.items():
        gathered[category.split("-")[0].strip() if broad else category] += values
    return {name: 100 * fmean(gathered[name]) for name in sorted(gathered)}


def _prompts(records: Sequence[QuestionRecord]) -> dict[str, _Prompt]:
    prompts: dict[str, _Prompt] = {}
    before = ""
    for record in records[1:]:  # ELLA#61
        if record.item_id != before:
            prompts[record.item_id] = _Prompt({}, {})
        prompt = prompts[record.item_id]
        prompt.categories[record.proposition] = record.tuple.split("(")[0].strip()
        prompt.parents[record.proposition] = _numbers(record)
        before = record.item_id
    return prompts


def _numbers(record: QuestionRecord) -> list[int]:
    try:
        return [int(part.strip()) for part in record.dependency.split(",")]
    except ValueError:
        raise PromptError(
            f"{record.where}: the published program stops at the dependency {record.dependency!r}: no official score"
        ) from None


def _key(file: PictureFile) -> str:
    return file.name.split(".")[0]


def _one_file(prompts: Mapping[str, _Prompt], file: PictureFile) -> tuple[float, dict[int, float]]:
    """The mean over its pictures, and the ungated answers about the last of them (ELLA#60)."""
    if file.crops is None:
        raise _Fails(UNREADABLE)
    if _key(file) not in prompts:
        raise _Fails(f"no prompt is called {_key(file)!r}")
    prompt = prompts[_key(file)]
    means, ungated = [], {}
    for said in file.crops:
        ungated = {number: float(said.get(number) == "yes") for number in prompt.categories}
        gated = _gated(prompt, ungated)
        means.append(sum(gated.values()) / len(gated))
    if not means:
        raise _Fails("no picture")
    return sum(means) / len(means), ungated


def _gated(prompt: _Prompt, ungated: Mapping[int, float]) -> dict[int, float]:
    """In the order of the file, each no passed on to questions that stand later."""
    scores = dict(ungated)
    for number, parents in prompt.parents.items():
        for parent in (parent for parent in parents if parent != 0):
            if parent not in scores:
                raise _Fails(f"question {number} waits for question {parent}, which is not there")
            if scores[parent] == 0:
                scores[number] = 0.0
                break
    return scores
