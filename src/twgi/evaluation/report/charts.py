"""Score against cost, as SVG text: lines with intervals, a logarithmic cost axis, and a legend beside."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Literal

WIDTH, HEIGHT = 860, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 300, 16, 48
COLORS = ("#a8522f", "#2f6f8f", "#5b8a3c", "#8a5a9e", "#b8860b", "#4a4a8a", "#a03050", "#3c8a7a")
FONT = 'font-family="system-ui, sans-serif" font-size="12"'  # attributes: a page may forbid styles


@dataclass(frozen=True, kw_only=True)
class Point:
    """A score at a cost; `low` and `high` are its interval, where there is one; `note` is shown on hovering."""

    cost: float
    score: float
    low: float | None = None
    high: float | None = None
    note: str = ""


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

    @property
    def look(self) -> tuple[str, str]:
        """Colour, and how the line is drawn."""
        dash = {"pictures": "", "choice": ' stroke-dasharray="2 3"', "bound": ' stroke-dasharray="7 4"'}[self.kind]
        return COLORS[self.group % len(COLORS)], dash


def chart(series: Sequence[Series], *, cost: str, score: str = "score", standalone: bool = False) -> str:
    """An SVG element; `standalone` makes a file of its own of it, on white. Empty without points."""
    points = [point for one in series for point in one.points if point.cost > 0]
    if not points:
        return ""
    frame = _Frame.of(points)
    behind = sorted(series, key=lambda one: one.kind == "pictures")  # what was reached is drawn last, on top
    lines = [part for one in behind for part in _line(one, frame)]
    legend = [part for number, one in enumerate(series) for part in _legend(one, number)]
    namespace = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>' if standalone else ""
    label = escape(f"{score} against {cost}")
    return (
        f'<svg{namespace} viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{label}" color="{"#22201c" if standalone else "currentColor"}">{ground}'
        f"<g {FONT}>{''.join([*_axes(frame, cost, score), *lines, *legend])}</g></svg>"
    )


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where a cost and a score stand."""

    first: float
    last: float
    low: float
    high: float

    @classmethod
    def of(cls, points: Sequence[Point]) -> "_Frame":
        costs = [point.cost for point in points]
        lows = [point.score if point.low is None else point.low for point in points]
        highs = [point.score if point.high is None else point.high for point in points]
        low, high = floor(min(lows) * 20 - 0.2) / 20, ceil(max(highs) * 20 + 0.2) / 20
        return cls(first=min(costs) / 1.25, last=max(costs) * 1.25, low=max(low, 0.0), high=min(high, 1.0))

    def x(self, cost: float) -> float:
        share = (log10(cost) - log10(self.first)) / (log10(self.last) - log10(self.first))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, score: float) -> float:
        return TOP + (self.high - score) / max(self.high - self.low, 1e-9) * (HEIGHT - TOP - BOTTOM)

    def costs(self) -> list[float]:
        """Round costs within the frame: 1, 2 and 5 times the powers of ten, or the powers alone where that is many."""
        powers = range(floor(log10(self.first)), ceil(log10(self.last)) + 1)
        steps = (1, 2, 5) if len(powers) < 4 else (1,)
        every = [step * 10.0**power for power in powers for step in steps]
        return [cost for cost in every if self.first <= cost <= self.last]

    def scores(self) -> list[float]:
        step = next(s for s in (0.02, 0.05, 0.1, 0.2) if (self.high - self.low) / s <= 6 or s == 0.2)
        first = ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, floor(self.high / step + 1e-9) + 1)]


def _axes(frame: _Frame, cost: str, score: str) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in frame.scores():
        y = f"{frame.y(value):.1f}"
        yield f'<line x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}" stroke="currentColor" stroke-opacity=".15"/>'
        yield _words(LEFT - 8, frame.y(value) + 4, f"{value:.2f}", "end")
    for value in frame.costs():
        x = f"{frame.x(value):.1f}"
        yield f'<line x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}" stroke="currentColor"/>'
        yield _words(frame.x(value), bottom + 19, f"{value:,.10g}", "middle")
    yield f'<line x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="currentColor"/>'
    yield _words((LEFT + right) / 2, HEIGHT - 8, cost, "middle")
    middle = (TOP + bottom) / 2
    yield f'<g transform="rotate(-90 14 {middle:.0f})">{_words(14, middle, score, "middle")}</g>'


def _words(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'


def _line(series: Series, frame: _Frame) -> Iterator[str]:
    color, dash = series.look
    points = [point for point in series.points if point.cost > 0]
    path = " ".join(f"{frame.x(point.cost):.1f},{frame.y(point.score):.1f}" for point in points)
    yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'
    for point in points:
        x, y = f"{frame.x(point.cost):.1f}", f"{frame.y(point.score):.1f}"
        if point.low is not None and point.high is not None:
            ends = f'y1="{frame.y(point.low):.1f}" y2="{frame.y(point.high):.1f}"'
            yield f'<line x1="{x}" x2="{x}" {ends} stroke="{color}" stroke-opacity=".5" stroke-width="1.5"/>'
        note = escape(f"{series.name}: {point.note} {point.score:.3f} at {point.cost:,.4g}")
        fill, radius = (color, 4.5) if series.kind == "pictures" else ("none", 3.5)
        dot = f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}" stroke="{color}" stroke-width="1.5">'
        yield f"{dot}<title>{note}</title></circle>"


def _legend(series: Series, number: int) -> Iterator[str]:
    color, dash = series.look
    x, y = WIDTH - RIGHT + 20, TOP + 12 + number * 22
    yield f'<line x1="{x}" x2="{x + 26}" y1="{y - 4}" y2="{y - 4}" stroke="{color}" stroke-width="2"{dash}/>'
    if series.kind == "pictures":
        yield f'<circle cx="{x + 13}" cy="{y - 4}" r="4.5" fill="{color}"/>'
    yield _words(x + 34, y, series.name)
