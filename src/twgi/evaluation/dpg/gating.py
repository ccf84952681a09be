"""Which answers count: a question about the colour of a dog means nothing where there is no dog.

An answer is True (yes), False (no) or None (nobody knows: the judge said something else, or nothing). A gated answer
is the conjunction of the own answer and those of the parents in Kleene's three-valued logic: one no makes it no, else
one unknown makes it unknown. An unknown answer is therefore never taken for a no.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from twgi.evaluation.dpg.questions import Question

Truth = bool | None
Rule = Literal["cascade", "one-level", "none"]


def gate(questions: Sequence[Question], answers: Mapping[int, Truth], rule: Rule) -> dict[int, Truth]:
    """The answer of each question after its parents had their say.

    Args:
        questions: of one item, parents first. answers: by question number; one that is not there is unknown. rule:
        `cascade` asks what became of the parents (DPG-Bench), `one-level` what they were answered (DSG), `none` asks
        nobody.
    """
    own = {question.id: answers.get(question.id) for question in questions}
    if rule == "none":
        return own
    gated: dict[int, Truth] = {}
    source = gated if rule == "cascade" else own
    for question in questions:
        gated[question.id] = both([own[question.id], *(source[parent] for parent in question.parents)])
    return gated


def both(values: Iterable[Truth]) -> Truth:
    """Kleene's conjunction: False if one is, else None if one is, else True."""
    seen = set(values)
    if False in seen:
        return False
    return None if None in seen else True
