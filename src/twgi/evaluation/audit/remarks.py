"""Whether a critique of the icon world is true: what it says of a picture, held against what is in the picture.

Only the remark counts, the last sentence, in the words of `icons.chains`; the description before it is left alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twgi.evaluation.geneval.rules import COLORS, RELATIONS, Detection, GenEvalItem, relative_position
from twgi.icons.chains import FITS
from twgi.icons.tasks import COUNTS, plural

Seen = Sequence[Detection]
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, kw_only=True)
class Remark:
    """What a critique says, `fits`, `flaw` or `unclear`, and whether that is so."""

    says: str
    true: bool


def read_remark(text: str, item: GenEvalItem, seen: Seen, *, correct: bool) -> Remark:
    """The remark of a critique about a picture in which this is seen, and which is `correct` or not."""
    sentences = _SENTENCE.split(" ".join(text.split()))
    last = sentences[-1] if sentences else ""
    if last == FITS:
        return Remark(says="fits", true=correct)
    for pattern, is_so in _FLAWS.items():
        match = re.fullmatch(pattern, last)
        if match:
            return Remark(says="flaw", true=is_so(item, seen, *match.groups()))
    return Remark(says="unclear", true=False)


def _number(seen: Seen, name: str, color: str | None = None) -> int:
    return sum(thing.name == name and color in (None, thing.color) for thing in seen)


def _count(item: GenEvalItem, seen: Seen, want: str, many: str, have: str) -> bool:
    """There should be two cats, not three."""
    asked = [clause for clause in item.include if plural(clause.name) == many and COUNTS.get(clause.count) == want]
    return any(COUNTS.get(_number(seen, clause.name), "no") == have != want for clause in asked)


def _missing(item: GenEvalItem, seen: Seen, name: str) -> bool:
    """A cat is missing."""
    return any(clause.name == name.lower() and _number(seen, clause.name) < clause.count for clause in item.include)


def _side(item: GenEvalItem, seen: Seen, name: str, relation: str, other: str) -> bool:
    """The cat should be left of the dog."""
    named = [(c.name, c.relation, item.include[c.target].name) for c in item.include if c.target is not None]
    things, targets = ([thing for thing in seen if thing.name == n] for n in (name, other))
    wrong = [relation not in relative_position(a.box, b.box) for a in things for b in targets]
    return (name, relation, other) in named and any(wrong)


def _color(item: GenEvalItem, seen: Seen, name: str, color: str) -> bool:
    """The cat should be red."""
    asked = [clause for clause in item.include if (clause.name, clause.color) == (name, color)]
    return any(_number(seen, name) > 0 and _number(seen, name, color) < clause.count for clause in asked)


def _thing(item: GenEvalItem, seen: Seen, name: str, other: str) -> bool:
    """The cat should be a dog."""
    return _number(seen, name) > 0 and _missing(item, seen, other)


_FLAWS: Mapping[str, Callable[..., bool]] = {
    r"There should be (\w+) (.+), not (\w+)\.": _count,
    r"(?:A|An) (.+) is missing\.": _missing,
    rf"The (.+) should be ({'|'.join(RELATIONS)}) the (.+)\.": _side,
    rf"The (.+) should be ({'|'.join(COLORS)})\.": _color,
    r"The (.+) should be an? (.+)\.": _thing,
}
