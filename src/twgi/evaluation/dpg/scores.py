"""DPG scores from answers: every row, every picture, every category, and how much of it nobody knows.

A picture's score is the share of its known gated answers that are yes; a prompt's the mean of its pictures; the
overall score 100 times the mean of the prompts. Categories are shares of ungated answers over all pictures, as
published. Beside the score stand its bounds: every unknown answer taken for a no, and for a yes.

Gating says which answers count: a question about the colour of a dog means nothing where there is no dog. An answer is
True (yes), False (no) or None (nobody knows: the judge said something else, or nothing). A gated answer is the
conjunction of the own answer and those of the parents in Kleene's three-valued logic: one no makes it no, else one
unknown makes it unknown. An unknown answer is therefore never taken for a no.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from twgi.evaluation.dpg.questions import BROAD, DpgItem, Question
from twgi.evaluation.frame import Verdict
from twgi.evaluation.judges.answer import Answer

Truth = bool | None
Rule = Literal["cascade", "one-level", "none"]
TRUTHS: Mapping[str, Truth] = {"yes": True, "no": False, "invalid": None}
SMALLEST = 1e-300  # what a probability counts as at least: zero would make every geometric mean zero


def gate(questions: Sequence[Question], answers: Mapping[int, Truth], rule: Rule) -> dict[int, Truth]:
    """The answer of each question of one item, parents first, after its parents had their say.

    An answer that is not there is unknown. `cascade` asks what became of the parents (DPG-Bench), `one-level` what they
    were answered (DSG), `none` asks nobody.
    """
    own = {question.id: answers.get(question.id) for question in questions}
    if rule == "none":
        return own
    gated: dict[int, Truth] = {}
    source = gated if rule == "cascade" else own
    for question in questions:
        seen = {own[question.id], *(source[parent] for parent in question.parents)}
        gated[question.id] = False if False in seen else None if None in seen else True
    return gated


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
    """One picture and what was said about it, by question number. With a `problem` it is wrong in everything."""

    item: DpgItem
    said: Mapping[int, Answer] = field(default_factory=dict)
    problem: str | None = None

    def truths(self) -> dict[int, Truth]:
        """The answer to each question, False to all where the picture cannot be looked at."""
        if self.problem is not None:
            return {question.id: False for question in self.item.questions}
        return {q.id: TRUTHS[self.said.get(q.id, Answer()).parsed] for q in self.item.questions}

    def chance(self, number: int) -> float | None:
        """The probability of the wanted answer, 0 where the picture cannot be looked at."""
        return 0.0 if self.problem else self.said.get(number, Answer()).p_yes

    def gated(self, rule: Rule) -> dict[int, Truth]:
        """The answers after the parents had their say."""
        return gate(self.item.questions, self.truths(), rule)

    def verdict(self, rule: Rule) -> Verdict:
        """The score by a gating rule; wrong are the questions that were not answered as wanted."""
        own, gated, shares = self.truths(), self.gated(rule), categories([self], broad=True)
        known = {number for number, answer in self.said.items() if answer.problem is None}
        answers = [
            {
                "proposition_id": asked.id, "question": asked.text, "category": asked.category,
                "answer": self.said[asked.id].to_json() if asked.id in self.said else None,
                "own": own[asked.id], "gated": gated[asked.id],
            }
            for asked in sorted(self.item.questions, key=lambda question: question.id)
        ]  # fmt: skip
        wrong = tuple(question.text for question in self.item.questions if own[question.id] is False)
        return Verdict(
            score=Share.of(gated.values()).value,
            reasons=(self.problem,) if self.problem else wrong,
            pending=0 if self.problem else sum(question.id not in known for question in self.item.questions),
            parts={name: (one.yes, one.yes + one.no) for name, one in shares.items() if one.yes + one.no},
            detail={"answers": answers, "invalid": Share.of(own.values()).invalid},
            source=self,
        )


def score(pictures: Sequence[AnsweredPicture], rule: Rule = "cascade") -> dict[str, Any]:
    """The scores of judged pictures in percent, as `scores.json` has them; None where nothing is known."""
    by_prompt: dict[str, list[Share]] = defaultdict(list)
    for picture in pictures:
        by_prompt[picture.item.id].append(Share.of(picture.gated(rule).values()))
    low, high = (_mean(fmean(s.bounds[side] for s in shares) for shares in by_prompt.values()) for side in (0, 1))
    return {
        "gating": rule,
        "overall": _percent(_mean(_mean(share.value for share in shares) for shares in by_prompt.values())),
        "bounds": [100 * (low or 0.0), 100 * (high or 0.0)],
        "prompts": len(by_prompt),
        "l1": {name: share.to_json() for name, share in categories(pictures, broad=True).items()},
        "l2": {name: share.to_json() for name, share in categories(pictures, broad=False).items()},
    }


def categories(pictures: Iterable[AnsweredPicture], *, broad: bool) -> dict[str, Share]:
    """The share of yes of each category, before gating, over every picture; L1 in the published order, L2 by name."""
    truths: dict[str, list[Truth]] = defaultdict(list)
    for picture in pictures:
        answers = picture.truths()
        for question in picture.item.questions:
            truths[question.broad if broad else question.category].append(answers[question.id])
    order = [name for name in BROAD if name in truths] if broad else []
    return {name: Share.of(truths[name]) for name in [*order, *sorted(set(truths) - set(order))]}


def soft_scores(pictures: Sequence[AnsweredPicture]) -> dict[str, Any]:
    """Soft-TIFA (GenEval 2): mean over prompts of the arithmetic (`am`) and of the geometric mean (`gm`) of the
    probabilities of the wanted answers, in percent; by skill the arithmetic mean.

    A picture that cannot be read has probability 0 throughout; None where a judge gave no probabilities at all.
    """
    means: dict[str, list[tuple[float, float]]] = defaultdict(list)
    skills: dict[str, list[float]] = defaultdict(list)
    unknown = 0
    for picture in pictures:
        found = {question.id: picture.chance(question.id) for question in picture.item.questions}
        known = [p for p in found.values() if p is not None]
        unknown += len(found) - len(known)
        if known:
            geometric = math.exp(fmean(math.log(max(p, SMALLEST)) for p in known))
            means[picture.item.id].append((fmean(known), geometric))
        for question in picture.item.questions:
            if (p := found[question.id]) is not None:
                skills[question.category].append(100 * p)
    am, gm = (_percent(_mean(fmean(m[kind] for m in each) for each in means.values())) for kind in (0, 1))
    return {"am": am, "gm": gm, "skills": {name: fmean(skills[name]) for name in sorted(skills)}, "unknown": unknown}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
