"""SamplingParams: how tokens are drawn and where a thought must end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from twgi.errors import ConfigError
from twgi.files import short


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What is done to the logits before a draw: temperature, then top-k, then top-p. Temperature 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: off

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature must be 0 (greedy) or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be in (0, 1], got {self.top_p}")
        if not float(self.top_k).is_integer() or self.top_k < 0:
            raise ConfigError(f"top_k must be 0 (off) or a positive whole number, got {self.top_k}")


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Sampling of text and of images, and the limits of one thought.

    What is None is not said: it is the checkpoint's own, and where that says nothing the value of `PUBLISHED`.
    `max_tokens` counts every token after the prompt (boi, eoi and eos too); not said, it is all the context has room
    for. `max_images` counts drawn pictures; not said, it is the mode's.
    """

    text_temperature: float | None = None
    text_top_p: float | None = None
    text_top_k: int | None = None
    image_temperature: float | None = None
    image_top_p: float | None = None
    image_top_k: int | None = None
    max_tokens: int | None = None
    max_images: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():  # they may come from a file
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and not 10**9 < abs(value) < math.inf):
                raise ConfigError(f"{name} must be a number, got {short(value)}")
        _ = self.text, self.image  # each checks itself
        for name in ("max_tokens", "max_images"):
            value = getattr(self, name)
            if value is not None and (not float(value).is_integer() or value < 1):
                raise ConfigError(f"{name} must be a positive whole number, got {value}")

    @property
    def text(self) -> Filter:
        """What is done to logits while writing."""
        return self._filter("text")

    @property
    def image(self) -> Filter:
        """What is done to logits while drawing."""
        return self._filter("image")

    def _filter(self, what: str) -> Filter:
        said = {field.name: getattr(self, f"{what}_{field.name}") for field in fields(Filter)}
        return Filter(
            **{name: _PUBLISHED[f"{what}_{name}"] if value is None else value for name, value in said.items()}
        )

    def over(self, base: SamplingParams) -> SamplingParams:
        """What is not said here, as it is said there."""
        return replace(base, **{name: value for name, value in asdict(self).items() if value is not None})

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> SamplingParams:
        """From names and values; ConfigError names an unknown one."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(said) - set(known))
        if unknown:
            raise ConfigError(f"unknown sampling setting {unknown[0]!r}; known are {', '.join(known)}")
        return cls(**said)


_PUBLISHED: dict[str, Any] = {
    "text_temperature": 1.0, "text_top_p": 0.9, "text_top_k": 0,
    "image_temperature": 1.0, "image_top_p": 1.0, "image_top_k": 0,
}  # fmt: skip
PUBLISHED = SamplingParams(**_PUBLISHED)
"""Sampling of the published inference."""
