"""The exact detector of the icon world: `twgi.icons.checker`, which needs no weights and names colours itself."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from twgi.evaluation.detectors.suite import DetectorSuite, KnownPicture
from twgi.evaluation.geneval.rules import Detection, GenEvalItem
from twgi.icons import chains, checker, world
from twgi.icons.tasks import GENEVAL_TASKS, TASKS, make_scene

SELF_TEST_SEED = 553


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
    return DetectorSuite(detector=detector, colors=detector, names=frozenset(world.NAMES), known=tuple(known))
