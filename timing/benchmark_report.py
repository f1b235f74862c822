"""The results of a benchmark as Markdown tables and CSV."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from report.tables import Table
from timing.speed import CONTROL, MODES, Timing
from util.files import as_bytes, write_bytes, write_csv

TABLES, VALUES = FILES = ("benchmark.md", "benchmark.csv")
SPEED_HEADS = ["network", "precision", "ms a sample", "samples/s", "speed", "GMAC/s", "GB"]
GROWTH_HEADS = ["what varies", "network", "values", "ms a call", "exponent", "GB"]
MEANING = """\
Times: median ± half the interquartile range of repeated calls, after a warm-up. A training step is
forward, loss, backward and the step of Adam, on a batch that is on the device; an inference is a
forward pass in evaluation mode. Speed: how many times as fast as the control, a plain float32
network of the reference's shape in torch's default layout: two U-Nets and a residual network at
half resolution (`timing/control.py`). GMAC/s: multiply-accumulates of convolutions and matrix
products, in training three times those of a forward pass. GB: peak memory of a process that does
nothing else, on a CPU with all libraries, on a GPU of tensors alone."""
OF_GROWTH = """\
Batch size 1, unless it varies. Seconds go as the power `exponent` of what varies (least squares of
the logarithms)."""


def write_report(folder: Path, rows: Sequence[Timing], facts: Sequence[str]) -> None:
    """Write the tables and values of what has been measured; `facts`: the first lines."""
    lines = ["# Benchmark", "", *facts, "", *MEANING.splitlines()]
    lines += speed_tables(rows) + growth_table(rows)
    write_bytes(folder / TABLES, as_bytes("\n".join(lines) + "\n"))
    write_csv(folder / VALUES, rows)


def speed_tables(rows: Sequence[Timing]) -> list[str]:
    """A Markdown table for each mode, beside the control."""
    lines = []
    for mode in MODES:
        here = [row for row in rows if row["mode"] == mode and not row["varies"]]
        control = next((row for row in here if row["model"] == CONTROL), {})
        cells = [speed_cells(row, control.get("seconds", math.nan)) for row in here]
        lines += ["", f"## {mode.capitalize()}", "", *Table(SPEED_HEADS, cells).markdown()]
    return lines


def speed_cells(row: Timing, control_seconds: float) -> list[str]:
    """The cells of a network in a table of speeds."""
    cells = [f"`{row['model']}`", row["precision"]]
    if "failure" in row:
        return [*cells, row["failure"]]
    n, seconds = row["batch_size"], row["seconds"]
    return [
        *cells,
        milliseconds(seconds / n, row["spread"] / n),
        f"{n / seconds:.3g}",
        "" if math.isnan(control_seconds) else f"{control_seconds / seconds:#.3g}x",
        f"{row['macs'] * n / seconds / 1e9:.3g}",
        f"{row['peak_memory'] / 1e9:.2f}",
    ]


def growth_table(rows: Sequence[Timing]) -> list[str]:
    """A Markdown table of how time and memory grow; calls with a single value are left out."""
    lines: dict[tuple[str, str], list[Timing]] = {}
    for row in (row for row in rows if row["varies"] and "failure" not in row):
        network = f"`{row['model']}`, {row['mode']}"
        lines.setdefault((row["varies"], network), []).append(row)
    cells = []
    for (axis, network), points in lines.items():
        if len(points) > 1:
            values, seconds = ([row[key] for row in points] for key in (axis, "seconds"))
            power, _ = np.polyfit(np.log(values), np.log(seconds), 1)
            memory = ", ".join(f"{row['peak_memory'] / 1e9:.2f}" for row in points)
            times = ", ".join(map(milliseconds, seconds))
            texts = [", ".join(map(str, values)), times, f"{power:.2f}", memory]
            cells.append([axis.replace("_", " "), network, *texts])
    heading = ["", "## Growth of cost", "", *OF_GROWTH.splitlines(), ""]
    return [*heading, *Table(GROWTH_HEADS, cells).markdown()] if cells else []


def milliseconds(seconds: float, spread: float = math.nan) -> str:
    """ "12.3 ± 0.4": milliseconds with three digits; without the spread if that is NaN."""
    digits = max(0, 2 - math.floor(math.log10(1e3 * seconds)))
    text = f"{1e3 * seconds:.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {1e3 * spread:.{digits}f}"
