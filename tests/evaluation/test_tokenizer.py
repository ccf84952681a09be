"""The image tokenizer is judged by what is left of known scenes."""

from typing import cast

import pytest
from PIL import Image

from twgi.errors import ConfigError
from twgi.evaluation.geneval import TASKS
from twgi.evaluation.tokenizer import judge_tokenizer, table
from twgi.icons import world
from twgi.tokenizer.image import ImageTokenizer


class Loses:
    """An image tokenizer that keeps everything, but for the columns from `edge` on."""

    def __init__(self, edge: int) -> None:
        self.edge = edge

    def encode(self, pictures: list[Image.Image]) -> list[Image.Image]:
        return pictures

    def decode(self, pictures: list[Image.Image]) -> list[Image.Image]:
        ground = Image.new("RGB", (64, 64), world.GROUND)
        kept = [picture.copy() for picture in pictures]
        for picture in kept:
            picture.paste(ground, (self.edge, 0))
        return kept


def shares(edge: int) -> dict[str, tuple[float, float]]:
    results = judge_tokenizer(cast(ImageTokenizer, Loses(edge)), scenes=90)
    assert "90 scenes" in table(results)
    return {result.task: (result.right, result.exact) for result in results}


def test_a_tokenizer_that_keeps_all_is_right_in_every_task() -> None:
    assert shares(64) == dict.fromkeys(TASKS, (1.0, 1.0))


def test_a_tokenizer_that_keeps_nothing_is_right_in_none() -> None:
    assert shares(0) == dict.fromkeys(TASKS, (0.0, 0.0))


def test_half_a_picture_keeps_some_single_things_and_no_pair_side_by_side() -> None:
    half = shares(32)
    assert 0.2 < half["single_object"][0] < 0.8
    assert half["color_attr"][0] < 0.4


def test_there_is_a_scene_for_each_task() -> None:
    with pytest.raises(ConfigError, match="scenes"):
        judge_tokenizer(cast(ImageTokenizer, Loses(0)), scenes=5)
