"""The oracle of the icon world: it finds the icons and answers exactly. It knows the questions of `icons.dense`
alone."""

from collections.abc import Iterable, Iterator, Sequence

from twgi.evaluation.geneval.rules import relative_position
from twgi.evaluation.judges.answer import Answer, Query, understood
from twgi.icons.checker import Found, find
from twgi.icons.dense import Claim


class IconJudge:
    """Says yes or no to what it was made for, and "I cannot tell." to anything else."""

    name = "icons"
    version = "1"
    needs_test = False

    def answer(self, queries: Iterable[Query]) -> Iterator[tuple[Query, Answer]]:
        seen: tuple[str, list[Found]] | None = None
        for query in queries:
            assert query.picture is not None
            if seen is None or seen[0] != query.picture.sha256:  # questions about one picture come together
                seen = query.picture.sha256, find(query.picture.image)
            claim = Claim.read(query.question)
            words = "I cannot tell." if claim is None else "yes" if holds(claim, seen[1]) else "no"
            yield query, understood(words, p_yes=None if claim is None else float(words == "yes"))


def holds(claim: Claim, found: Sequence[Found]) -> bool:
    """Whether a claim is true of the icons in a picture. What is said of "the cats" must hold for each of them."""
    things = [icon for icon in found if icon.name == claim.name]
    if not things:
        return False
    if claim.count is not None:
        return len(things) == claim.count
    if claim.color is not None:
        return all(icon.color == claim.color for icon in things)
    if claim.relation is not None:
        others = [icon for icon in found if icon.name == claim.other]
        pairs = [(icon, other) for icon in things for other in others]
        return bool(pairs) and all(claim.relation in relative_position(a.box, b.box) for a, b in pairs)
    return True
