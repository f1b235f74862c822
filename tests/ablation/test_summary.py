import csv

import pytest
from helpers import save_result
from PIL import Image

from ablation.groups import Experiment
from ablation.summary import write_report


def row(tmp_path, group, name, *psnr, failure="", **how) -> Experiment:
    """A row whose seeds scored `psnr`, a list of samples each."""
    results = {
        seed: save_result(tmp_path / group / name / f"seed{seed}", values, **how)
        for seed, values in enumerate(psnr)
    }
    return Experiment(group, name, {}, tmp_path, results, failure)


@pytest.fixture
def rows(tmp_path) -> list[Experiment]:
    return [
        row(tmp_path, "batch_norm", "with batch norm", 2 * [30, 31, 32], 2 * [30.2, 31.2, 32.2]),
        row(tmp_path, "batch_norm", "without", 2 * [29, 31, 31], 2 * [28.8, 30.8, 30.8]),
        row(tmp_path, "cnn3d", "unet", [30.0, 31.0, 32.0]),
        row(tmp_path, "cnn3d", "3-D U-Net", failure="out of memory"),
        row(tmp_path, "memory", "unet, batch 1", [30.0]),
        row(tmp_path, "memory", "cnn3d, batch 10", failure="not run: 99 GB counted"),
        row(tmp_path, "refiner", "unet", [30.0, 31.0, 32.0]),  # alone: nothing to compare
    ]


def test_tables_say_mean_spread_and_difference(tmp_path, rows):
    write_report(tmp_path, rows, {"num_epochs": 2})
    text = (tmp_path / "experiments.md").read_text()
    assert "`--num-epochs 2`" in text
    assert "1 train, 1 validation, 6 test samples" in text
    assert "mean over samples [95 % t interval, none for fewer than 3 samples]" in text
    lines = {line.split(" | ")[0]: line.split(" | ") for line in text.splitlines()}
    control, changed = lines["| with batch norm"], lines["| without"]
    assert control[1:3] == ["31.10 ± 0.89", ""]
    assert changed[1] == "30.23 ± 1.03"
    assert changed[2] == "**-0.87 [-1.41, -0.32]**"  # -1.2, -0.2 and -1.2 by sample
    assert control[7:] == ["2", "0.14", "1.5", "2.00", "1,234", "view_sharing 25.00 |"]
    assert lines["| 3-D U-Net"][1].startswith("out of memory")
    assert lines["| unet, batch 1"][1:] == ["2.00", "90 |"]
    assert lines["| cnn3d, batch 10"][1].startswith("not run: 99 GB")
    assert "(`refiner`)" not in text


def test_one_table_holds_all_groups(tmp_path, rows):
    write_report(tmp_path, rows, {})
    lines = (tmp_path / "experiments.md").read_text().splitlines()
    first = lines.index("## All groups") + 4
    assert lines[first : first + 4] == [
        "| `batch_norm` | with batch norm | 31.10 ± 0.89 |  | 0.500 | 0.50 |",
        "|  | without | 30.23 ± 1.03 | **-0.87 [-1.41, -0.32]** | 0.500 | 0.50 |",
        "| `cnn3d` | unet | 31.00 ± 1.00 |  | 0.500 | 0.50 |",
        "|  | 3-D U-Net | out of memory |  |  |  |",
    ]
    assert lines[first + 4] == ""  # memory is not compared


def test_values_are_a_line_for_each_row_and_score(tmp_path, rows):
    write_report(tmp_path, rows, {})
    with (tmp_path / "experiments.csv").open(newline="") as file:
        values = list(csv.DictReader(file))
    (found,) = [v for v in values if (v["row"], v["score"]) == ("without", "psnr")]
    assert float(found["difference"]) == pytest.approx(-13 / 15)
    assert (found["n_samples"], found["n_units"], found["n_seeds"]) == ("6", "6", "2")
    assert float(found["best_baseline_psnr"]) == 25
    assert {v["group"] for v in values} == {"batch_norm", "cnn3d", "memory"}


def test_figure_has_a_line_for_every_row(tmp_path, rows):
    write_report(tmp_path, rows, {})
    with Image.open(tmp_path / "experiments.png") as picture:
        low = picture.size
    write_report(tmp_path, rows[:2], {})
    with Image.open(tmp_path / "experiments.png") as picture:
        assert picture.size[0] == low[0]
        assert picture.size[1] < low[1]


def test_intervals_are_over_patients_where_these_are_known(tmp_path):
    groups = ["x", "y", "a", "a", "b"]
    rows = [
        row(tmp_path, "batch_norm", "with batch norm", [30.0, 31.0, 32.0], groups=groups),
        row(tmp_path, "batch_norm", "without", [29.0, 31.0, 31.0], groups=groups),
    ]
    write_report(tmp_path, rows, {})
    text = (tmp_path / "experiments.md").read_text()
    assert "mean over patients [95 % t interval" in text
    assert "| -0.75 |" in text  # of two patients: no interval


def test_nothing_is_written_of_nothing(tmp_path):
    write_report(tmp_path, [Experiment("cnn3d", "3-D U-Net", {}, tmp_path, failure="no")], {})
    assert list(tmp_path.iterdir()) == []
