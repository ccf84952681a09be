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

    Raises `ConfigError`: something is unknown, out of its range, or contradicts another thing.
    """

    mode: str = "direct"  # an entry of `MODES`
    rounds: int = 1  # how often the model looks at its picture and draws again, in a mode that has rounds
    sampling: SamplingParams = field(default_factory=SamplingParams)  # with the limits of the thought
    guidance: str | GuidancePlan | None = None  # a preset, a scheme, or a plan
    scales: Mapping[str, float] = field(default_factory=dict)  # where they differ from the plan's
    negative_prompt: str = NEGATIVE_PROMPT  # for guidance with a negative branch
    compat: frozenset[Quirk] | str = frozenset()  # quirks of the published code to keep; a text: see `parse_compat`

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

        `defaults` are what the checkpoint is best used with (guidance, and fields of `SamplingParams`); `generation` is
        its `generation_config.json`, which the published code samples by.
        """
        plan = self.guidance
        if plan is None:
            plan = "reference" if self.quirks & OF_GUIDANCE else str(defaults.get("guidance", "paper"))
        plan = plan_named(plan) if isinstance(plan, str) else plan
        if self.quirks:
            plan = replace(plan, quirks=tuple(sorted(self.quirks & OF_GUIDANCE)))
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

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, whole."""
        value = asdict(self) | {"compat": sorted(self.compat)}
        if isinstance(self.guidance, GuidancePlan):
            value["guidance"]["quirks"] = list(self.guidance.quirks)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Settings:
        """Read `to_json` back. Raises `ConfigError` for what it would not have written."""
        try:
            keys = dict(value)
            sampling, guidance, compat = keys.pop("sampling"), keys.pop("guidance"), keys.pop("compat")
            if isinstance(guidance, Mapping):
                scales = {str(kind): Scales(**entry) for kind, entry in guidance["scales"].items()}
                quirks = tuple(Quirk(name) for name in guidance["quirks"])
                guidance = GuidancePlan(name=guidance["name"], scales=scales, quirks=quirks)
            return cls(sampling=SamplingParams.of(sampling), guidance=guidance, compat=",".join(compat), **keys)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"these are no settings: {type(error).__name__} {error}") from None

    @classmethod
    def of_trace(cls, trace: Trace) -> Settings:
        """Those that a stored thought was thought with. Raises `ConfigError` where it does not say them all."""
        return cls.from_json({key: value for key, value in trace.settings.items() if key not in OF_ONE_THOUGHT})
