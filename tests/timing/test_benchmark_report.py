import math

import pytest

from timing.benchmark_report import (
    FILES,
    benchmark_figure,
    exponent,
    growth_table,
    milliseconds,
    multiple,
    part_table,
    percent,
    speed_tables,
    write_report,
)
from util.files import read_csv

SIZES = {"width": 16, "batch_size": 2, "frames": 20, "size": 192}
SPEED = {"group": "speed", "control_width": 16, **SIZES, "precision": "float32"}
TIMES = {"seconds": 0.5, "spread": 0.02, "rounds": 5, "macs": 5e9, "of_peak": 0.3}
ROWS = [
    *(
        {**SPEED, "model": "control", "mode": mode, **TIMES, "of_control": 1, "peak_memory": 1e9}
        for mode in ("training", "inference")
    ),
    *(
        {**SPEED, "model": "unet", "mode": mode, **TIMES, "of_control": 1.3, "peak_memory": 2e9}
        for mode in ("training", "inference")
    ),
    *(
        {**SPEED, "model": "cnn3d", "mode": mode, "failure": "no memory"}
        for mode in ("training", "inference")
    ),
    *(
        {"group": "growth", "axis": "size", "value": n, "model": "unet", "mode": "training"}
        | {"seconds": 1e-6 * n**2, "peak_memory": 1e7 * n}
        for n in (48, 96, 192)
    ),
    *(
        {"group": "growth", "axis": "samples", "value": n, "part": "loading", "seconds": 0.1 * n}
        for n in (2, 4, 8)
    ),
    {"group": "growth", "axis": "width", "value": 8, "model": "unet", "mode": "training"}
    | {"failure": "no memory"},
    {"group": "pipeline", "part": "loading", "once_in": "a run", "needed": 200, "value": 8}
    | {"seconds": 0.2, "in_a_run": 5.0, "of_epoch": 0.05},
    {"group": "pipeline", "part": "masks", "once_in": "an epoch", "needed": 114, "value": 8}
    | {"failure": "no lines"},
]


def test_a_table_of_speeds_for_each_mode():
    lines = speed_tables(ROWS)
    assert lines[1] == "## Training, init_features 16, batch 2"
    assert lines[5:8] == [
        "| `control` | float32 | 250 ± 10 | 4 | 1.00x | 20 | 30 % | 1.00 |",
        "| `unet` | float32 | 250 ± 10 | 4 | 1.30x | 20 | 30 % | 2.00 |",
        "| `cnn3d` | float32 | no memory |  |  |  |  |  |",
    ]
    assert lines[9] == "## Inference, init_features 16, batch 2"


def test_a_table_of_the_pipeline():
    assert part_table(ROWS)[1].endswith("samples of 20 x 192 x 192")
    assert part_table(ROWS)[5:] == [
        "| loading | a run | 200 | 8 | 5 | 5 % |",
        "| masks | an epoch | 114 | 8 | no lines |  |",
    ]
    assert part_table([]) == []


def test_a_table_of_growth_with_the_exponent():
    assert growth_table(ROWS)[7:] == [
        "| lines and columns | `unet`, training | 48, 96, 192 | 2.30, 9.22, 36.9 | 2.00"
        " | 0.48, 0.96, 1.92 |",
        "| samples | loading | 2, 4, 8 | 200, 400, 800 | 1.00 |  |",
    ]
    assert growth_table(ROWS[:6]) == []


@pytest.mark.parametrize("power", [-1, 0, 1.5])
def test_the_exponent_of_a_power(power):
    assert exponent({n: 7 * n**power for n in (1, 3, 10)}) == pytest.approx(power)


def test_numbers_have_three_digits():
    assert milliseconds(0.0123456, 0.0005) == "12.3 ± 0.5"
    assert milliseconds(12.3) == "12300"
    assert milliseconds(1.23e-6) == "0.00123"
    assert [multiple(ratio) for ratio in (1.3, 12, 0.0123, math.nan)] == [
        "1.30x", "12.00x", "0.012x", ""
    ]  # fmt: skip
    assert [percent(share) for share in (1, 0.123, 0.0123)] == ["100 %", "12 %", "1.2 %"]


def test_the_figure_has_bars_from_the_control_and_lines_of_growth():
    figure = benchmark_figure(ROWS)
    upper, lower = figure.subfigs
    for axis in upper.axes:
        (bar,) = axis.patches
        assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((1, 1.3))
        assert [text.get_text() for text in axis.texts] == ["1.30x"]
    assert [axis.get_xlabel() for axis in lower.axes] == ["lines and columns", "samples"]
    (line,) = lower.axes[0].lines
    assert line.get_label() == "unet, training: 2.00"
    assert benchmark_figure([]).subfigs


def test_three_files_are_written(tmp_path):
    write_report(tmp_path, ROWS, ["Machine: none."])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert "\nMachine: none.\n" in (tmp_path / "benchmark.md").read_text()
    assert len(read_csv(tmp_path / "benchmark.csv")) == len(ROWS)
