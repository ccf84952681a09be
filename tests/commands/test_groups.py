"""Options in groups: shown one by one, given as one value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from twgi.commands.groups import BenchmarkOptions, DrawingOptions, ModelOptions, grouped
from twgi.commands.options import RUN, option
from twgi.errors import ConfigError
from twgi.thinking.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Pair:
    left: Annotated[int, option("The left one.", RUN)] = 1
    right: Annotated[str | None, option("The right one.", RUN)] = None


NONE = Pair()


@grouped
def command(name: Annotated[str, typer.Argument()], pair: Pair = NONE, last: int = 3) -> None:
    """Show what came."""
    print(name, pair, last)


def test_a_group_is_shown_as_its_options_and_given_as_one_value() -> None:
    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    assert runner.invoke(app, ["a"]).output == "a Pair(left=1, right=None) 3\n"
    assert runner.invoke(app, ["a", "--right", "b", "--left", "7", "--last", "4"]).output == (
        "a Pair(left=7, right='b') 4\n"
    )
    assert "--left" in runner.invoke(app, ["--help"]).output


def test_only_what_was_given_is_a_setting_and_every_option_is_one() -> None:
    plain = DrawingOptions().settings(mode="subgoal", rounds=1, compat="")
    assert plain == Settings(mode="subgoal")
    words: dict[str, Any] = {"guidance": "full", "negative_prompt": "rain"}
    numbers: dict[str, Any] = {field.name: 1 for field in fields(DrawingOptions) if field.name not in words}
    every = DrawingOptions(**words, **numbers).settings(mode="critique", rounds=2, compat="reference")
    assert (every.guidance, every.negative_prompt, every.rounds) == ("full", "rain", 2)
    assert every.scales == {"full": 1, "image": 1, "negative": 1, "prompt": 1}
    assert set(asdict(every.sampling).values()) == {1}
    assert Settings.from_json(json.loads(json.dumps(every.to_json()))) == every


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch must be 1 or more"):
        BenchmarkOptions(batch=0)
    with pytest.raises(ConfigError, match="ray must be 0 or more"):
        BenchmarkOptions(ray=-1)
    with pytest.raises(ConfigError, match="unknown quirk"):
        ModelOptions(compat="everything")


def test_published_limits_ask_for_more_positions_unless_told_how_many() -> None:
    assert ModelOptions().loading()["context"] is None
    assert ModelOptions(compat="reference").loading()["context"] == 6144
    assert ModelOptions(compat="reference", context=5000).loading()["context"] == 5000
