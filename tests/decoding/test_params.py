"""Sampling settings check themselves."""

from typing import Any

import pytest

from twgi.decoding.params import PUBLISHED, Filter, SamplingParams
from twgi.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"text_temperature": -0.1}, r"temperature must be 0 \(greedy\) or more, got -0.1"),
        ({"image_temperature": float("nan")}, "temperature must be 0"),
        ({"image_top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"text_top_p": 1.1}, "top_p must be in"),
        ({"text_top_k": -1}, "top_k must be 0"),
        ({"max_tokens": 0}, "max_tokens must be a positive whole number, got 0"),
        ({"max_images": -1}, "max_images must be a positive whole number, got -1"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SamplingParams(**settings)


def test_text_and_images_are_filtered_apart() -> None:
    params = SamplingParams(text_top_p=0.5, image_top_k=7)
    assert (params.text.top_p, params.text.top_k) == (0.5, 0)
    assert (params.image.top_p, params.image.top_k) == (1.0, 7)


def test_what_is_not_said_is_taken_from_elsewhere_field_by_field() -> None:
    said = SamplingParams(text_temperature=0.7).over(SamplingParams(text_temperature=0.2, image_temperature=0.3))
    assert (said.text_temperature, said.image_temperature, said.text_top_p) == (0.7, 0.3, None)
    assert said.over(PUBLISHED).text == Filter(temperature=0.7, top_p=0.9)
    assert SamplingParams(image_top_k=5).image == Filter(top_k=5)
    assert SamplingParams.of({"max_tokens": 5}).max_tokens == 5
    with pytest.raises(ConfigError, match="unknown sampling setting 'temp'; known are text_temperature"):
        SamplingParams.of({"temp": 1})
