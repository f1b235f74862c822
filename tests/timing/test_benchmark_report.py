from timing.benchmark_report import growth_table, speed_tables

SETUP = {"precision": "float32", "batch_size": 2, "size": 192}
TIMES = {"seconds": 0.5, "spread": 0.02, "macs": 5e9, "peak_memory": 1e9}
ROWS = [
    {"varies": "", **SETUP, "model": model, "mode": mode, **measured}
    for mode in ("inference", "training")
    for model, measured in (
        ("control", TIMES),
        ("unet", TIMES | {"seconds": 0.4}),
        ("cnn3d", {"failure": "no memory"}),
    )
]
GROWTH = [
    {"varies": "size", **SETUP, "size": n, "model": "unet", "mode": "training"}
    | {"seconds": 1e-6 * n**2, "peak_memory": 1e7 * n}
    for n in (48, 96, 192)
]


def test_a_table_of_speeds_for_each_mode():
    lines = speed_tables(ROWS)
    assert lines[1] == "## Inference"
    assert lines[5:8] == [
        "| `control` | float32 | 250 ± 10 | 4 | 1.00x | 20 | 1.00 |",
        "| `unet` | float32 | 200 ± 10 | 5 | 1.25x | 25 | 1.00 |",
        "| `cnn3d` | float32 | no memory |  |  |  |  |",
    ]
    assert lines[9] == "## Training"
    without_control = speed_tables(ROWS[1:2])
    assert without_control[5] == "| `unet` | float32 | 200 ± 10 | 5 |  | 25 | 1.00 |"


def test_a_table_of_growth_with_the_exponent():
    alone, failed = GROWTH[0] | {"varies": "frames"}, GROWTH[0] | {"failure": "no memory"}
    assert growth_table([*GROWTH, alone, failed])[8:] == [
        "| size | `unet`, training | 48, 96, 192 | 2.30, 9.22, 36.9 | 2.00 | 0.48, 0.96, 1.92 |",
    ]
    assert growth_table(ROWS) == []
