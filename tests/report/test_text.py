from helpers import ROWS

from metrics import SCORES
from report.text import epoch_header, epoch_line, score_table, write_output
from training.run_folder import read_history


def test_table_is_mean_and_sample_standard_deviation():
    header, a, b = score_table(ROWS)
    assert header.split() == ["acceleration", "6", *(f"test/{name}" for name in SCORES)]
    assert "2.000 ± 1.414" in a
    assert "2.000 ± 0.000" in b


def test_epochs_without_validation_have_a_dash():
    line = epoch_line({"epoch": 3, "train/loss": 0.5, "learning_rate": 1e-3, "seconds": 2})
    assert line.split() == ["3", "5.000e-01", "-", "-", "-", "1.000e-03", "2.0"]
    assert len(line) == len(epoch_header())


def test_the_report_writes_its_epochs_as_a_table(tmp_path):
    history = [
        {"epoch": 1, "train/loss": 0.5, "learning_rate": 1e-3, "seconds": 2.0},
        {"epoch": 2, "train/loss": 0.2, "learning_rate": 1e-3, "seconds": 2.0},
    ]
    write_output(tmp_path, {"Data": ["some"]}, history)
    assert read_history(tmp_path) == history
    text = (tmp_path / "output.txt").read_text()
    assert text.startswith("Data\n  some\n\nTraining\n")
    assert "Caveats" not in text
