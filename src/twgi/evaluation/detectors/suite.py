"""Who sees what is in pictures: a detector with a colour classifier, tested on pictures of known content."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from twgi.errors import CheckpointError, ConfigError
from twgi.evaluation.geneval.rules import LIMITS, ColorClassifier, Detector, GenEvalItem, judge

WEIGHTS, CLIP = "facebook/mask2former-swin-small-coco-instance", "openai/clip-vit-large-patch14"


@dataclass(frozen=True, kw_only=True)
class KnownPicture:
    """A picture whose content is known: whether it is right for this prompt; `where` names it in a complaint."""

    where: str
    picture: Image.Image
    item: GenEvalItem
    correct: bool


@dataclass(frozen=True, kw_only=True)
class DetectorSuite:
    """A detector and a colour classifier; what a `slow` one sees is kept in a file while it judges.

    `names` are all classes it can see, None: not known. `known` are the pictures of its self-test, none for a
    recording; `check` is one more test of its own. `blind` says why it cannot judge a picture, where it cannot;
    `side`: of the only pictures that it can, in pixels.
    """

    detector: Detector
    colors: ColorClassifier
    names: frozenset[str] | None
    known: tuple[KnownPicture, ...] = ()
    check: Callable[[], None] | None = None
    blind: Callable[[Image.Image], str | None] | None = None
    side: int | None = None
    slow: bool = False

    def describe(self) -> dict[str, Any]:
        """What is written beside every score."""
        return {
            "detector": {"name": self.detector.name, "version": self.detector.version},
            "colors": {"name": self.colors.name, "version": self.colors.version},
            "rules": dict(LIMITS),
            "self_test": len(self.known),
        }


def self_test(suite: DetectorSuite) -> int:
    """Look at all pictures of known content; how many there were. Raises `CheckpointError` where one is read wrong."""
    pictures = {id(known.picture): known.picture for known in suite.known}
    seen = dict(zip(pictures, suite.detector.detect(list(pictures.values())), strict=True))
    wrong = []
    for known in suite.known:
        verdict = judge(known.item, known.picture, seen[id(known.picture)], suite.colors)
        if verdict.correct is not known.correct:
            wrong.append(f"{known.where}: {'; '.join(verdict.reasons) or f'taken for {known.item.prompt!r}'}")
    if wrong:
        raise CheckpointError(
            f"the detector {suite.detector.name} fails its self-test, so nothing was scored: {len(wrong)} of "
            f"{len(suite.known)} pictures of known content are read wrong, as {wrong[0]}; check its "
            "weights and settings"
        )
    if suite.check is not None:
        suite.check()
    return len(suite.known)


def suite_named(name: str, *, weights: str = WEIGHTS, clip: str = CLIP, device: str = "cpu") -> DetectorSuite:
    """The detectors of this name; the options are for mask2former.

    Raises `ConfigError` for an unknown name, `CheckpointError` where weights are not there or are those of something
    else, `RunError` where a recording cannot be read.
    """
    kind, _, rest = name.partition(":")
    if name == "icons":
        from twgi.evaluation.icons import icon_suite

        return icon_suite()
    if name == "mask2former":
        from twgi.evaluation.detectors.mask2former import mask2former_suite

        return mask2former_suite(weights=weights, clip=clip, device=device)
    if kind == "replay" and rest:
        from twgi.evaluation.detectors.recorded import replayed

        return replayed(Path(rest))
    raise ConfigError(f"unknown detector {name!r}; known are icons, mask2former, replay:FILE")
