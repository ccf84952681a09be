"""`twgi info` and `twgi convert`: look at a checkpoint, and bring it into another layout."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from twgi.commands.groups import ModelOptions
from twgi.console import bytes_bar, complain

Folder = Annotated[str, typer.Argument(help="Preset, or folder of a checkpoint in any layout.", show_default=False)]
VqFile = Annotated[Path | None, typer.Option(help="vqgan.ckpt, for a checkpoint without an image decoder.")]
DtypeName = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default=False)]


def info(
    model: Folder,
    plan: Annotated[bool, typer.Option("--plan", help="What it takes to run: memory, chains, floors.")] = False,
    gpu: Annotated[str, typer.Option(help="For --plan: a name (h100, rtx4090, ...), or GIB@TB/S.")] = "h100",
    dtype: DtypeName = None,
    int8: Annotated[bool, typer.Option("--int8", help="For --plan: the language model in 8 bits.")] = False,
    context: Annotated[int | None, typer.Option(help="For --plan: positions of a row.")] = None,
    guidance: Annotated[str, typer.Option(help="For --plan: paper, reference, icons.")] = "paper",
    vq: VqFile = None,
    json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Say what a checkpoint is: layout, sizes, tokens, hash. Weights are not loaded.

    Example: twgi info ~/models/twgi-subgoal-anole-7b --plan --gpu rtx4090 --int8
    """
    from twgi.checkpoint.layout import open_checkpoint
    from twgi.checkpoint.load import describe

    options = ModelOptions(model=model, dtype=dtype, int8=int8, context=context, vq=vq)
    checkpoint = open_checkpoint(model, vq=vq)
    told = describe(checkpoint)
    if plan:
        import torch

        from twgi.thinking.budget import gpu_named, plan_of

        card, width = gpu_named(gpu), options.torch_dtype or torch.bfloat16
        told["plan"] = plan_of(checkpoint, gpu=card, dtype=width, int8=int8, guidance=guidance, context=context)
    print(json_module.dumps(told, indent=2) if json else "\n".join(_lines(told)))


def _lines(told: dict[str, Any]) -> list[str]:
    counts, model, image, tokens = (told[key] for key in ("parameters", "model", "image_tokenizer", "tokens"))
    blocks = f"{model['num_layers']} layers of {model['hidden_size']}, MLP {model['intermediate_size']}"
    heads = f"{model['num_heads']} heads, {model['num_kv_heads']} key/value heads"
    first, last = tokens["image_tokens"]
    lines = [
        f"{told['name']}: {told['layout']}, {len(told['files'])} file(s), sha256 {told['sha256']}",
        f"parameters  {counts['total']:,}: blocks {counts['body']:,}, embedding {counts['embedding']:,}, "
        f"head {counts['head']:,}, image part {counts['image']:,}",
        f"stored as   {', '.join(f'{count} tensors {kind}' for kind, count in told['dtypes'].items())}",
        f"model       {blocks}, {heads}, context {model['max_positions']}{', swin norm' if model['swin_norm'] else ''}",
        f"pictures    {image['resolution']} x {image['resolution']} pixels, {tokens['tokens_per_image']} tokens of "
        f"{tokens['codes']} codes; {'draws' if told['draws'] else 'reads only: no image decoder'}",
        f"tokens      {tokens['vocabulary']}: text {tokens['text']}, images {first}..{last}, boi {tokens['boi']}, eoi "
        f"{tokens['eoi']}, separator {tokens['separator']}, bos {tokens['bos']} (config says {tokens['config_bos']})",
        f"modes       {', '.join(told['modes'])}; trained for {', '.join(told['trained_for'] or ['what is not told'])}",
    ]
    return lines + (_plan_lines(told["plan"]) if "plan" in told else [])


def _plan_lines(plan: dict[str, Any]) -> list[str]:
    gpu = plan["gpu"]
    lines = [
        "",
        f"on {gpu['name']} ({gpu['gib']:g} GiB, {gpu['tb_per_s']:g} TB/s), {plan['weights_in']}",
        f"weights {plan['weights'] / 1e9:.2f} GB, cache {plan['kv_per_token'] / 2**10:g} KiB a token, context "
        f"{plan['context']}",
        f"{'mode':9}{'steps':>7}{'rows':>6}{'cache set aside':>17}{'in use':>10}{'chains':>8}"
        f"{'step, ms':>10}{'chain, s':>10}{'if full, s':>12}",
    ]
    for mode in plan["modes"]:
        alone, together = mode["chain_s"]
        lines.append(
            f"{mode['mode']:9}{mode['steps']:>7}{mode['rows']:>6}{mode['reserved'] / 1e9:>14.2f} GB"
            f"{mode['peak'] / 1e9:>7.2f} GB{mode['chains']:>8}{mode['step_ms']:>10.2f}{alone:>10.1f}{together:>12.1f}"
        )
    return [*lines, "Times are floors: all weights and caches read once a step, nothing else."]


def convert(
    source: Annotated[str, typer.Argument(help="Preset, or folder of a checkpoint.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    layout: Annotated[str, typer.Option(help="hf (Hugging Face, as the fork has it) or meta.")] = "hf",
    dtype: DtypeName = None,
    shards: Annotated[int | None, typer.Option(help="Of Meta's layout. Default: as few as can be.")] = None,
    vq: VqFile = None,
) -> None:
    """Write a checkpoint in another layout, bit for bit; there and back again gives the same weights.

    Example: twgi convert ~/models/Anole-7b-v0.1 ~/models/anole-hf --layout hf

    Give a checkpoint that cannot draw its image decoder: twgi convert chameleon-7b drawing --vq vqgan.ckpt
    """
    from twgi.checkpoint.convert import convert as convert_checkpoint
    from twgi.checkpoint.layout import open_checkpoint

    options = ModelOptions(model=source, dtype=dtype, vq=vq)
    opened = open_checkpoint(source, vq=vq)
    width, bar = options.torch_dtype, bytes_bar("converting")
    for remark in convert_checkpoint(opened, target, layout=layout, dtype=width, shards=shards, progress=bar):
        complain(remark)
    written = open_checkpoint(target)
    print(f"{target}: {written.layout}, {len(written.tensors.stored)} tensors in {len(written.tensors.files)} file(s)")
