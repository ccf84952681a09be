"""How to think: one value, from the command line through run, trace and evaluation, and back from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from twgi.decoding.compat import OF_GUIDANCE, Quirk, parse_compat
from twgi.decoding.guidance import GuidancePlan, Scales, plan_named
from twgi.decoding.params import PUBLISHED, SamplingParams
from twgi.errors import ConfigError
from twgi.thinking import published
from twgi.thinking.modes import NEGATIVE_PROMPT, images_allowed, mode_named
from twgi.trace import Trace

OF_ONE_THOUGHT = ("limits", "pictures")  # stand in a trace beside its settings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to think. What is left out is the checkpoint's own, see `resolved`.

    Args:
        mode: an entry of `MODES`.
        rounds: how often the model looks at its picture and draws again, in a mode that has rounds.
        sampling: how tokens are drawn, and the limits of the thought.
        guidance: a preset, a scheme, or a plan.
        scales: guidance scales that differ from the plan's: full, image, negative, prompt.
        negative_prompt: for guidance with a negative branch.
        compat: quirks of the published code to keep; a text is read by `parse_compat`.

    Raises:
        ConfigError: something is unknown, out of its range, or contradicts another thing.
    """

    mode: str = "direct"
    rounds: int = 1
    sampling: SamplingParams = field(default_factory=SamplingParams)
    guidance: str | GuidancePlan | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    negative_prompt: str = NEGATIVE_PROMPT
    compat: frozenset[Quirk] | str = frozenset()

    def __post_init__(self) -> None:
        images_allowed(mode_named(self.mode), self.rounds)
        if isinstance(self.compat, str):
            object.__setattr__(self, "compat", parse_compat(self.compat))
        if isinstance(self.guidance, str):
            plan_named(self.guidance)

    @property
    def quirks(self) -> frozenset[Quirk]:
        return frozenset(Quirk(name) for name in self.compat)

    @property
    def plan(self) -> GuidancePlan:
        """The guidance of resolved settings."""
        assert isinstance(self.guidance, GuidancePlan), "settings that are not resolved have no plan"
        return self.guidance

    def resolved(self, defaults: Mapping[str, Any], generation: Mapping[str, Any]) -> Settings:
        """These settings with nothing left open. Resolving them again changes nothing.

        Args:
            defaults: what the checkpoint is best used with: guidance, and fields of `SamplingParams`.
            generation: the checkpoint's `generation_config.json`, which the published code samples by.
        """
        plan = self._plan(str(defaults.get("guidance", "paper")))
        own = SamplingParams.of({key: value for key, value in defaults.items() if key != "guidance"})
        if Quirk.PUBLISHED_SAMPLING in self.quirks:
            own = published.sampling(generation)
        return replace(
            self,
            sampling=self.sampling.over(own.over(PUBLISHED)),
            guidance=plan.only(mode_named(self.mode).kinds).with_scales(**self.scales),
            scales={},
            compat=self.quirks | frozenset(plan.quirks),
        )

    def _plan(self, usual: str) -> GuidancePlan:
        guidance = self.guidance
        if guidance is None:
            guidance = "reference" if self.quirks & OF_GUIDANCE else usual
        plan = guidance if isinstance(guidance, GuidancePlan) else plan_named(guidance)
        return replace(plan, quirks=tuple(sorted(self.quirks & OF_GUIDANCE))) if self.quirks else plan

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, whole."""
        guidance: Any = self.guidance
        if isinstance(guidance, GuidancePlan):
            scales = {kind: asdict(entry) for kind, entry in guidance.scales.items()}
            guidance = {"name": guidance.name, "scales": scales, "quirks": list(guidance.quirks)}
        return {
            "mode": self.mode,
            "rounds": self.rounds,
            "sampling": asdict(self.sampling),
            "guidance": guidance,
            "scales": dict(self.scales),
            "negative_prompt": self.negative_prompt,
            "compat": sorted(self.compat),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Settings:
        """Read `to_json` back. Raises `ConfigError` for what it would not have written."""
        try:
            keys = dict(value)
            guidance = keys.pop("guidance")
            if isinstance(guidance, Mapping):
                guidance = _plan_of(guidance)
            sampling, compat = SamplingParams.of(keys.pop("sampling")), ",".join(keys.pop("compat"))
            return cls(sampling=sampling, guidance=guidance, compat=compat, **keys)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"these are no settings: {type(error).__name__} {error}") from None

    @classmethod
    def of_trace(cls, trace: Trace) -> Settings:
        """Those that a stored thought was thought with. Raises `ConfigError` where it does not say them all."""
        return cls.from_json({key: value for key, value in trace.settings.items() if key not in OF_ONE_THOUGHT})


def _plan_of(value: Mapping[str, Any]) -> GuidancePlan:
    scales = {str(kind): Scales(**entry) for kind, entry in value["scales"].items()}
    return GuidancePlan(name=value["name"], scales=scales, quirks=tuple(Quirk(name) for name in value["quirks"]))
