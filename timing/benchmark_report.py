"""The results of a benchmark in words, tables and a figure."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from report.figures import default_style
from report.markdown import table
from report.pictures import write_figure
from timing.clock import Row
from timing.speed import CONTROL, INFERENCE, MODES
from util.files import as_bytes, write_bytes, write_csv
from util.plotting import (
    Axes,
    Axis,
    Figure,
    FixedLocator,
    FuncFormatter,
    NullLocator,
    Patch,
)

TABLES, VALUES, FIGURE = FILES = ("benchmark.md", "benchmark.csv", "benchmark.png")
DPI = 120
SPEED_HEADS = [
    "network", "precision", "ms a sample", "samples/s", "speed", "GMAC/s", "of the peak", "GB"
]  # fmt: skip
PART_HEADS = ["part", "once in", "samples or files", "timed on", "seconds", "of an epoch"]
GROWTH_HEADS = ["what varies", "call", "values", "ms a call", "exponent", "GB"]
AXES = {
    "batch_size": "batch size",
    "frames": "frames",
    "size": "lines and columns",
    "width": "init_features (cascade: features)",
    "samples": "samples",
}
TICKS = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5)]
MEANING = """\
Times: median ± half the interquartile range over the rounds. In a round every call is made once,
in turn; the first round does not count. A training step is forward, loss, backward and the step of
Adam, on a batch that is on the device; an inference is a forward pass in evaluation mode. Speed:
how many times as fast as the control of the same init_features, in the same mode. The control is a
plain float32 network of the reference's shape in torch's default layout: two U-Nets and a residual
network at half resolution (`timing/control.py`). GMAC/s: multiply-accumulates of convolutions and
matrix products, three times those of a forward pass in training; of the peak: as a share of the
highest rate of a large matrix product in the same precision. GB: peak memory, on CPUs of a whole
process with interpreter and batch, on GPUs of tensors."""
OF_GROWTH = (
    "Seconds go as the power `exponent` of what varies (least squares of the logarithms). GB: the"
    " peak of a process that does nothing else, with all libraries; on a GPU that of its tensors."
)


def write_report(folder: Path, rows: Sequence[Row], facts: Sequence[str]) -> None:
    """Write tables, values and figure of what has been measured; `facts`: the first lines."""
    lines = ["# Benchmark", "", *facts, "", *MEANING.splitlines()]
    lines += speed_tables(rows) + part_table(rows) + growth_table(rows)
    write_bytes(folder / TABLES, as_bytes("\n".join(lines) + "\n"))
    write_csv(folder / VALUES, rows)
    write_figure(folder / FIGURE, benchmark_figure(rows), DPI)


def speed_tables(rows: Sequence[Row]) -> list[str]:
    """A Markdown table for each width of the control and each mode."""
    tables: dict[str, list[list[str]]] = {}
    for row in (row for row in rows if row["group"] == "speed"):
        title = f"{row['mode']}, init_features {row['control_width']}, batch {row['batch_size']}"
        tables.setdefault(title.capitalize(), []).append(speed_cells(row))
    return [
        line
        for title, cells in tables.items()
        for line in ["", f"## {title}", "", *table(SPEED_HEADS, cells)]
    ]


def speed_cells(row: Row) -> list[str]:
    """The cells of a network in a table of speeds."""
    cells = [f"`{row['model']}`", row["precision"]]
    if "seconds" not in row:
        return [*cells, row["failure"]]
    n, rate = row["batch_size"], row["batch_size"] / row["seconds"]
    return [
        *cells,
        milliseconds(row["seconds"] / n, row["spread"] / n),
        f"{rate:.3g}",
        multiple(row["of_control"]),
        f"{row['macs'] * rate / 1e9:.3g}",
        percent(row["of_peak"]),
        f"{row['peak_memory'] / 1e9:.2f}",
    ]


def part_table(rows: Sequence[Row]) -> list[str]:
    """A Markdown table of what surrounds the networks."""
    cells = []
    for row in (row for row in rows if row["group"] == "pipeline"):
        counts = [str(row.get(name, "")) for name in ("needed", "value")]
        time = [f"{row['in_a_run']:.3g}"] if "in_a_run" in row else [row["failure"]]
        share = [percent(row["of_epoch"])] if "of_epoch" in row else []
        cells.append([row["part"], row["once_in"], *counts, *time, *share])
    if not cells:
        return []
    shape = next(f"{r['frames']} x {r['size']} x {r['size']}" for r in rows if "frames" in r)
    heading = f"## Pipeline, with the default settings of `train()` and samples of {shape}"
    return ["", heading, "", *table(PART_HEADS, cells)]


def growth_table(rows: Sequence[Row]) -> list[str]:
    """A Markdown table of how cost grows."""
    memory = growth(rows, "peak_memory")
    cells = [
        [
            AXES[axis],
            label,
            ", ".join(f"{value:g}" for value in points),
            ", ".join(milliseconds(seconds) for seconds in points.values()),
            f"{exponent(points):.2f}",
            ", ".join(
                f"{value / 1e9:.2f}" for value in memory.get(axis, {}).get(label, {}).values()
            ),
        ]
        for axis, calls in growth(rows).items()
        for label, points in calls.items()
    ]
    heading = ["", "## Growth of cost", "", OF_GROWTH, ""]
    return [*heading, *table(GROWTH_HEADS, cells)] if cells else []


def growth(rows: Sequence[Row], cost: str = "seconds") -> dict[str, dict[str, dict[float, float]]]:
    """{what varies: {call: {value: cost}}}, for calls with at least two values; `cost`: "seconds",
    or "peak_memory" in bytes."""
    found: dict[str, dict[str, dict[float, float]]] = {axis: {} for axis in AXES}
    for row in rows:
        if row["group"] == "growth" and row.get(cost) is not None:
            label = row["part"] if "part" in row else f"`{row['model']}`, {row['mode']}"
            found[row["axis"]].setdefault(label, {})[row["value"]] = row[cost]
    fitted = {
        axis: {label: points for label, points in calls.items() if len(points) > 1}
        for axis, calls in found.items()
    }
    return {axis: calls for axis, calls in fitted.items() if calls}


def exponent(points: Mapping[float, float]) -> float:
    """p of seconds = c value^p, by least squares of the logarithms."""
    values, seconds = np.log(list(points)), np.log(list(points.values()))
    return float(np.polyfit(values, seconds, 1)[0])


def milliseconds(seconds: float, spread: float = math.nan) -> str:
    """ "12.3 ± 0.4": milliseconds with three digits; without the spread if that is NaN."""
    digits = max(0, 2 - math.floor(math.log10(1e3 * seconds)))
    text = f"{1e3 * seconds:.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {1e3 * spread:.{digits}f}"


def multiple(ratio: float) -> str:
    """ "1.30x": how many times as fast; "" if that is NaN."""
    return "" if math.isnan(ratio) else f"{ratio:.{2 if ratio >= 0.1 else 3}f}x"


def percent(share: float) -> str:
    """ "12 %" or "1.2 %": a share with at least two digits."""
    return f"{100 * share:.0f} %" if share > 0.1 else f"{100 * share:.2g} %"


@default_style
def benchmark_figure(rows: Sequence[Row]) -> Figure:
    """Bars of the speeds beside the control, and lines of the growth of cost."""
    bars = [row for row in rows if row["group"] == "speed" and row["model"] != CONTROL]
    bars = [row for row in bars if not math.isnan(row.get("of_control", math.nan))]
    calls = growth(rows)
    heights = [1.4 + 0.13 * len(bars), 3.8 if calls else 0.1]
    figure = Figure(figsize=(13, sum(heights)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(r["precision"] for r in bars))}
    for axis, mode in zip(upper.subplots(1, len(MODES)), MODES, strict=True):
        draw_speeds(axis, [row for row in bars if row["mode"] == mode], colours)
        axis.set_title(f"speed in {mode}, as a multiple of the control's", fontsize=10)
        axis.set_ylabel("network, init_features", fontsize=9)
    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    upper.legend(handles=handles, loc="outside lower center", ncols=len(handles) or 1, fontsize=8)
    if calls:
        axes = lower.subplots(1, len(calls), squeeze=False)[0]
        for axis, (name, lines) in zip(axes, calls.items(), strict=True):
            if name != "samples" and axis is not axes[0]:
                axis.sharey(axes[0])
            draw_growth(axis, lines)
            axis.set_xlabel(AXES[name], fontsize=9)
        axes[0].set_ylabel("ms a call", fontsize=9)
    return figure


def draw_speeds(axis: Axes, rows: Sequence[Row], colours: Mapping[str, str]) -> None:
    """Bars from 1, the speed of the control, on a logarithmic axis; together for a network."""
    labels = [f"{row['model']}, {row['control_width']}" for row in rows]
    groups, names = list(dict.fromkeys(labels)), list(colours)
    height = 0.8 / max(1, len(names))
    for label, row in zip(labels, rows, strict=True):
        ratio, name = row["of_control"], row["precision"]
        place = groups.index(label) + height * (names.index(name) - (len(names) - 1) / 2)
        axis.barh(place, ratio - 1, left=1, color=colours[name], height=0.9 * height)
        axis.annotate(
            multiple(ratio), (ratio, place), (3 if ratio >= 1 else -3, 0), fontsize=8,
            textcoords="offset points", ha="left" if ratio >= 1 else "right", va="center",
        )  # fmt: skip
    axis.set_yticks(range(len(groups)), groups, fontsize=9)
    axis.invert_yaxis()
    axis.axvline(1, color="0.3", linewidth=1)
    ratios = [1.0, *(row["of_control"] for row in rows)]
    axis.set(xscale="log", xlim=(min(ratios) / 1.6, max(ratios) * 1.6))  # room for the numbers
    plain_ticks(axis.xaxis, TICKS)
    axis.grid(alpha=0.3, axis="x")
    axis.set_axisbelow(True)


def draw_growth(axis: Axes, calls: Mapping[str, Mapping[float, float]]) -> None:
    """Milliseconds of each call, on logarithmic axes, and the fitted exponents."""
    names = list(dict.fromkeys(label.split(",")[0] for label in calls))
    for label, points in calls.items():
        axis.plot(
            list(points), [1e3 * seconds for seconds in points.values()], marker="o", markersize=4,
            color=f"C{names.index(label.split(',')[0])}",
            linestyle="--" if label.endswith(INFERENCE) else "-",
            label=f"{label.replace('`', '')}: {exponent(points):.2f}",
        )  # fmt: skip
    axis.set(xscale="log", yscale="log")
    plain_ticks(axis.xaxis, sorted({value for points in calls.values() for value in points}))
    plain_ticks(axis.yaxis, TICKS)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    axis.legend(
        fontsize=7, title="exponents", title_fontsize=7, loc="lower center",
        bbox_to_anchor=(0.5, 1), handlelength=3.5,
    )  # fmt: skip


def plain_ticks(axis: Axis, ticks: Sequence[float]) -> None:
    """Ticks at these values only, as plain numbers."""
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
