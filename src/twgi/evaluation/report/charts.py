"""Score against cost as SVG, drawn by matplotlib (extra `eval`): lines with intervals over a logarithmic cost axis.

The same points give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, Literal

SIZE = (9.5, 4.2)  # inches, at 72 points each
COLORS = ("#a8522f", "#2f6f8f", "#5b8a3c", "#8a5a9e", "#b8860b", "#4a4a8a", "#a03050", "#3c8a7a")
SETTINGS: Any = {"svg.hashsalt": "twgi", "svg.fonttype": "none", "font.size": 10, "axes.spines.right": False}
SETTINGS |= {"axes.spines.top": False, "axes.spines.left": False, "ytick.left": False, "axes.grid.axis": "y"}
LINES = {"pictures": "-", "choice": ":", "bound": "--"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """A score at a cost; `low` and `high` are its interval, where there is one."""

    cost: float
    score: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one way to spend more, in order of cost.

    Series of one `group` have one colour. A `choice` among samples is dotted; a `bound`, which is no score that
    anybody reached, is dashed.
    """

    name: str
    points: tuple[Point, ...]
    group: int = 0
    kind: Literal["pictures", "choice", "bound"] = "pictures"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "points": [asdict(point) for point in self.points]}


def chart(series: Sequence[Series], *, cost: str) -> bytes:
    """An SVG file; empty without points, and where matplotlib is not installed."""
    shown = [one for one in series if any(point.cost > 0 for point in one.points)]
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return b""
    if not shown:
        return b""
    with rc_context(SETTINGS):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for one in sorted(shown, key=lambda one: one.kind == "pictures"):  # what was reached is drawn on top
            _draw(axes, one)
        _axes(axes, [point.cost for one in shown for point in one.points if point.cost > 0], cost)
        names = {line.get_label(): line for line in axes.get_lines()}
        legend = figure.legend(
            [names[one.name] for one in shown], [one.name for one in shown], loc="outside right upper", frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name may hold any sign
        content = BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def _draw(axes: Any, series: Series) -> None:
    color, whole = COLORS[series.group % len(COLORS)], series.kind == "pictures"
    points = [point for point in series.points if point.cost > 0]
    costs = [point.cost for point in points]
    axes.plot(
        costs, [point.score for point in points], LINES[series.kind], marker="o", color=color, label=series.name,
        markersize=6 if whole else 5, markerfacecolor=color if whole else "none",
    )  # fmt: skip
    for point in points:
        if point.low is not None and point.high is not None:
            axes.vlines(point.cost, point.low, point.high, color=color, alpha=0.5)


def _axes(axes: Any, costs: Sequence[float], cost: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    first, last = min(costs) / 1.25, max(costs) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(first, last)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if last < 1000 * first else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(cost)
    axes.set_ylabel("score")
    axes.grid(alpha=0.3)
