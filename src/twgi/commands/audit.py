"""`twgi audit`: whether the steps of thoughts are right, and whether they matter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from twgi.commands.options import ASK, RUN, Model, option
from twgi.commands.score import show
from twgi.errors import ConfigError


def audit(
    folder: Annotated[Path, typer.Argument(help="Run folder of twgi eval geneval, in mode critique or subgoal.")],
    model: Model = "icons",
    limit: Annotated[int, option("Change steps of so many thoughts; 0: only count. Default: 200.", ASK)] = 200,
    batch: Annotated[int, option("Thoughts at a time, for speed alone. Default: 16.", RUN)] = 16,
    json: Annotated[bool, option("Print audit.json and nothing else.", RUN, "--json")] = False,
) -> None:
    """Audit thoughts in the icon world: how often steps are right and the end is wrong, and what a changed step does.

    The words of a critique, or the pictures of the parts, are blanked or swapped with another prompt's, and the
    thought goes on from there. The result is in FOLDER/audit.json, and in a report of FOLDER.

    Example: twgi audit out/critique --limit 200
    """
    from twgi import load
    from twgi.console import counting
    from twgi.evaluation.audit.audit import Audited, table, write_audit

    if limit < 0 or batch < 1:
        raise ConfigError(f"limit must be 0 or more and batch 1 or more, got {limit} and {batch}")
    audited = Audited(folder)
    rates, effects = audited.rates(), dict[str, Any]()
    if limit:
        thinker = load(model)
        changes = audited.changes(thinker, limit)
        with counting(len(changes), "thinking on") as advance:
            more, effects = audited.intervene(thinker, changes, batch=batch, advance=advance)
        rates += more
    content = write_audit(audited, folder, rates=rates, effects=effects)
    show(content, table(content), json=json)
