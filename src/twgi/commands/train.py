"""`twgi train`: the image tokenizer, the language model."""

from pathlib import Path
from typing import Annotated

import typer

from twgi.errors import ConfigError

app = typer.Typer(help="Train the image tokenizer or the language model by a recipe.")


Recipe = Annotated[Path, typer.Argument(help="A YAML file, such as those in recipes/.", show_default=False)]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value: changes to it.", show_default=False)]


@app.command("vq")
def train_vq(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train the image tokenizer.

    Example: twgi train vq recipes/icons_vq.yaml seed=1
    """
    _check(recipe)
    from twgi.training.vq import run_vq

    print(run_vq(recipe, overrides))


@app.command("lm")
def train_lm(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train the language model.

    Example: twgi train lm recipes/icons_lm.yaml seed=1
    """
    _check(recipe)
    from twgi.training.lm import run_lm

    print(run_lm(recipe, overrides))


def _check(recipe: Path) -> None:
    """Before what takes long to import."""
    if not recipe.is_file():
        raise ConfigError(f"{recipe}: no such recipe; some are in the folder recipes/ of the repository")
