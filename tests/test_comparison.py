import numpy as np
import pytest

import report
from comparison import (
    Comparison,
    advantages,
    bootstrap_interval,
    compare,
    read_result,
    spread,
)
from errors import InputError
from metrics import SCORES


def save_result(folder, psnr, settings=None, groups=None, accelerations=(6,), baseline=25.0):
    """A finished run: `psnr` of each test sample; the samples 0 and 1 are of the other parts."""
    folder.mkdir(parents=True)
    samples = list(range(2, 2 + len(psnr)))
    stored = {"split": (1, 1, len(psnr)), "model": "unet", "seed": 0, "real_image": True}
    config = {
        "settings": stored | (settings or {}),
        "versions": {"torch": "2"},
        "git_commit": "c0ffee",
        "data": {"source": "some", "shape": [9, 8, 32, 36], "hash": "abc", "groups": groups},
        "split": {"train": [0], "validation": [1], "test": samples},
        "parameters": 1234,
        "device": "cpu (1 threads)",
    }
    report.write_config(folder, config)
    rows = [
        dict.fromkeys(SCORES, 0.5)
        | {"sample": sample, "acc": acc, "method": method, "psnr": value + acc - 6}
        for acc in accelerations
        for sample, own in zip(samples, psnr, strict=True)
        for method, value in (("unet", own), ("zero_filled", 20.0), ("view_sharing", baseline))
    ]
    report.write_metrics(folder, rows)
    history = [
        {"epoch": 1, "train/loss": 0.1, "learning_rate": 1e-4, "seconds": 30.0, "peak_memory": 2e9},
        {"epoch": 2, "train/loss": 0.1, "learning_rate": 1e-4, "seconds": 60.0, "peak_memory": 1e9},
    ]
    report.write_output(folder, {}, history)
    return read_result(folder)


def test_result_is_what_the_run_left(tmp_path):
    result = save_result(tmp_path / "run", [30.0, 32.0], groups=["a", "b", "c", "c"])
    assert result.samples == [2, 3]
    assert result.scores["psnr"].tolist() == [30.0, 32.0]
    assert result.groups.tolist() == ["c", "c"]
    assert result.best_baseline == ("view_sharing", 25.0)
    assert result.minutes == 1.5
    assert result.peak_memory == 2e9


def test_accelerations_of_a_sample_are_averaged(tmp_path):
    result = save_result(tmp_path / "run", [30.0, 32.0], accelerations=(4, 6, 10))
    assert result.scores["psnr"] == pytest.approx([30 + 2 / 3, 32 + 2 / 3])


def test_seeds_are_averaged_before_samples_are_compared(tmp_path):
    row = {
        seed: save_result(tmp_path / f"row{seed}", psnr)
        for seed, psnr in enumerate(([31.0, 33.0, 35.0], [33.0, 35.0, 37.0]))
    }
    control = {
        seed: save_result(tmp_path / f"control{seed}", psnr)
        for seed, psnr in enumerate(([30.0, 32.0, 34.0], [30.0, 32.0, 34.0]))
    }
    found = compare(row, control, "psnr")
    assert found.mean == 34.0
    assert found.std == 2.0  # of 32, 34, 36, not of all six values
    assert found.seed_spread == pytest.approx(np.sqrt(2))
    assert (found.difference, found.low, found.high) == (2.0, 2.0, 2.0)  # the same for every sample
    assert found.tells(2)


def test_only_seeds_of_both_are_compared(tmp_path):
    row = {k: save_result(tmp_path / f"row{k}", [30.0 + k, 31.0 + k]) for k in (0, 1)}
    control = {1: save_result(tmp_path / "control", [31.0, 31.0])}
    found = compare(row, control, "psnr")
    assert found.mean == 31.0
    assert found.difference == 0.5  # of seed 1: (31, 32) against (31, 31)
    assert not found.tells(2)
    alone = compare(row, {}, "psnr")
    assert np.isnan([alone.difference, alone.low, alone.high]).all()
    assert not alone.tells(2)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(1.0, 2.0, size=40))
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 200 <= 0.98  # a little less than 95 %, as with few samples


def test_interval_is_the_same_every_time_and_holds_the_mean():
    values = np.array([0.1, 0.5, -0.2, 0.4])
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert values.min() <= low < values.mean() < high <= values.max()


def test_groups_are_drawn_whole():
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 10)
    groups = np.repeat(["a", "b", "c", "d"], 10)
    alone, together = bootstrap_interval(values), bootstrap_interval(values, groups)
    assert together == bootstrap_interval(np.array([0.0, 1.0, 2.0, 3.0]))
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_a_single_sample_or_patient_has_no_interval():
    assert np.isnan(bootstrap_interval(np.array([1.0]))).all()
    assert np.isnan(bootstrap_interval(np.array([1.0, 2.0]), ["a", "a"])).all()


def metrics(acc: float, **methods) -> list[dict]:
    """Rows of `metrics.csv` from (psnr, ssim) of every sample, by method."""
    return [
        {"sample": str(i), "acc": acc, "method": method, "psnr": psnr, "ssim": ssim}
        | {"moving_psnr": psnr}
        for method, values in methods.items()
        for i, (psnr, ssim) in enumerate(values)
    ]


def test_advantage_is_over_the_best_training_free_method_of_each_score():
    rows = metrics(
        6, cascade=[(35.0, 0.9), (37.0, 0.9)],
        kt_sparse=[(34.0, 0.6), (34.0, 0.6)], temporal_tv=[(33.0, 0.8), (33.0, 0.8)],
    )  # fmt: skip
    rows += metrics(10, cascade=[(30.0, 0.5)], kt_sparse=[(31.0, 0.5)])
    found = {(a.acc, a.score): a for a in advantages(rows)}
    assert len(found) == 6
    of_psnr, of_ssim = found[6, "psnr"], found[6, "ssim"]
    assert (of_psnr.network, of_psnr.best, of_psnr.difference) == ("cascade", "kt_sparse", 2.0)
    assert (of_psnr.low, of_psnr.high) == (1.0, 3.0)
    assert (of_ssim.best, of_ssim.difference) == ("temporal_tv", pytest.approx(0.1))
    assert found[10, "psnr"].difference == -1.0
    assert np.isnan(found[10, "psnr"].low)


def test_advantage_heeds_patients_and_needs_a_training_free_method():
    rows = metrics(6, unet=[(30.0, 0.5), (32.0, 0.5), (34.0, 0.5)], zero_filled=[(30.0, 0.5)] * 3)
    apart = next(advantages(rows, [7, 8, 9]))
    together = next(advantages(rows, [7, 8, 8]))
    assert (apart.low, apart.high) == (0.0, 4.0)
    assert (together.low, together.high) == (0.0, 3.0)
    assert list(advantages(metrics(6, unet=[(30.0, 0.5)]))) == []


def test_spread_of_one_value_is_unknown():
    assert np.isnan(spread(np.array([1.0])))
    assert spread(np.array([1.0, 3.0])) == pytest.approx(np.sqrt(2))


def test_a_run_of_another_version_is_refused(tmp_path):
    save_result(tmp_path / "run", [30.0])
    config = report.read_config(tmp_path / "run")
    del config["parameters"]
    report.write_config(tmp_path / "run", config)
    with pytest.raises(InputError, match="made by another version"):
        read_result(tmp_path / "run")


def test_a_difference_that_is_shown_as_zero_tells_nothing():
    found = Comparison(30.0, 1.0, 0.1, difference=0.004, low=0.003, high=0.006)
    assert not found.tells(2)
    assert found.tells(3)
    assert not Comparison(30.0, 1.0, 0.1, 0.5, float("nan"), float("nan")).tells(2)
