"""A build with the studio in every role, and what it leaves."""

import json
from pathlib import Path
from typing import Any

import yaml
from tests.data.factory.studio import PROMPTS, Studio

from twgi.config import load_recipe
from twgi.data.factory.build import RECORDS, BuildReport, build
from twgi.data.factory.recipe import BuildRecipe
from twgi.data.records import TrainingRecord, parse_record
from twgi.files import read_objects

SECRET = "sk-very-secret"
KEPT = [prompt for number, prompt in enumerate(PROMPTS) if number != 1]  # the second is the first again


def recipe_file(folder: Path, served: Studio) -> Path:
    """A recipe in which the studio has every role."""
    roles = ("prompts", "decomposer", "painter", "editor", "writer", "drafter", "critic", "judge")
    station = {"url": served.url, "model": "all", "key_variable": "STUDIO_KEY", "timeout": 5.0, "attempts": 4}
    station["price"] = {"input": 1.0, "output": 2.0, "picture": 0.5}
    settings = {
        "teacher": "endpoints",
        "count": 3,
        "workers": 3,
        "endpoints": {"all": station},
        "roles": {role: ["all"] for role in roles},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def built(folder: Path, served: Studio, *, overrides: list[str] | None = None, **options: Any) -> BuildReport:
    recipe = load_recipe(BuildRecipe, recipe_file(folder, served), overrides or [])
    return build(recipe, folder / "out", **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def records(folder: Path) -> dict[str, TrainingRecord]:
    lines = read_objects(folder / "out" / RECORDS)
    read = [parse_record(line.value, where=line.where, folder=line.folder) for line in lines]
    return {str(record.id): record for record in read}


def everything(folder: Path) -> bytes:
    """What is written that must not hang on how it came about."""
    names = sorted(path for path in (folder / "out").rglob("*.png"))
    return (folder / "out" / RECORDS).read_bytes() + b"".join(path.name.encode() + path.read_bytes() for path in names)
