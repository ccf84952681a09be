"""GenEval's detector, Mask2Former with a Swin-S backbone, through transformers alone (extra `eval`).

The published scorer runs mmdet 2.x. What differs between the two is what surrounds the network, so that is written
here as mmdet has it: the input size, the padding, and how masks and classes become detections. The weights that Meta
publishes for transformers come from a training run of their own; scores are near those of mmdet's, not equal to them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from twgi.errors import CheckpointError, ConfigError
from twgi.evaluation.detectors.clip_colors import first_line, flat_colors, load_clip, weights_hash
from twgi.evaluation.detectors.suite import DetectorSuite, KnownPicture
from twgi.evaluation.geneval.rules import Detection, GenEvalItem
from twgi.icons.world import NAMES  # GenEval's 80, in COCO's order

SHORTEST, LONGEST, DIVISOR = 800, 1333, 32  # pixels of the input: edges, and what padding makes it divisible by
TOP = 100  # detections of a picture
_OTHER_NAMES = {
    "mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard",  # renamed by GenEval
    "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant",
    "diningtable": "dining table", "tvmonitor": "tv",  # older spellings of COCO's names
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The detections of a picture, best first: labels N, scores N, masks NHW (truths), boxes N4 (far edge excluded)."""

    labels: Tensor
    scores: Tensor
    masks: Tensor
    boxes: Tensor


def instances(
    class_logits_QK: Tensor, mask_logits_Qhw: Tensor, *, padded: tuple[int, int], resized: tuple[int, int],
    original: tuple[int, int], top: int = TOP,
) -> Instances:  # fmt: skip
    """What mmdet 2.x makes of one picture's queries; sizes are (height, width).

    Mask logits are brought to the padded input's size, cropped to the input without its padding, and brought to the
    picture's own size. The `top` pairs of query and class are taken, so one query may be two things. The last class
    is "nothing". A mask is where its logit is positive; a score is the class's probability times the mean probability
    of the mask inside itself.
    """
    scores_QC = class_logits_QK.softmax(-1)[:, :-1]
    scores_N, index_N = scores_QC.flatten().topk(min(top, scores_QC.numel()))
    query_N, label_N = index_N // scores_QC.shape[1], index_N % scores_QC.shape[1]
    as_input = F.interpolate(mask_logits_Qhw[query_N][:, None], size=padded, mode="bilinear", align_corners=False)
    cropped = as_input[:, :, : resized[0], : resized[1]]
    masks_NHW = F.interpolate(cropped, size=original, mode="bilinear", align_corners=False)[:, 0]
    inside_NHW = masks_NHW > 0
    area_N = inside_NHW.flatten(1).sum(1)
    certainty_N = (masks_NHW.sigmoid() * inside_NHW).flatten(1).sum(1) / (area_N + 1e-6)
    total_N = scores_N * certainty_N
    order = total_N.argsort(descending=True, stable=True)
    boxes_N4 = torch.stack([_box(mask_HW) for mask_HW in inside_NHW])
    return Instances(labels=label_N[order], scores=total_N[order], masks=inside_NHW[order], boxes=boxes_N4[order])


def _box(mask_HW: Tensor) -> Tensor:
    """The tight box of a mask; nothing at all where it is empty."""
    xs, ys = mask_HW.any(0).nonzero()[:, 0], mask_HW.any(1).nonzero()[:, 0]
    if not len(xs):
        return torch.zeros(4, device=mask_HW.device)
    return torch.stack([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]).float()


class Mask2FormerDetector:
    """Mask2Former as GenEval runs it: a `Mask2FormerForUniversalSegmentation` of COCO's classes, on its device.

    `version` is written beside scores; `edges` are the shortest and longest edge of the input, in pixels. Raises
    `CheckpointError` where the classes are not COCO's 80 in their order.
    """

    name = "mask2former"

    def __init__(self, model: Any, *, version: str, edges: tuple[int, int] = (SHORTEST, LONGEST)) -> None:
        from transformers import Mask2FormerImageProcessorPil

        check_labels(model.config.id2label)
        self.model, self.version = model, version
        size = {"shortest_edge": edges[0], "longest_edge": edges[1]}
        self.processor = Mask2FormerImageProcessorPil(size=size, size_divisor=0, do_pad=False)

    def detect(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        """One picture at a time, so that none depends on its neighbours."""
        return [list(self._detect(picture.convert("RGB"))) for picture in pictures]

    @torch.inference_mode()
    def _detect(self, picture: Image.Image) -> Iterator[Detection]:
        pixels_1CHW = self.processor(picture, return_tensors="pt")["pixel_values"].to(self.model.device)
        resized = (pixels_1CHW.shape[2], pixels_1CHW.shape[3])
        padded_1CHW = F.pad(pixels_1CHW, (0, -resized[1] % DIVISOR, 0, -resized[0] % DIVISOR))
        out = self.model(pixel_values=padded_1CHW)
        padded = (padded_1CHW.shape[2], padded_1CHW.shape[3])
        seen = instances(
            out.class_queries_logits[0], out.masks_queries_logits[0], padded=padded, resized=resized,
            original=(picture.height, picture.width),
        )  # fmt: skip
        boxes, masks = seen.boxes.cpu().tolist(), seen.masks.cpu().numpy()
        for label, score, box, mask in zip(seen.labels.tolist(), seen.scores.tolist(), boxes, masks, strict=True):
            yield Detection(name=NAMES[label], box=tuple(box), score=score, mask=mask)


def check_labels(labels: dict[int, str]) -> None:
    """Raises `CheckpointError` where a model's classes are not COCO's, in their order; names are taken by index."""
    names = [str(labels.get(index, "?")).lower() for index in range(len(labels))]
    ours = [_OTHER_NAMES.get(name, name) for name in names]
    wrong = [i for i, (a, b) in enumerate(zip(ours, NAMES, strict=False)) if a != b]
    if len(names) != len(NAMES) or wrong:
        where = f", and class {wrong[0]} is {names[wrong[0]]!r}, not {NAMES[wrong[0]]!r}" if wrong else ""
        raise CheckpointError(
            f"the detector must know COCO's {len(NAMES)} classes in their order; it has {len(names)}{where}"
        )


def mask2former_suite(*, weights: str, clip: str, device: str = "cpu") -> DetectorSuite:
    """GenEval's detector and colour classifier, from folders or the hub's cache. Raises `CheckpointError`."""
    try:
        from transformers import Mask2FormerForUniversalSegmentation
    except ImportError as error:
        raise ConfigError(f"mask2former needs the extra eval: pip install 'twgi[eval]' ({error})") from None
    try:
        model = Mask2FormerForUniversalSegmentation.from_pretrained(weights, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot load the detector {weights!r} ({first_line(error)}); "
            f"fetch it once with: hf download {weights}; or give its folder as --weights"
        ) from None
    detector = Mask2FormerDetector(model.eval().to(device), version=weights_hash(model)[:16])
    colors = load_clip(clip, device=device)
    return DetectorSuite(
        detector=detector, colors=colors, names=frozenset(NAMES), known=tuple(_known()),
        check=lambda: flat_colors(colors), slow=True,
    )  # fmt: skip


def _known() -> Iterator[KnownPicture]:
    """Three photographs, each with what is in it and something that is not."""
    folder = files("twgi.evaluation.detectors") / "known"
    for here, not_here in (("cat", "dog"), ("cup", "bicycle"), ("person", "pizza")):
        with (folder / f"{here}.jpg").open("rb") as file:
            picture = Image.open(file).convert("RGB")
        for name, correct in ((here, True), (not_here, False)):
            record = {"tag": "self_test", "prompt": f"a {name}", "include": [{"class": name, "count": 1}]}
            item = GenEvalItem.from_json(record, 0)
            yield KnownPicture(where=f"{here}.jpg", picture=picture, item=item, correct=correct)
