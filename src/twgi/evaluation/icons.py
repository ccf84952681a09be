"""Who sees the icon world exactly, by `twgi.icons.checker`, which needs no weights: its detector, and its judge."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from twgi.evaluation.detectors.suite import DetectorSuite, KnownPicture
from twgi.evaluation.geneval.rules import Detection, GenEvalItem, relative_position
from twgi.evaluation.judges.answer import Answer, Query, understood
from twgi.icons import chains, checker, world
from twgi.icons.dense import Claim
from twgi.icons.tasks import GENEVAL_TASKS, TASKS, make_scene

SELF_TEST_SEED = 553
SIDE: int | None = world.PICTURE_PX


class IconDetector:
    """Detector and colour classifier in one. It sees an icon or does not, so all it reports has score 1."""

    name = "icons"
    version = "1"

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        return [
            [Detection(name=icon.name, box=icon.box, score=1.0, color=icon.color) for icon in found]
            for found in checker.find_many(pictures)
        ]

    def classify(self, picture: Image.Image, detections: Sequence[Detection]) -> list[str]:
        return [detection.color or "" for detection in detections]


def icon_suite() -> DetectorSuite:
    """Known are of each task a scene that fulfils its request, and one with a flaw that chains know how to make."""
    known = []
    for number, task in enumerate(GENEVAL_TASKS):
        rng = np.random.default_rng([SELF_TEST_SEED, number])
        request = TASKS[task](rng)
        scene = make_scene(request, rng)
        flawed, remark = chains.flaw(request, scene, rng)
        item = GenEvalItem.from_json(request.metadata(), number)
        for how, drawn in (("drawn right", scene), (f"({remark})", flawed)):
            where, picture = f"{item.prompt!r} {how}", world.render(drawn)
            known.append(KnownPicture(where=where, picture=picture, item=item, correct=drawn is scene))
    detector = IconDetector()
    return DetectorSuite(
        detector=detector, colors=detector, names=frozenset(world.NAMES), known=tuple(known), blind=_blind,
        side=SIDE,
    )  # fmt: skip


def _blind(picture: Image.Image) -> str | None:
    why = checker.stranger(picture)
    return f"{why}; give --detector mask2former for photographs" if why else None


class IconJudge:
    """Says yes or no to the questions of `icons.dense` about pictures of the icon world, else "I cannot tell."."""

    name = "icons"
    version = "1"
    needs_test = False

    def answer(self, queries: Iterable[Query]) -> Iterator[tuple[Query, Answer]]:
        seen: tuple[str, str | None, list[checker.Found]] | None = None
        for query in queries:
            assert query.picture is not None
            if seen is None or seen[0] != query.picture.sha256:  # questions about one picture come together
                image = query.picture.image
                why = checker.stranger(image)
                seen = query.picture.sha256, why, [] if why else checker.find(image)
            (_, why, found), claim = seen, Claim.read(query.question)
            if claim is None or why:
                yield query, understood(f"I cannot tell: {why}" if why else "I cannot tell.")
            else:
                yes = holds(claim, found)
                yield query, understood("yes" if yes else "no", p_yes=float(yes))


def holds(claim: Claim, found: Sequence[checker.Found]) -> bool:
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
