import pytest
from helpers import ROWS

from evaluation.bench import Effort, Reference
from evaluation.lesion import DIAMETERS
from metrics import SCORES
from report.tables import Table, lesion_table, score_tables
from report.text import (
    as_text,
    epoch_header,
    epoch_line,
    kept_lines,
    reference_lines,
    time_line,
    verdict_lines,
)


def test_table_is_mean_and_sample_standard_deviation():
    (table,) = score_tables(ROWS, list(SCORES), differences=False)
    title, header, a, b = table.text()
    assert title == "Acceleration 6"
    assert header.startswith("method  MSE")
    assert a.split()[:5] == ["a", "2.00000", "2.00", "±", "1.41"]
    assert "2.00 ± 0.00" in b


def test_the_best_comes_first_and_an_absent_score_last():
    rows = rows_of(low=[20, 21], absent=[float("nan")] * 2, high=[30, 31], middle=[25, 26])
    (table,) = score_tables(rows)
    assert [row[0] for row in table.rows] == ["high", "middle", "low", "absent"]
    assert "The best PSNR comes first." in table.note


@pytest.mark.parametrize("method", ["hermitian_view_sharing", "unet"])
def test_tables_are_at_most_a_hundred_columns_wide(method):
    scores = {"loss": 0.1, "psnr": 39.0, "ssim": 0.9, "ssim_2d": 0.9, "nmse": 0.1}
    rows = [
        {"sample": i, "acc": 10.5, "method": method, **scores, "moving_psnr": 30.0 + i}
        for i in range(3)
    ]
    kept = [
        {"sample": i, "acc": 6, "method": method, "diameter": d, "kept": 0.9 + i / 9, "ghost": 0.1}
        for i in range(3)
        for d in DIAMETERS
    ]
    (table,) = score_tables(rows, list(SCORES), differences=False)
    text = as_text({"Test": [table, "word " * 50], "Lesions": [lesion_table(kept)], "Empty": []})
    assert max(map(len, text.splitlines())) <= 100
    for lines in (table.text(), lesion_table(kept).text()):
        assert len(lines) == 3  # in columns
    wide = Table(["method", "a", "b"], [["x", "word " * 12, "word " * 12]])
    assert wide.text()[0].startswith("x: a word word")


def rows_of(**methods) -> list[dict]:
    return [
        {"sample": i, "acc": 6, "method": name, **dict.fromkeys(SCORES, value)}
        for name, values in methods.items()
        for i, value in enumerate(values)
    ]


def test_the_verdict_sorts_the_methods_and_says_what_helps_a_network_that_is_behind():
    helping = ["this", "that"]
    ahead = verdict_lines(rows_of(zero_filled=[20, 21, 22], unet=[31, 32, 33]), None, helping)
    assert ahead[0] == (
        "acceleration 6, mean PSNR of 3 test samples in dB: unet 32.00, zero_filled 21.00"
    )
    assert ahead[1:] == ["unet minus zero_filled: +11.00 [11.00, 11.00] dB"]
    behind = verdict_lines(rows_of(kt_sparse=[36, 36, 36], unet=[31, 32, 33]), None, helping)
    assert "unet scores below the best training-free method" in behind[-1]
    assert behind[-1].endswith("Try: this; that")
    two = rows_of(kt_sparse=[36, 36, 36], unet=[31, 32, 33], unet_calibrated=[37, 37, 37])
    assert not any("scores below" in line for line in verdict_lines(two, None, helping))
    assert len(verdict_lines(rows_of(zero_filled=[20, 21]), None, helping)) == 1


def test_epochs_without_validation_have_a_dash():
    line = epoch_line({"epoch": 3, "train/loss": 0.5, "learning_rate": 1e-3, "seconds": 2}, None)
    assert line.split() == ["3", "5.000e-01", "-", "-", "-", "1.000e-03", "2.0"]
    assert len(line) == len(epoch_header(None))


def test_epochs_are_compared_with_the_best_training_free_method():
    entry = {"epoch": 3, "train/loss": 0.5, "learning_rate": 1e-3, "seconds": 12345.6}
    validated = entry | {f"validation/{name}": 9.5 for name in ("loss", "psnr", "ssim")}
    reference = Reference("kt_sparse", 35.87)
    header = epoch_header(reference)
    assert header.split()[3:5] == ["validation/psnr", "advantage"]
    for line, cells in (
        (epoch_line(validated, reference), ["9.500", "-26.37"]),
        (epoch_line(entry, reference), ["-", "-"]),
    ):
        assert line.split()[3:5] == cells
        assert len(line) == len(header) <= 100
    assert "advantage" not in epoch_header(None)
    assert "best training-free method, kt_sparse: 35.870" in reference_lines(reference)[0]


def test_times_say_what_was_cached():
    spent = {"search": Effort(30, 2, 1), "validation": Effort(30, 3, 0), "test": Effort(10, 0, 9)}
    history = [{"epoch": 1, "seconds": 40.0}, {"epoch": 2, "seconds": 60.0}]
    assert time_line(spent, history, 10.0, resumed=False) == (
        "search 60 s (1 of 6 results cached), training 1.7 min, test 10 s (all results cached)"
    )
    nothing = {name: Effort() for name in spent}
    assert time_line(nothing, [], 8.0, resumed=True) == (
        "search 0.0 s, test 8.0 s; search and test in the last call"
    )


def test_a_network_that_is_kept_below_the_training_free_method_is_named():
    psnr = [30.0, 31.0, 30.5]
    history = [{"epoch": i + 1, "validation/psnr": value} for i, value in enumerate(psnr)]
    (line,) = kept_lines([*history, {"epoch": 4}], Reference("kt_sparse", 33.25))
    assert "the network of epoch 2, which is kept, is 2.25 dB below kt_sparse" in line
    assert kept_lines(history, Reference("kt_sparse", 31.0)) == []
    assert kept_lines(history, None) == []
    # chosen by held-out lines, compared in PSNR
    held_out = [entry | {"validation/held_out": -entry["epoch"]} for entry in history]
    (line,) = kept_lines(held_out, Reference("kt_sparse", 33.25))
    assert "epoch 1, which is kept, is 3.25 dB below" in line
