import re

import pytest
from forked import Command

import tables
from metrics import SCORES
from report.page import render
from tables import as_markdown, finished, more_tables, run_tables, runs_page
from training.run_folder import (
    HISTORY,
    LESIONS,
    METRICS,
    REPORT,
    read_config,
    write_config,
    write_metrics,
)
from util.errors import InputError
from util.files import read_csv, write_csv


def save_run(folder, model: str, psnr: float, baseline: float = 22.0, accelerations=(6,)):
    """A finished run of two test samples."""
    folder.mkdir()
    data = {"groups": None, "hash": "abc"}
    write_config(folder, {"settings": {"split": [1, 1, 1]}, "data": data})
    rows = [
        {"sample": sample, "acc": acc, "method": method}
        | dict.fromkeys(SCORES, 0.5)
        | {"psnr": value + sample}
        for acc in accelerations
        for sample in (0, 1)
        for method, value in ((model, psnr), ("zero_filled", baseline))
    ]
    write_metrics(folder, rows)
    return folder


def test_one_row_for_each_network_and_one_for_a_shared_baseline(tmp_path):
    first = save_run(tmp_path / "a", "unet", 28.0)
    second = save_run(tmp_path / "b", "cascade", 36.0)
    (table,) = run_tables([first, second], ["psnr", "ssim"])
    assert table.markdown() == [
        "| method | PSNR (dB) | SSIM (3-D) |",
        "|---|---|---|",
        "| `cascade`, b | 36.50 ± 0.71 | 0.500 ± 0.000 |",
        "| `unet`, a | 28.50 ± 0.71 | 0.500 ± 0.000 |",
        "| `zero_filled` | 22.50 ± 0.71 | 0.500 ± 0.000 |",
    ]


def test_tables_are_printed_as_latex(tmp_path, monkeypatch, capsys):
    folder = save_run(tmp_path / "a_b", "unet", 28.0)
    monkeypatch.setattr("sys.argv", ["tables.py", str(folder), "--latex"])
    tables.from_command_line()
    printed = capsys.readouterr().out
    assert printed.startswith("% needs \\usepackage{booktabs}\n\n\\begin{table}")
    assert r"\texttt{unet}, a\_b & 28.50 $\pm$ 0.71" in printed
    assert printed.count(r"\begin{tabular}") == printed.count(r"\end{tabular}") == 2


def test_an_absent_score_comes_after_the_worst(tmp_path):
    worst = save_run(tmp_path / "a", "unet", -9.0)
    absent = save_run(tmp_path / "b", "cascade", float("nan"))
    (table,) = run_tables([absent, worst], ["psnr"])
    assert [row[0] for row in table.rows] == ["`zero_filled`", "`unet`, a", "`cascade`, b"]


def test_a_baseline_with_other_scores_keeps_its_run(tmp_path):
    first = save_run(tmp_path / "a", "unet", 28.0)
    second = save_run(tmp_path / "b", "unet", 28.0, baseline=25.0)
    text = as_markdown(run_tables([first, second]))
    assert "| `zero_filled` | 22.50" in text
    assert "| `zero_filled`, b | 25.50" in text


def test_runs_of_one_name_are_told_apart(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    runs = [save_run(tmp_path / name / "run", "unet", 20.0 + i) for i, name in enumerate("abc")]
    (table,) = run_tables(runs)
    assert len(table.rows) == 3 + 1


def test_a_table_for_each_acceleration(tmp_path):
    tables = run_tables([save_run(tmp_path / "a", "unet", 28.0, accelerations=(10, 4))])
    assert [table.title for table in tables] == ["Acceleration 4", "Acceleration 10"]
    assert as_markdown(tables).startswith("Acceleration 4:\n\n| method |")


def test_the_advantage_over_the_best_training_free_method(tmp_path):
    first = save_run(tmp_path / "a", "unet", 28.0, accelerations=(4, 6))
    second = save_run(tmp_path / "b", "cascade", 21.0)
    (table,) = more_tables([first, second])
    title, _, heads, _, *lines = table.markdown()
    assert title == "Minus the best training-free method of each score:"
    assert heads.startswith("|  | PSNR (dB) | SSIM (3-D) |")
    same = "+0.000 (zero_filled)"
    assert lines[0].startswith(f"| unet, a, acceleration 4 | +6.00 (zero_filled) | {same} |")
    assert lines[2].startswith("| cascade, b, acceleration 6 | -1.00 (zero_filled) |")
    assert len(lines) == 3


def test_lesions_have_a_table_where_they_were_tested(tmp_path):
    folder = save_run(tmp_path / "a", "unet", 28.0)
    assert len(more_tables([folder])) == 1
    rows = [
        {"sample": sample, "acc": 6, "method": method, "diameter": 4.0, "contrast": 0.2}
        | {"frame": frame, "kept": kept + 0.1 * frame + 0.2 * sample, "ghost": float("nan")}
        for method, kept in (("unet", 0.5), ("view_sharing", 0.7))
        for sample in (0, 1)
        for frame in (0, 1)
    ]
    write_csv(folder / LESIONS, rows)
    *_, table = more_tables([folder])
    assert table.title == "Lesion test, a, acceleration 6: kept, worst, ghost"
    assert [list(row) for row in table.rows] == [
        ["view_sharing", "-", "0.85±0.14 0.80 -", "-", "-"],
        ["unet", "-", "0.65±0.14 0.60 -", "-", "-"],
    ]


def test_a_score_that_an_older_run_lacks_is_absent(tmp_path):
    folder = save_run(tmp_path / "a", "unet", 28.0)
    rows = read_csv(folder / METRICS)
    write_csv(folder / METRICS, [{k: v for k, v in row.items() if k != "ssim"} for row in rows])
    (table,) = run_tables([folder])
    assert [row[:3] for row in map(list, table.rows)] == [
        ["`unet`, a", "28.50 ± 0.71", "absent"],
        ["`zero_filled`", "22.50 ± 0.71", "absent"],
    ]
    (advantage,) = more_tables([folder])
    assert "SSIM (3-D)" not in advantage.heads


def test_runs_of_other_test_samples_have_tables_of_their_own(tmp_path):
    first = save_run(tmp_path / "a", "unet", 28.0)
    second = save_run(tmp_path / "b", "cascade", 36.0)
    config = read_config(second)
    config["data"]["hash"] = "other"
    write_config(second, config)
    assert [table.title for table in run_tables([first, second], ["psnr"])] == [
        "Tested on the same 2 samples: a", "Tested on the same 2 samples: b"
    ]  # fmt: skip


def test_unfinished_runs_are_named_with_the_way_on(tmp_path, capsys):
    done = save_run(tmp_path / "a", "unet", 28.0)
    half = save_run(tmp_path / "half done", "unet", 28.0)
    (half / "metrics.csv").unlink()
    assert finished([done, half]) == [done]
    error = capsys.readouterr().err
    assert "half done is unfinished and left out: continue it with python train.py '" in error
    with pytest.raises(InputError, match="no run is finished"):
        finished([half])


def test_folders_that_hold_no_run_are_named(tmp_path):
    (tmp_path / "scan").mkdir()
    with pytest.raises(InputError, match=r"scan is no folder of a run .config.json is missing"):
        finished([tmp_path / "scan"])
    (tmp_path / "scan" / "metrics.csv").write_text("series,method,psnr\n")
    with pytest.raises(InputError, match=r"the scores of reconstruct.py are in .*metrics.csv"):
        finished([tmp_path / "scan"])


def test_command(tmp_path):
    save_run(tmp_path / "a", "unet", 28.0)
    page = tmp_path / "page.html"
    done = Command("tables.py", ["a", "--html", page], tmp_path).finished()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| method | PSNR (dB) | SSIM (3-D) | SSIM (2-D) | moving PSNR")
    assert "| unet, a, acceleration 6 | +6.00" in done.stdout
    assert "28.50 ± 0.71" in page.read_text()
    csv = tmp_path / "a" / "metrics.csv"
    for arguments in ([tmp_path], ["--html", csv]):
        refused = Command("tables.py", ["a", *arguments], tmp_path).finished()
        assert refused.returncode == 2
        assert refused.stderr.startswith("tables.py: error: ")
        assert refused.stderr.count("\n") == 1
    assert csv.read_text().startswith("sample,")


def test_page_of_runs_has_tables_curves_settings_and_links(tmp_path):
    runs = [save_run(tmp_path / name, "unet", 28.0) for name in ("a", "<b>&")]
    (runs[0] / REPORT).write_text("")
    config = read_config(runs[1])
    write_config(runs[1], config | {"settings": config["settings"] | {"seed": 1}})
    history = [{"epoch": epoch, "validation/psnr": 27.0 + epoch} for epoch in (1, 2)]
    write_csv(runs[0] / HISTORY, history)
    tables = run_tables(runs)
    text = render(runs_page(runs, tables, tmp_path / "pages"))
    assert text.count("<table>") == 2
    assert re.findall('href="([^"]*)"', text) == ["../a/report.html"]
    assert "unet: 28.50 dB, +6.00 dB against the best training-free method (zero_filled" in text
    assert "tested on the same samples" in text
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text
    assert "Settings that differ" in text
    assert "polyline" in text
