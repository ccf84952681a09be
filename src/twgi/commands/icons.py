"""`twgi icons`: a look at the icon world."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The icon world: a small world in which every score is exact.")


@app.command()
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


@app.command()
def dense(
    out: Annotated[Path, typer.Option(help="The question file: .csv in DPG-Bench's columns, or .jsonl.")],
    count: Annotated[int, typer.Option(help="How many prompts.")] = 100,
    seed: Annotated[int, typer.Option(help="Same seed, same prompts.")] = 0,
) -> None:
    """Dense prompts with their questions, in DPG-Bench's schema; `twgi score dpg --judge icons` answers them exactly.

    Example: twgi icons dense --count 100 --out dense.csv
    """
    from twgi.errors import ConfigError
    from twgi.files import write_whole
    from twgi.icons.dense import dense_prompts, write_dense

    if out.suffix not in (".csv", ".jsonl"):
        raise ConfigError(f"--out must end in .csv or .jsonl, got {out}")
    prompts = dense_prompts(count, seed=seed)
    write_whole(out, write_dense(prompts, lines=out.suffix == ".jsonl").encode())
    print(f"{len(prompts)} prompts with {sum(len(prompt.claims) for prompt in prompts)} questions: {out}")
