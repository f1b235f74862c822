import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import report
from errors import InputError

ROWS = [
    {"sample": sample, "acc": 6, "method": method, **dict.fromkeys(report.SCORES, value)}
    for sample, method, value in [(0, "a", 1.0), (0, "b", 2.0), (1, "a", 3.0), (1, "b", 2.0)]
]


def test_metrics_round_trip_and_means(tmp_path):
    report.write_metrics(tmp_path, ROWS)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[:2] == [
        "sample,acc,method,loss,psnr,ssim,ssim_2d,nmse,moving_psnr",
        "0,6,a,1,1,1,1,1,1",
    ]
    means = report.mean_scores(report.read_metrics(tmp_path))
    assert means == report.mean_scores(ROWS)
    assert means["a"] == means["b"] == dict.fromkeys(report.SCORES, 2.0)


def test_table_is_mean_and_sample_standard_deviation():
    header, a, b = report.score_table(ROWS)
    assert header.split() == ["acceleration", "6", *(f"test/{name}" for name in report.SCORES)]
    assert "2.000 ± 1.414" in a
    assert "2.000 ± 0.000" in b


def test_absent_and_single_scores():
    assert report.mean_and_spread(np.array([1.0, np.nan]), 2) == "absent"
    assert report.mean_and_spread(np.array([1.25]), 1) == "1.2"


def test_history_round_trip(tmp_path):
    assert report.read_history(tmp_path) == []
    history = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "validation/psnr": 30.0}]
    report.write_output(tmp_path, {"Data": ["some"]}, history)
    assert report.read_history(tmp_path) == history
    assert report.peak_memory(history) == 0
    (tmp_path / report.HISTORY).write_text("epoch,loss\n1,x\n")
    with pytest.raises(InputError, match=r"history\.csv is damaged"):
        report.read_history(tmp_path)


def test_epochs_without_validation_have_a_dash():
    line = report.epoch_line({"epoch": 3, "train/loss": 0.5, "learning_rate": 1e-3, "seconds": 2})
    assert line.split() == ["3", "5.000e-01", "-", "-", "-", "1.000e-03", "2.0"]
    assert len(line) == len(report.epoch_header())


def test_half_a_file_is_never_left(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    report.write_bytes(path, b"before")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.Path, "replace", fail)
    with pytest.raises(InputError, match=r"a\.txt could not be written \(No space left"):
        report.write_bytes(path, b"after")
    with pytest.raises(InputError, match=r"reconstructions\.npz could not be written"):
        report.write_arrays(tmp_path, {"index": np.arange(3)})
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": {}}', '{"settings": 3}'])
def test_damaged_config_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        report.read_config(tmp_path)


def test_row_of_the_profile_crosses_the_moving_region(tmp_path, images, monkeypatch):
    rows = []
    monkeypatch.setattr(
        report.figures, "profiles_figure", lambda profiles, frame, row: rows.append(row)
    )
    monkeypatch.setattr(report, "write_figure", lambda *a: None)
    target = images[0]
    report.write_pictures(tmp_path, 0, target, {"zero_filled": target}, "zero_filled", 50)
    moving = report.moving_region(torch.from_numpy(target)[None])[0]
    assert moving[rows[0]].sum() == moving.sum(dim=-1).max() > 0


def test_a_resumed_log_is_read_after_the_first_even_within_a_second(tmp_path):
    log = report.TensorBoard(tmp_path, {}, epoch=0)
    log.scalars({"loss": 1.0}, epoch=1)
    log.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.rename(path.with_name(path.name.rsplit(".", 2)[0] + ".99999999.0"))  # a later process
    log = report.TensorBoard(tmp_path, {}, epoch=1)
    log.scalars({"loss": 2.0}, epoch=2)
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 2.0)]
