"""SamplingParams: how tokens are drawn and where a thought must end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from twgi.errors import ConfigError


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
        if self.top_k != int(self.top_k) or self.top_k < 0:
            raise ConfigError(f"top_k must be 0 (off) or a positive whole number, got {self.top_k}")


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Sampling of text and of images, and the limits of one thought.

    ``max_tokens`` counts every token after the prompt (boi, eoi and eos too); None is all the context has room for.
    ``max_images`` counts drawn pictures; None leaves it to the mode. The defaults are those of the published inference.
    """

    text_temperature: float = 1.0
    text_top_p: float = 0.9
    text_top_k: int = 0
    image_temperature: float = 1.0
    image_top_p: float = 1.0
    image_top_k: int = 0
    max_tokens: int | None = None
    max_images: int | None = None

    def __post_init__(self) -> None:
        _ = self.text, self.image  # each checks itself
        for name in ("max_tokens", "max_images"):
            value = getattr(self, name)
            if value is not None and (value != int(value) or value < 1):
                raise ConfigError(f"{name} must be a positive whole number, got {value}")

    @property
    def text(self) -> Filter:
        """What is done to logits while writing."""
        return Filter(temperature=self.text_temperature, top_p=self.text_top_p, top_k=self.text_top_k)

    @property
    def image(self) -> Filter:
        """What is done to logits while drawing."""
        return Filter(temperature=self.image_temperature, top_p=self.image_top_p, top_k=self.image_top_k)

    def updated(self, changes: Mapping[str, Any]) -> SamplingParams:
        """These settings with some replaced; ConfigError names an unknown one."""
        unknown = sorted(set(changes) - {field.name for field in fields(self)})
        if unknown:
            raise ConfigError(f"unknown sampling setting {unknown[0]!r}; known are {', '.join(asdict(self))}")
        return replace(self, **changes)
