"""A report's files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twgi.evaluation.report.build import Section, to_json
from twgi.evaluation.report.charts import chart
from twgi.evaluation.report.markdown import markdown
from twgi.evaluation.report.page import COSTS, page
from twgi.trace import PAGE, write_file


def write_report(parts: Sequence[Section], out: Path) -> dict[str, Any]:
    """Write `index.html`, `report.md`, `report.json` and a curve for each cost; returns what `report.json` holds.

    Raises:
        RunError: they cannot be written.
    """
    content = to_json(parts)
    charts = {}
    for part in parts:
        for cost, series in (("image_tokens", part.by_tokens), ("seconds", part.by_seconds)):
            drawn = chart(series, cost=COSTS[cost], standalone=True)
            if drawn:
                name = f"{part.benchmark}-{cost}"
                charts[name] = f"{name}.svg"
                write_file(out / charts[name], drawn.encode())
    write_file(out / "report.md", markdown(parts, charts=charts).encode())
    write_file(out / "report.json", (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
    write_file(out / PAGE, page(parts).encode())
    return content
