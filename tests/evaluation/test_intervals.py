import numpy as np
import pytest

from evaluation.intervals import advantages, bootstrap_interval, paired_differences, spread


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
    found = {(d.acc, d.score): d for d in advantages(rows)}
    assert len(found) == 6
    of_psnr, of_ssim = found[6, "psnr"], found[6, "ssim"]
    assert (of_psnr.first, of_psnr.second, of_psnr.mean) == ("cascade", "kt_sparse", 2.0)
    assert (of_psnr.low, of_psnr.high) == (1.0, 3.0)
    assert (of_ssim.second, of_ssim.mean) == ("temporal_tv", pytest.approx(0.1))
    assert found[10, "psnr"].mean == -1.0
    assert np.isnan(found[10, "psnr"].low)


def test_advantage_is_over_patients_and_needs_a_training_free_method():
    rows = metrics(6, unet=[(30.0, 0.5), (32.0, 0.5), (34.0, 0.5)], zero_filled=[(30.0, 0.5)] * 3)
    apart = advantages(rows, [7, 8, 9])[0]
    together = advantages(rows, [7, 8, 8])[0]
    assert (apart.low, apart.high) == (0.0, 4.0)
    assert (together.low, together.high) == (0.0, 3.0)
    assert advantages(metrics(6, unet=[(30.0, 0.5)])) == []


def test_spread_of_one_value_is_unknown():
    assert np.isnan(spread(np.array([1.0])))
    assert spread(np.array([1.0, 3.0])) == pytest.approx(np.sqrt(2))


def test_any_two_methods_are_compared_on_the_same_samples():
    rows = metrics(6, mine=[(30.0, 0.5), (33.0, 0.7)], other=[(29.0, 0.5), (31.0, 0.5)])
    of_psnr, of_ssim = paired_differences(rows, "mine", "other", scores=("psnr", "ssim"))
    assert (of_psnr.first, of_psnr.second, of_psnr.mean) == ("mine", "other", 1.5)
    assert (of_psnr.low, of_psnr.high) == (1.0, 2.0)
    assert of_ssim.mean == pytest.approx(0.1)
    with pytest.raises(ValueError, match="same samples, found 2 and 1"):
        paired_differences(rows[:-1], "mine", "other")
    with pytest.raises(ValueError, match="found 0 and 2"):
        paired_differences(rows, "yours", "other")
