"""`twgi score`: judge pictures that are there already, by this program or by any other."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twgi.commands.dpg import score_dpg
from twgi.commands.options import RUN, option
from twgi.errors import TwgiError

if TYPE_CHECKING:
    from twgi.evaluation.collection import Collection

JUDGE = "The judge"

app = typer.Typer(help="Judge the pictures of a benchmark, apart from drawing them.")


@app.callback()
def _score() -> None: ...


app.command("dpg")(score_dpg)


@app.command("geneval")
def score_geneval(
    folder: Annotated[Path, typer.Argument(help="A run folder of twgi eval, or 00000/samples/... made elsewhere.")],
    prompts: Annotated[Path | None, option("evaluation_metadata.jsonl: for pictures made elsewhere.", RUN)] = None,
    samples: Annotated[int, option("Pictures of each prompt made elsewhere. Default: 4.", RUN)] = 4,
    which: Annotated[str, option("final, first, or each: all judged, final counts. Default: each.", RUN)] = "each",
    detector: Annotated[str, option("icons, mask2former, or replay:FILE. Default: icons.", JUDGE)] = "icons",
    weights: Annotated[str | None, option("Mask2Former, a folder or a name on the hub.", JUDGE)] = None,
    clip: Annotated[str | None, option("CLIP, a folder or a name on the hub.", JUDGE)] = None,
    device: Annotated[str, option("Where mask2former and CLIP run. Default: cpu.", JUDGE)] = "cpu",
    out: Annotated[Path | None, option("Where scores.json and results.jsonl go. Default: FOLDER.", RUN)] = None,
    json: Annotated[bool, option("Print scores.json and nothing else.", RUN, "--json")] = False,
) -> int:
    """Judge pictures by GenEval's rules. What is missing makes the score PARTIAL, and the exit status 2.

    In the icon world: twgi score geneval out/critique

    Photographs, on a GPU (downloads 0.3 GB and 1.7 GB once; needs the extra eval):
    twgi score geneval out/run --detector mask2former --device cuda

    Made elsewhere: twgi score geneval pictures/ --prompts evaluation_metadata.jsonl --detector mask2former
    """
    import json as js

    from twgi.console import counting
    from twgi.evaluation.detectors.named import CLIP, WEIGHTS, eyes_named
    from twgi.evaluation.detectors.replay import recorded
    from twgi.evaluation.score import score, table, write_scores

    collection = _collection(folder, prompts, samples)
    eyes = eyes_named(detector, weights=weights or WEIGHTS, clip=clip or CLIP, device=device)
    target = out or folder
    with counting(len(collection.entries), "judging") as advance:
        scores = score(collection, recorded(eyes, target), which=which, advance=advance)
    content = write_scores(scores, target)
    print(js.dumps(content, ensure_ascii=False, indent=2) if json else table(content))
    return TwgiError.exit_status if content["partial"] else 0


def _collection(folder: Path, prompts: Path | None, samples: int) -> "Collection":
    from twgi.evaluation.collection import read_run
    from twgi.evaluation.official import export, read_official
    from twgi.evaluation.shards import merge, shards_in

    if prompts is not None:
        return read_official(folder, prompts, samples=samples)
    if shards_in(folder):
        merge(folder)
    collection = read_run(folder)
    export(collection)
    return collection
