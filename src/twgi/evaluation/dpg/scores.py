"""DPG scores from answers: every row, every picture, every category, and how much of it nobody knows.

A picture's score is the share of its known gated answers that are yes; a prompt's the mean of its pictures; the
overall score 100 times the mean of the prompts. Categories are shares of ungated answers over all pictures, as
published. Beside the score stand its bounds: every unknown answer taken for a no, and for a yes.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from twgi.evaluation.dpg.gating import Rule, Truth, gate
from twgi.evaluation.dpg.questions import BROAD, DpgItem
from twgi.evaluation.frame import Verdict
from twgi.evaluation.judges.answer import Answer

TRUTHS: Mapping[str, Truth] = {"yes": True, "no": False, "invalid": None}
SMALLEST = 1e-300  # a probability of zero would make every geometric mean zero


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many answers are yes, no, and unknown."""

    yes: int = 0
    no: int = 0
    invalid: int = 0

    @classmethod
    def of(cls, truths: Iterable[Truth]) -> "Share":
        count = Counter(truths)
        return cls(yes=count[True], no=count[False], invalid=count[None])

    @property
    def value(self) -> float | None:
        """Of what is known, the share of yes; None where nothing is."""
        known = self.yes + self.no
        return self.yes / known if known else None

    @property
    def bounds(self) -> tuple[float, float]:
        """The share of yes if all unknown answers were no, and if they were yes."""
        total = max(self.yes + self.no + self.invalid, 1)
        return self.yes / total, (self.yes + self.invalid) / total

    def to_json(self) -> dict[str, Any]:
        return {"score": _percent(self.value), "yes": self.yes, "no": self.no, "invalid": self.invalid}


@dataclass(frozen=True, kw_only=True)
class AnsweredPicture:
    """One picture and what was answered about it, by question number.

    Args:
        answers: whether the wanted answer was given. p_yes: its probability, where the judge says so.
        said: the judge's words. problem: why the picture cannot be looked at; then it is wrong in everything.
    """

    item: DpgItem
    answers: Mapping[int, Truth] = field(default_factory=dict)
    p_yes: Mapping[int, float] = field(default_factory=dict)
    said: Mapping[int, Answer] = field(default_factory=dict)
    problem: str | None = None

    @classmethod
    def of(cls, item: DpgItem, said: Mapping[int, Answer]) -> "AnsweredPicture":
        """A picture by the words of a judge."""
        answers = {number: TRUTHS[answer.parsed] for number, answer in said.items()}
        p_yes = {number: answer.p_yes for number, answer in said.items() if answer.p_yes is not None}
        return cls(item=item, answers=answers, p_yes=p_yes, said=said)

    def truths(self) -> dict[int, Truth]:
        """The answer to each question, False to all where the picture cannot be looked at."""
        return {q.id: self.answers.get(q.id) if self.problem is None else False for q in self.item.questions}

    def gated(self, rule: Rule) -> dict[int, Truth]:
        """The answers after the parents had their say."""
        return gate(self.item.questions, self.truths(), rule)

    def verdict(self, rule: Rule) -> Verdict:
        """The score by a gating rule; wrong are the questions that were not answered as wanted."""
        own, gated, shares = self.truths(), self.gated(rule), categories([self], broad=True)
        known = {number for number, answer in self.said.items() if answer.problem is None}
        answers = [
            {
                "proposition_id": question.id,
                "question": question.text,
                "category": question.category,
                "answer": self.said[question.id].to_json() if question.id in self.said else None,
                "own": own[question.id],
                "gated": gated[question.id],
            }
            for question in sorted(self.item.questions, key=lambda question: question.id)
        ]
        wrong = tuple(question.text for question in self.item.questions if own[question.id] is False)
        return Verdict(
            score=Share.of(gated.values()).value,
            reasons=(self.problem,) if self.problem else wrong,
            pending=0 if self.problem else sum(question.id not in known for question in self.item.questions),
            parts={name: (one.yes, one.yes + one.no) for name, one in shares.items() if one.yes + one.no},
            detail={"answers": answers, "invalid": Share.of(own.values()).invalid},
            source=self,
        )


@dataclass(frozen=True, kw_only=True)
class DpgScores:
    """Scores in percent by one gating rule; None where nothing is known."""

    rule: Rule
    overall: float | None
    bounds: tuple[float, float]
    prompts: int
    broad: Mapping[str, Share]
    detailed: Mapping[str, Share]

    def to_json(self) -> dict[str, Any]:
        return {
            "gating": self.rule,
            "overall": self.overall,
            "bounds": list(self.bounds),
            "prompts": self.prompts,
            "l1": {name: share.to_json() for name, share in self.broad.items()},
            "l2": {name: share.to_json() for name, share in self.detailed.items()},
        }


def score(pictures: Sequence[AnsweredPicture], rule: Rule = "cascade") -> DpgScores:
    """The scores of judged pictures; what is missing is not in them (completeness is another question)."""
    by_prompt: dict[str, list[Share]] = defaultdict(list)
    for picture in pictures:
        by_prompt[picture.item.id].append(Share.of(picture.gated(rule).values()))
    known = [mean for shares in by_prompt.values() if (mean := _mean(share.value for share in shares)) is not None]
    low, high = (_mean(fmean(s.bounds[side] for s in shares) for shares in by_prompt.values()) for side in (0, 1))
    return DpgScores(
        rule=rule,
        overall=_percent(_mean(known)),
        bounds=(100 * (low or 0.0), 100 * (high or 0.0)),
        prompts=len(by_prompt),
        broad=categories(pictures, broad=True),
        detailed=categories(pictures, broad=False),
    )


def categories(pictures: Iterable[AnsweredPicture], *, broad: bool) -> dict[str, Share]:
    """The share of yes of each category, before gating, over every picture; L1 in the published order, L2 by name."""
    truths: dict[str, list[Truth]] = defaultdict(list)
    for picture in pictures:
        answers = picture.truths()
        for question in picture.item.questions:
            truths[question.broad if broad else question.category].append(answers[question.id])
    order = [name for name in BROAD if name in truths] if broad else []
    return {name: Share.of(truths[name]) for name in [*order, *sorted(set(truths) - set(order))]}


@dataclass(frozen=True, kw_only=True)
class SoftScores:
    """Soft-TIFA (GenEval 2): mean over prompts of the arithmetic and of the geometric mean of the probabilities of the
    wanted answers, in percent; by skill the arithmetic mean. None where a judge gave no probabilities at all."""

    am: float | None
    gm: float | None
    skills: Mapping[str, float]
    unknown: int


def soft_scores(pictures: Sequence[AnsweredPicture]) -> SoftScores:
    """Of pictures judged with probabilities; a picture that cannot be read has probability 0 throughout."""
    means: dict[str, list[tuple[float, float]]] = defaultdict(list)
    skills: dict[str, list[float]] = defaultdict(list)
    unknown = 0
    for picture in pictures:
        found = {q.id: 0.0 if picture.problem else picture.p_yes.get(q.id) for q in picture.item.questions}
        known = [p for p in found.values() if p is not None]
        unknown += len(found) - len(known)
        if known:
            means[picture.item.id].append((fmean(known), geometric_mean(known)))
        for question in picture.item.questions:
            if (p := found[question.id]) is not None:
                skills[question.category].append(100 * p)
    am, gm = (_percent(_mean(fmean(m[kind] for m in each) for each in means.values())) for kind in (0, 1))
    return SoftScores(am=am, gm=gm, skills={name: fmean(skills[name]) for name in sorted(skills)}, unknown=unknown)


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean; probabilities below 1e-300 count as that."""
    return math.exp(fmean(math.log(max(value, SMALLEST)) for value in values))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
