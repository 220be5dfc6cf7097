"""Draws lines over two axes as an SVG, which needs no library. It must not compute figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from cli.load.plan import Refused

WIDTH, HEIGHT = 820, 380
# Margins in pixels. The title is above the plot, the axis and the legend are below it.
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 58, 78
# The approximate number of marks on an axis.
TICKS = 5
POINT_RADIUS = 4.5
STYLE = (
    "text{font-family:Helvetica,Arial,sans-serif;font-size:13px;fill:#4a5670}"
    ".title{font-size:16px;font-weight:bold;fill:#1b2538}.grid{stroke:#e3e7ef}.axis{stroke:#8a94a8}"
)
BLUE, GREEN, ORANGE, RED, GREY = "#3b6fd4", "#2f9e5a", "#d9822b", "#c8372d", "#8a94a8"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a plot."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    is_dashed: bool = False
    has_points: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of some lines. Both axes begin at zero."""

    title: str
    subtitle: str
    x_name: str
    y_name: str
    lines: Sequence[Line]
    # The marks of the x axis, if only some values make sense.
    x_ticks: Sequence[float] | None = None


def check_plot_name(path: Path) -> None:
    """Check that the name of the file is that of an SVG. Raises Refused."""
    if path.suffix.lower() != ".svg":
        raise Refused(f"{path}: the picture is an SVG, so the name of the file must end in .svg.")


def svg(plot: Plot) -> str:
    """Return the plot as SVG."""
    x_marks = list(plot.x_ticks or _ticks(_most(plot, 0)))
    y_marks = _ticks(_most(plot, 1))
    x_top, y_top = max(x_marks[-1], _most(plot, 0)), y_marks[-1]

    def x_of(value: float) -> float:
        return round(LEFT + value / x_top * (WIDTH - LEFT - RIGHT), 1)

    def y_of(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / y_top * (HEIGHT - TOP - BOTTOM), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f"<title>{escape(plot.title)}</title><style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text class="title" x="{LEFT}" y="24">{escape(plot.title)}</text>',
        f'<text x="{LEFT}" y="43">{escape(plot.subtitle)}</text>',
    ]
    for mark in y_marks:
        parts += [
            f'<path class="grid" d="M{LEFT} {y_of(mark)}H{WIDTH - RIGHT}"/>',
            f'<text x="{LEFT - 8}" y="{y_of(mark) + 4}" text-anchor="end">{mark:g}</text>',
        ]
    parts += [
        f'<text x="{x_of(mark)}" y="{HEIGHT - BOTTOM + 19}" text-anchor="middle">{mark:g}</text>' for mark in x_marks
    ]
    parts += [
        f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM + 38}" text-anchor="end">{escape(plot.x_name)}</text>',
        f'<text transform="translate(14 {TOP})rotate(-90)" text-anchor="end">{escape(plot.y_name)}</text>',
    ]
    for line in plot.lines:
        parts += _drawn(line, [(x_of(x), y_of(y)) for x, y in line.points])
    parts += _legend(plot.lines)
    return "\n".join([*parts, "</svg>", ""])


def _drawn(line: Line, points: Sequence[tuple[float, float]]) -> list[str]:
    dashes = ' stroke-dasharray="6 5"' if line.is_dashed else ""
    path = "M" + "L".join(f"{x} {y}" for x, y in points)
    drawn = [f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dashes}/>'] if points else []
    if line.has_points:
        drawn += [f'<circle cx="{x}" cy="{y}" r="{POINT_RADIUS}" fill="{line.colour}"/>' for x, y in points]
    return drawn


def _legend(lines: Sequence[Line]) -> list[str]:
    drawn, x, y = [], float(LEFT), HEIGHT - 18
    for line in lines:
        dashes = ' stroke-dasharray="6 5"' if line.is_dashed else ""
        drawn += [
            f'<path d="M{x:g} {y - 4}h24" stroke="{line.colour}" stroke-width="2.5"{dashes}/>',
            f'<text x="{x + 30:g}" y="{y}">{escape(line.name)}</text>',
        ]
        # The approximate width of the text.
        x += 30 + 7.2 * len(line.name) + 24
    return drawn


def _most(plot: Plot, axis: int) -> float:
    return max((point[axis] for line in plot.lines for point in line.points), default=1.0) or 1.0


def _ticks(most: float) -> list[float]:
    """Return round numbers from 0 to `most` or a little above, at equal distances."""
    rough = most / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    return [round(step * index, 9) for index in range(math.ceil(most / step - 1e-9) + 1)]
