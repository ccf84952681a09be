"""A report's files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twgi.evaluation.report.blocks import Chart, blocks
from twgi.evaluation.report.build import Section, to_json
from twgi.evaluation.report.markdown import markdown
from twgi.evaluation.report.page import page
from twgi.files import write_json, write_whole
from twgi.trace import PAGE


def write_report(parts: Sequence[Section], out: Path) -> dict[str, Any]:
    """Write `index.html`, `report.md`, `report.json` and a curve for each cost; returns what `report.json` holds.

    Raises:
        RunError: they cannot be written.
    """
    content, told = to_json(parts), [list(blocks(part)) for part in parts]
    for block in (block for section in told for block in section):
        if isinstance(block, Chart):
            write_whole(out / block.name, block.svg)
    write_whole(out / "report.md", markdown(told).encode())
    write_json(out / "report.json", content)
    write_whole(out / PAGE, page(told).encode())
    return content
