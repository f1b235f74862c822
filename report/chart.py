"""Line charts as SVG for a page: plain numbers in, text out; colours come from the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from util.plotting import MaxNLocator

WIDTH, HEIGHT = 520, 280
LEFT, RIGHT, TOP, BOTTOM = 72, 12, 34, 46  # margins of the plot
N_TICKS = 8  # at most
N_COLOURS = 6  # of lines, in the style of the page
DASHES = ("", "2 3", "7 4", "", "9 3 2 3", "4 2")  # so that lines differ without colour, too


@dataclass(frozen=True)
class Line:
    """A line of a chart; it has gaps where a value is not finite."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int  # number of one of the page's colours for lines


@dataclass(frozen=True)
class Chart:
    """Lines over one axis."""

    title: str
    x: str  # label, with the unit
    y: str
    lines: Sequence[Line]
    log: bool = False  # the vertical axis is logarithmic
    by_frame: bool = False  # x is the frame: the player marks its own


def svg(chart: Chart) -> str:
    """The chart as an SVG element, without its title and legend, which the page sets as text."""
    # the ranges of both axes
    points = [
        (x, y)
        for line in chart.lines
        for x, y in zip(line.xs, line.ys, strict=True)
        if math.isfinite(y) and (y > 0 or not chart.log)
    ]
    x_low, x_high = _span([x for x, _ in points])
    values = [math.log10(y) if chart.log else y for _, y in points]
    y_low, y_high = _span(values)
    margin = 0.05 * (y_high - y_low)
    y_low, y_high = y_low - margin, y_high + margin

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    # grid, ticks and axis
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for y, label in _log_ticks(y_low, y_high) if chart.log else _ticks(y_low, y_high):
        at = place(x_low, y)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}">{label}</text>')
    for x, label in _ticks(x_low, x_high, whole=True):
        at = place(x, y_low)[0]
        parts.append(f'<text class="tick under" x="{at:.1f}" y="{bottom + 17}">{label}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    # the lines, in pieces between their gaps
    for line in chart.lines:
        dash = DASHES[line.colour % len(DASHES)]
        style = f' stroke-dasharray="{dash}"' if dash else ""
        for piece in _pieces(line, chart.log):
            corners = [place(x, y) for x, y in piece]
            if len(corners) == 1:
                x, y = corners[0]
                parts.append(
                    f'<circle class="dot c{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
                )
            else:
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
                parts.append(f'<polyline class="curve c{line.colour}"{style} points="{path}"/>')
    if chart.by_frame:
        parts.append(
            f'<line class="cursor" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{bottom}"'
            f' data-left="{LEFT}" data-right="{right}"/>'
        )
    # labels; that of the vertical axis is above it, clear of the ticks
    parts.append(
        f'<text class="label" x="{(LEFT + right) / 2}" y="{HEIGHT - 8}">{escape(chart.x)}</text>'
    )
    parts.append(
        f'<text class="label above" x="{LEFT - 6}" y="{TOP - 16}">{escape(chart.y)}</text>'
    )
    names = ", ".join(line.name for line in chart.lines)
    about = escape(f"{chart.title}: {chart.y} by {chart.x}, of {names}", quote=True)
    return (
        f'<svg role="img" aria-label="{about}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        + "".join(parts)
        + "</svg>"
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value, apart."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-12 * max(1.0, abs(high)):
        half = max(abs(high) * 0.05, 0.5)
        low, high = low - half, high + half
    return low, high


def _ticks(low: float, high: float, whole: bool = False) -> list[tuple[float, str]]:
    """Round values of a linear axis with their labels."""
    values = MaxNLocator(N_TICKS, integer=whole, steps=(1, 2, 5, 10)).tick_values(low, high)
    return [(float(v), f"{v:g}".replace("e-0", "e-")) for v in values if low <= v <= high]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Logarithms of 1, 2 and 5 times powers of ten, of these powers alone, or, within less than a
    decade, of other round values; with labels."""
    digits = (1, 2, 5) if high - low < 2 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    values = [d * 10.0**k for k in decades for d in digits if low <= math.log10(d) + k <= high]
    if len(values) < 3:
        values = [value for value, _ in _ticks(10**low, 10**high) if value > 0]
    return [(math.log10(value), _short(value)) for value in values]


def _short(value: float) -> str:
    """ "2e-5", "0.012", "100": with a power of ten if a small number is not longer with it."""
    plain, (digits, power) = f"{value:.6g}", f"{value:.5e}".split("e")
    with_power = f"{float(digits):g}e{int(power)}"
    return with_power if value < 1 and len(with_power) <= len(plain) else plain


def _pieces(line: Line, log: bool) -> list[list[tuple[float, float]]]:
    """The points of a line between its gaps; logarithms, if the axis has them."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.xs, line.ys, strict=True):
        if math.isfinite(y) and (y > 0 or not log):
            pieces[-1].append((x, math.log10(y) if log else y))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]
