"""What `twgi data build` reads: who makes the chains, of what, and which are kept. Explained in docs/data_build.md."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from twgi.client import EndpointOptions
from twgi.errors import ConfigError
from twgi.icons.tasks import TASKS
from twgi.thinking.modes import MODES

STEPS: Mapping[str, tuple[str, ...]] = {  # mode -> the roles that work on a chain of it, in order
    "subgoal": ("decomposer", "painter", "editor", "writer", "judge"),
    "critique": ("drafter", "critic", "editor", "judge"),
}
ROLES = tuple(dict.fromkeys(("prompts", *STEPS["subgoal"], *STEPS["critique"])))
BEST = 10  # of the judge's scores
_OPERATION = ("key_variable", "concurrency", "attempts", "timeout", "price")  # may change while a build goes on


@dataclass(frozen=True, kw_only=True)
class Price:
    """What an endpoint costs, in any one currency: per million tokens in and out, per picture it makes."""

    input: float = 0.0
    output: float = 0.0
    picture: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= price < math.inf for price in (self.input, self.output, self.picture)):
            raise ConfigError("a price must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class TeacherEndpoint(EndpointOptions):
    """A model behind an endpoint."""

    pictures: str = "images"  # where it draws: images (/images/...) or chat (/chat/completions with pictures)
    price: Price = field(default_factory=Price)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pictures not in ("images", "chat"):
            raise ConfigError(f"pictures must be images or chat, got {self.pictures!r}")


@dataclass(frozen=True, kw_only=True)
class PromptSource:
    """Where prompts come from, and the rules they must pass."""

    file: str = ""  # JSON lines with a `prompt`; without it the role `prompts` writes them
    themes: tuple[str, ...] = ("two things of different colours", "things beside, above or below each other")  # in turn
    batch: int = 20  # how many are asked for at a time
    max_words: int = 60  # a longer one is dropped

    def __post_init__(self) -> None:
        if self.batch < 1 or self.max_words < 1 or not self.themes:
            raise ConfigError("batch and max_words must be 1 or more, and there must be a theme")


@dataclass(frozen=True, kw_only=True)
class IconScenes:
    """What the icon world draws: its seed, and its tasks, in turn."""

    seed: int = 0
    tasks: tuple[str, ...] = tuple(TASKS)

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks or self.seed < 0:
            raise ConfigError(f"icons: seed must be 0 or more, tasks among {', '.join(TASKS)}; got {unknown}")


@dataclass(frozen=True, kw_only=True)
class BuildRecipe:
    """A build of chains. `prompts`, `endpoints` and `roles` are for the teacher `endpoints`, `icons` for the other."""

    teacher: str  # endpoints, or icons
    modes: tuple[str, ...] = tuple(STEPS)  # which chains are made, each about every prompt
    count: int = 100  # prompts, or scenes
    workers: int = 8  # chains in the making at a time
    prompts: PromptSource = field(default_factory=PromptSource)
    endpoints: dict[str, TeacherEndpoint] = field(default_factory=dict)
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)  # endpoints of each, which take turns
    max_parts: int = 4  # of a subgoal chain; a prompt of fewer than two is dropped
    keep_from: float = 7.0  # the judge's score (0 to 10) from which on a chain is kept
    learn_draft: bool = False  # whether the flawed first picture of a critique chain is learnt too
    icons: IconScenes = field(default_factory=IconScenes)

    def __post_init__(self) -> None:
        if self.teacher not in ("endpoints", "icons"):
            raise ConfigError(f"teacher must be endpoints or icons, got {self.teacher!r}")
        if self.count < 1 or self.workers < 1 or self.max_parts < 2 or not 0 <= self.keep_from <= BEST:
            raise ConfigError(f"count, workers >= 1, max_parts >= 2, keep_from from 0 to {BEST} are needed")
        able = STEPS if self.teacher == "endpoints" else MODES
        unable = [mode for mode in self.modes if mode not in able]
        if unable or not self.modes or len(set(self.modes)) < len(self.modes):
            raise ConfigError(f"modes must be some of {', '.join(able)}, each once, got {', '.join(self.modes)}")
        if self.teacher == "endpoints":
            self._check_roles()
        elif self.endpoints or self.roles:
            raise ConfigError("the teacher icons asks nobody: leave out endpoints and roles")

    def needed_roles(self) -> tuple[str, ...]:
        """Who is asked in a build like this."""
        asked = () if self.prompts.file else ("prompts",)
        return tuple(dict.fromkeys((*asked, *(role for mode in self.modes for role in STEPS[mode]))))

    def _check_roles(self) -> None:
        for role, names in self.roles.items():
            if role not in ROLES:
                raise ConfigError(f"unknown role {role!r}; known are {', '.join(ROLES)}")
            if not isinstance(names, tuple) or not names:
                raise ConfigError(f"roles.{role} must be a list of names of endpoints")
            if missing := [name for name in names if name not in self.endpoints]:
                raise ConfigError(f"roles.{role}: no endpoint is called {missing[0]!r}")
        if lacking := [role for role in self.needed_roles() if role not in self.roles]:
            raise ConfigError(f"nobody has the role {', '.join(lacking)}: name an endpoint for it under roles")

    def check_keys(self) -> None:
        """Raises `ConfigError` where a key that is wanted is not there. The variable may be the key: not repeated."""
        for name, endpoint in self.endpoints.items():
            if endpoint.key_variable and not os.environ.get(endpoint.key_variable):
                raise ConfigError(f"endpoints.{name}.key_variable names an environment variable that is not set")

    def identity(self) -> dict[str, Any]:
        """What may not change while a build goes on."""
        settings = asdict(self)
        del settings["workers"]
        for endpoint in settings["endpoints"].values():
            for key in _OPERATION:
                del endpoint[key]
        return settings
