"""The image tokenizer is judged by what is left of known scenes."""

import pytest

from twgi import load
from twgi.errors import ConfigError
from twgi.evaluation.geneval.rules import TASKS
from twgi.evaluation.tokenizer import judge_tokenizer, table
from twgi.tokenizer.image import ImageTokenizer


@pytest.fixture(scope="module")
def images() -> ImageTokenizer:
    """The bundled one."""
    found = load("icons").tokenizer.image
    assert found is not None
    return found


def test_the_bundled_tokenizer_keeps_icon_scenes_right(images: ImageTokenizer) -> None:
    results = judge_tokenizer(images, scenes=12)
    assert [result.task for result in results] == list(TASKS)
    assert all(result.right == result.exact == 1.0 for result in results)
    assert "12 scenes" in table(results)


def test_a_tokenizer_that_loses_its_codes_is_found_out(images: ImageTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every code is replaced by the first: what is decoded is of one colour."""
    decode = ImageTokenizer.decode
    monkeypatch.setattr(ImageTokenizer, "decode", lambda self, codes: decode(self, [[r[0]] * len(r) for r in codes]))
    results = judge_tokenizer(images, scenes=6)
    assert [(result.right, result.exact) for result in results] == [(0.0, 0.0)] * 6


def test_there_is_a_scene_for_each_task(images: ImageTokenizer) -> None:
    with pytest.raises(ConfigError, match="scenes"):
        judge_tokenizer(images, scenes=5)
