"""`twgi train`: on chains, by a recipe; and the parts of the bundled model."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from twgi.console import complain
from twgi.errors import ConfigError

CHAINS = "chains"


class RecipeFirst(TyperGroup):
    """A group whose first word may be a recipe: then it is trained on chains."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = not args or args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else [CHAINS, *args])


app = typer.Typer(
    cls=RecipeFirst,
    help="Train a model on chains of text and pictures: twgi train RECIPE.yaml [key=value ...]",
    epilog="The recipe says what and how; docs/finetune.md is a walk through one. With several GPUs the same recipe: "
    "torchrun --nproc_per_node=8 -m twgi train RECIPE.yaml",
)


def _there(recipe: Path) -> Path:
    """Checked before what takes long to import."""
    if not recipe.is_file():
        raise ConfigError(f"{recipe}: no such recipe; some are in the folder recipes/ of the repository")
    return recipe


Recipe = Annotated[
    Path, typer.Argument(help="A YAML file, such as those in recipes/.", show_default=False, callback=_there)
]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value: changes to it.", show_default=False)]


@app.command(CHAINS)
def train_chains(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train on chains, the whole model or LoRA adapters; `twgi train RECIPE.yaml` is short for it.

    A run goes on from its newest checkpoint when it is started again. The folder that is printed at the end can be
    given to `twgi think --model`.

    Example: twgi train recipes/icons_lora.yaml optimizer.lr=1e-3 out=runs/try
    """
    from twgi.commands.watch import draw_and_judge
    from twgi.training.train import train_chains as run

    folder = run(recipe, overrides or [], watch=draw_and_judge)
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes the first alone speaks
        print(folder)


@app.command("merge")
def train_merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the merged model.", show_default=False)],
    model: Annotated[str, typer.Option(help="What the adapter was trained on: preset or folder.")] = "icons",
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Merge a LoRA adapter into its model; refused where it was trained on another one, or does not fit.

    Example: twgi train merge runs/icons_lora/adapter out/merged
    """
    from twgi.training.lora import base_of
    from twgi.training.model import merge_folder

    print(merge_folder(model, adapter, out, dtype=dtype))
    if base_of(adapter) is None:
        complain(f"{adapter} does not say on which model it was trained; it was taken for one of {model}")


@app.command("vq")
def train_vq(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train the icon world's image tokenizer.

    Example: twgi train vq recipes/icons_vq.yaml seed=1
    """
    from twgi.training.icons.vq import run_vq

    print(run_vq(recipe, overrides))


@app.command("lm")
def train_lm(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train the icon world's language model from nothing.

    Example: twgi train lm recipes/icons_lm.yaml seed=1
    """
    from twgi.training.icons.lm import run_lm

    print(run_lm(recipe, overrides))
