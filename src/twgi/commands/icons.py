"""`twgi icons`: a look at the icon world."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The icon world: a small world in which every score is exact.")


@app.command("sample")
def sample(
    out: Annotated[Path, typer.Option(help="A new folder for scenes.jsonl, traces.jsonl, images/ and the page.")],
    scenes: Annotated[int, typer.Option(help="How many.")] = 32,
    seed: Annotated[int, typer.Option(help="Same seed, same scenes.")] = 0,
) -> None:
    """Look at the icon world: scenes of every task, and a true thought of every mode about them.

    Example: twgi icons sample --scenes 64 --out out/sample
    """
    from twgi.icons.sample import write_sample

    written = write_sample(out, scenes=scenes, seed=seed)
    print(f"{written.scenes} scenes, {written.read_right} of them read right by the checker")
    print(f"page: {written.page}")
