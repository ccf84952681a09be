"""Recipes of builds check themselves: who is asked, for what, and with which key."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from twgi.config import build, load_recipe
from twgi.data.factory.recipe import ROLES, BuildRecipe, IconScenes, Price, PromptSource, TeacherEndpoint
from twgi.errors import ConfigError

RECIPES = Path(__file__).parents[3] / "recipes"
STATION: dict[str, Any] = {"url": "http://host/v1", "model": "m"}
GOOD: dict[str, Any] = {
    "teacher": "endpoints",
    "endpoints": {"all": STATION},
    "roles": {role: ["all"] for role in ROLES},
}


def without(role: str) -> dict[str, Any]:
    return {name: who for name, who in GOOD["roles"].items() if name != role}


@pytest.mark.parametrize(("name", "teacher"), [("data_icons.yaml", "icons"), ("data_endpoints.yaml", "endpoints")])
def test_the_shipped_recipes_parse(name: str, teacher: str) -> None:
    assert load_recipe(BuildRecipe, RECIPES / name).teacher == teacher


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"teacher": "nobody"}, "teacher must be"),
        ({"count": 0}, "count"),
        ({"workers": 0}, "workers"),
        ({"max_parts": 1}, "max_parts"),
        ({"keep_from": 11}, "keep_from"),
        ({"modes": []}, "modes must be"),
        ({"modes": ["subgoal", "subgoal"]}, "each once"),
        ({"modes": ["direct"]}, "modes must be some of subgoal, critique"),
        ({"speed": 3}, 'unknown key "speed"'),
        ({"endpoints": {"all": {**STATION, "models": "m"}}}, 'endpoints.all: unknown key "models"'),
        ({"endpoints": {"all": {**STATION, "pictures": "video"}}}, "images or chat"),
        ({"endpoints": {"all": {**STATION, "parameters": {"model": "other"}}}}, "'model'"),
        ({"endpoints": {"all": {**STATION, "parameters": {'a"\r\n': 1}}}}, "parameters may not hold"),
        ({"roles": {**GOOD["roles"], "cook": ["all"]}}, "unknown role 'cook'"),
        ({"roles": {**GOOD["roles"], "judge": "all"}}, "roles.judge must be a list"),
        ({"roles": {**GOOD["roles"], "judge": []}}, "roles.judge must be a list"),
        ({"roles": {**GOOD["roles"], "judge": ["some"]}}, "no endpoint is called 'some'"),
        ({"roles": without("judge")}, "nobody has the role judge"),
        ({"roles": without("prompts")}, "nobody has the role prompts"),
        ({"teacher": "icons"}, "leave out endpoints and roles"),
    ],
)
def test_a_mistake_is_told_in_one_line(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        build(BuildRecipe, {**GOOD, **changes}, where="recipe")
    assert "\n" not in str(error.value)


def test_a_role_is_needed_only_where_it_is_asked() -> None:
    lean = {**GOOD, "modes": ["critique"], "prompts": {"file": "x"}}
    roles = {role: ["all"] for role in ("drafter", "critic", "editor", "judge")}
    assert set(build(BuildRecipe, {**lean, "roles": roles}, where="recipe").needed_roles()) == set(roles)


@pytest.mark.parametrize(
    "wrong", [{"input": -1.0}, {"output": -1.0}, {"picture": -1.0}], ids=lambda wrong: str(next(iter(wrong)))
)
def test_a_price_is_not_below_nothing(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Price(**wrong)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"max_words": 0}, {"themes": ()}])
def test_prompts_check_themselves(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PromptSource(**wrong)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"tasks": ()}, {"tasks": ("two_object", "zoo")}])
def test_icons_check_themselves(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        IconScenes(**wrong)


def test_the_pace_is_no_part_of_the_identity() -> None:
    slow = {**STATION, "concurrency": 1, "attempts": 9, "timeout": 1.0, "price": Price(input=1.0), "key_variable": "K"}
    recipes = [
        BuildRecipe(teacher="endpoints", workers=n, endpoints={"all": TeacherEndpoint(**station)}, roles=_roles())
        for n, station in enumerate((STATION, slow), 1)
    ]
    assert recipes[0].identity() == recipes[1].identity()
    assert recipes[0].identity() != replace(recipes[0], max_parts=2).identity()


def _roles() -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(ROLES, ("all",))


def test_a_key_in_the_place_of_its_name_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("gsk_hidden", raising=False)
    recipe = build(BuildRecipe, {**GOOD, "endpoints": {"all": {**STATION, "key_variable": "gsk_hidden"}}}, where="")
    with pytest.raises(ConfigError, match="is not set") as error:
        recipe.check_keys()
    assert "hidden" not in str(error.value)
