"""Laws of recipes."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from twgi.errors import ConfigError
from twgi.recipe import load_recipe
from twgi.training.lm import LMRecipe
from twgi.training.vq import VQRecipe

RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 1
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    lr: float = 0.1
    inner: Inner = field(default_factory=Inner)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "name: a\nlr: 1e-3\ninner:\n  size: 2\n  shape: [1, 2]\n")
    assert load_recipe(Outer, path) == Outer(name="a", lr=1e-3, inner=Inner(size=2, shape=(1, 2)))
    assert load_recipe(Outer, path, ["inner.size=5", "lr=2"]) == Outer(
        name="a", lr=2.0, inner=Inner(size=5, shape=(1, 2))
    )


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("name: a\nspeed: 3\n", [], "unknown key 'speed'"),
        ("name: a\ninner:\n  sise: 3\n", [], "unknown key 'sise'"),
        ("name: 3\n", [], "must be str"),
        ("name: a\n", ["lr"], "not of the form key=value"),
        ("- a\n", [], "must be a mapping"),
        ("name: [\n", [], "not valid YAML"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_in_one_line(
    tmp_path: Path, text: str, overrides: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        load_recipe(Outer, write(tmp_path, text), overrides)
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(Outer, tmp_path / "none.yaml")


@pytest.mark.parametrize(("name", "kind"), [("icons_vq.yaml", VQRecipe), ("icons_lm.yaml", LMRecipe)])
def test_the_shipped_recipes_parse(name: str, kind: type) -> None:
    assert load_recipe(kind, RECIPES / name).out
