"""Mask2Former and CLIP as GenEval runs them: real architectures and processors, random weights, hand computations."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluation.detectors.tiny import clip_parts, mask2former, save_models

from twgi.errors import CheckpointError
from twgi.evaluation.detectors.clip_colors import ClipColors, cut_out
from twgi.evaluation.detectors.mask2former import Instances, Mask2FormerDetector, check_labels, instances
from twgi.evaluation.detectors.suite import self_test, suite_named
from twgi.evaluation.geneval.rules import COLORS, Detection
from twgi.icons.world import NAMES

pytest.importorskip("transformers")


def bilinear(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel centres, edges repeated: one output pixel at a time."""
    out = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            v = max((y + 0.5) * grid.shape[0] / height - 0.5, 0)
            u = max((x + 0.5) * grid.shape[1] / width - 0.5, 0)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, grid.shape[0] - 1), min(x0 + 1, grid.shape[1] - 1)
            top = grid[y0, x0] * (1 - u + x0) + grid[y0, x1] * (u - x0)
            low = grid[y1, x0] * (1 - u + x0) + grid[y1, x1] * (u - x0)
            out[y, x] = top * (1 - v + y0) + low * (v - y0)
    return out


def by_hand(classes: Any, masks: Any, *, padded: Any, resized: Any, original: Any, top: int) -> list[Any]:
    """(score, label, box, mask) of the best pairs of query and class, a pixel and a class at a time."""
    pairs = []
    for query, logits in enumerate(classes):
        total = sum(math.exp(value) for value in logits)
        pairs += [(math.exp(value) / total, query, label) for label, value in enumerate(logits[:-1])]
    found = []
    for probability, query, label in sorted(pairs, reverse=True)[:top]:
        logits = bilinear(bilinear(masks[query], *padded)[: resized[0], : resized[1]], *original)
        inside = [(y, x) for y in range(original[0]) for x in range(original[1]) if logits[y, x] > 0]
        sure = sum(1 / (1 + math.exp(-logits[y, x])) for y, x in inside) / (len(inside) + 1e-6)
        ys, xs = [y for y, _ in inside], [x for _, x in inside]
        box = (min(xs), min(ys), max(xs) + 1, max(ys) + 1) if inside else (0, 0, 0, 0)
        found.append((probability * sure, label, box, frozenset(inside)))
    return sorted(found, key=lambda thing: -thing[0])


SIZES: dict[str, tuple[int, int]] = {"padded": (32, 64), "resized": (30, 45), "original": (20, 30)}


def random_queries(queries: int = 5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(queries, classes + 1, generator=generator) * 2
    masks = torch.randn(queries, 8, 16, generator=generator) * 3
    masks[0] = -1.0  # nothing is inside
    return logits, masks


def test_instances_equal_a_computation_by_hand() -> None:
    classes, masks = random_queries()
    seen = instances(classes, masks, **SIZES, top=12)
    expected = by_hand(classes.double().numpy(), masks.double().numpy(), **SIZES, top=12)
    np.testing.assert_allclose(seen.scores, [thing[0] for thing in expected], atol=1e-5)
    assert seen.labels.tolist() == [thing[1] for thing in expected]
    assert seen.boxes.tolist() == [list(map(float, thing[2])) for thing in expected]
    assert [frozenset(map(tuple, mask.nonzero().tolist())) for mask in seen.masks] == [t[3] for t in expected]


def test_one_query_may_be_two_things_and_nothing_is_none() -> None:
    classes = torch.tensor([[4.0, 3.9, -9.0, 0.0]])
    seen: Instances = instances(classes, 9 * torch.ones(1, 4, 4), padded=(16, 16), resized=(16, 16), original=(8, 8))
    assert seen.labels.tolist() == [0, 1, 2]
    assert seen.scores[1] > 0.4 > seen.scores[2]


def test_an_empty_mask_scores_nothing_and_has_no_box() -> None:
    seen = instances(torch.tensor([[5.0, 0.0]]), -torch.ones(1, 4, 4), padded=(8, 8), resized=(8, 8), original=(8, 8))
    assert seen.scores.tolist() == [0.0]
    assert seen.boxes.tolist() == [[0, 0, 0, 0]]


def picture(width: int = 90, height: int = 60) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_detector_sees_at_the_size_it_is_told_and_answers_in_the_picture_s() -> None:
    sizes = []
    model = mask2former()
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["pixel_values"].shape), with_kwargs=True
    )
    found = Mask2FormerDetector(model, version="0", edges=(64, 128)).detect([picture()])[0]
    hook.remove()
    assert sizes == [(1, 3, 64, 96)]
    assert len(found) == 100
    assert all(thing.mask is not None and thing.mask.shape == (60, 90) for thing in found)
    assert all(0 <= thing.score <= 1 and thing.name in NAMES for thing in found)
    assert [thing.score for thing in found] == sorted((thing.score for thing in found), reverse=True)


def test_a_picture_of_another_shape_is_padded_not_stretched() -> None:
    from transformers import Mask2FormerImageProcessorPil

    given = []
    model = mask2former()
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["pixel_values"]), with_kwargs=True
    )
    Mask2FormerDetector(model, version="0", edges=(64, 128)).detect([picture(100, 60)])
    hook.remove()
    size = {"shortest_edge": 64, "longest_edge": 128}
    plain = Mask2FormerImageProcessorPil(size=size, size_divisor=0, do_pad=False)(
        picture(100, 60), return_tensors="pt"
    )["pixel_values"]
    assert tuple(plain.shape) == (1, 3, 64, 106)
    assert tuple(given[0].shape) == (1, 3, 64, 128)
    assert torch.equal(given[0][..., :106], plain)
    assert not given[0][..., 106:].any()


def test_a_detection_does_not_depend_on_its_neighbours() -> None:
    detector = Mask2FormerDetector(mask2former(), version="0", edges=(64, 128))
    alone = detector.detect([picture()])[0]
    assert detector.detect([picture(64, 64), picture()])[1] == alone


@pytest.mark.parametrize(
    "labels",
    [dict(enumerate(NAMES[:79])), dict(enumerate((*NAMES[1:], NAMES[0]))), {i: f"LABEL_{i}" for i in range(80)}],
    ids=["too few", "shifted", "nameless"],
)
def test_labels_of_another_order_are_refused(labels: dict[int, str]) -> None:
    with pytest.raises(CheckpointError, match="COCO"):
        check_labels(labels)


def test_cocos_own_names_are_taken_by_index() -> None:
    coco = {"computer mouse": "mouse", "tv remote": "remote", "computer keyboard": "keyboard"}
    check_labels({index: coco.get(name, name) for index, name in enumerate(NAMES)})


def thing(box: tuple[float, float, float, float], mask: Any = None) -> Detection:
    return Detection(name="cat", box=box, score=1.0, mask=mask)


def test_a_thing_is_cut_out_upon_grey_inside_its_box() -> None:
    red = Image.new("RGB", (4, 4), "red")
    mask = np.zeros((4, 4), bool)
    mask[1, 1:3] = True
    crop = cut_out(red, thing((1, 1, 3, 3), mask))
    assert crop is not None
    assert np.asarray(crop).tolist() == [[[255, 0, 0]] * 2, [[153, 153, 153]] * 2]
    assert cut_out(red, thing((2, 2, 2, 2))) is None


def test_colours_are_the_likeliest_of_normalised_mean_sentences() -> None:
    model, _ = clip_parts()
    colors = ClipColors(model, tokenizer(), version="0")
    crop = picture(40, 30)
    with torch.no_grad():
        pixels = colors.processor([crop], return_tensors="pt")["pixel_values"]
        image = model.get_image_features(pixel_values=pixels).pooler_output[0].double()
        scores = []
        for color in COLORS:
            said = [f"a photo of a {color} cat", f"a photo of a {color}-colored cat", f"a photo of a {color} object"]
            vectors = [model.get_text_features(**tokenizer()(t, return_tensors="pt")).pooler_output[0] for t in said]
            mean = sum(vector.double() / vector.double().norm() for vector in vectors)
            scores.append(float(image @ mean / mean.norm()))
    best = COLORS[int(np.argmax(scores))]
    assert colors.classify(crop, [thing((0, 0, 40, 30)), thing((5, 5, 5, 5))]) == [best, ""]


def tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=clip_parts()[1], merges=[])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_models(tmp_path_factory.mktemp("models"))


def test_weights_load_from_folders_and_random_ones_fail_the_self_test(
    folders: tuple[Path, Path],
) -> None:
    eyes = suite_named("mask2former", weights=str(folders[0]), clip=str(folders[1]))
    assert eyes.names == frozenset(NAMES)
    assert len(eyes.known) == 6
    assert eyes.slow
    assert len(eyes.detector.version) == len(eyes.colors.version) == 16
    with pytest.raises(CheckpointError, match="self-test"):
        self_test(eyes)


def test_weights_that_are_not_there_say_how_to_get_them(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    with pytest.raises(CheckpointError, match="hf download"):
        suite_named("mask2former", weights=str(tmp_path / "none"), clip=str(folders[1]))
    with pytest.raises(CheckpointError, match="hf download"):
        suite_named("mask2former", weights=str(folders[0]), clip=str(tmp_path / "none"))
