import numpy as np
import pytest
from scipy import stats

from evaluation.intervals import advantages, mean_interval, paired_differences, spread, t_quantile
from metrics import SCORES

SLICES = {  # of each patient
    "one": lambda n: np.ones(n, int),
    "one or two": lambda n: 1 + (np.arange(n) % 4 == 0),
    "uneven": lambda n: np.where(np.arange(n) % 3 == 0, 10, 1),
}


@pytest.mark.parametrize("n_patients", [3, 4, 6, 9, 20, 40])
@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("patient_spread", [0.0, 1.0, 10.0])  # relative to that within a patient
def test_intervals_hold_their_level(n_patients, slices, patient_spread):
    """95 % of the intervals cover the truth; where slices dominate and are uneven, more."""
    rng = np.random.default_rng(0)
    counts = SLICES[slices](n_patients)
    groups = np.repeat(np.arange(n_patients), counts)
    covered = 0
    for _ in range(1000):
        effects = patient_spread * rng.standard_normal(n_patients)
        values = 1.0 + effects[groups] + rng.standard_normal(len(groups))
        interval = mean_interval(values, groups)
        covered += interval.low <= 1.0 <= interval.high
    assert 930 <= covered <= 990  # three standard errors of 950 below


@pytest.mark.parametrize("n_patients", [1, 2])
def test_fewer_than_three_patients_have_no_interval(n_patients):
    interval = mean_interval(np.arange(4.0), np.arange(4) % n_patients)
    assert interval.mean == 1.5
    assert np.isnan([interval.low, interval.high]).all()
    assert not interval.excludes_zero(2)


def test_quantiles_are_those_of_student():
    for freedom in (1, 2, 3, 5, 8, 20, 100):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)


def test_a_patient_counts_once_whatever_its_number_of_slices():
    interval = mean_interval(np.array([0.0, 0.0, 0.0, 1.0, 2.0]), ["a", "a", "a", "b", "c"])
    assert interval == mean_interval(np.array([0.0, 1.0, 2.0]))
    assert (interval.mean, interval.n_units) == (1.0, 3)
    assert interval.high - 1 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-5)


def test_a_difference_is_clear_from_six_patients_on_if_it_is_not_shown_as_zero():
    assert mean_interval(np.linspace(1, 1.1, 6)).excludes_zero(2)
    assert not mean_interval(np.linspace(1, 1.1, 5)).excludes_zero(2)
    assert not mean_interval(np.linspace(-1, 1, 6)).excludes_zero(2)
    assert not mean_interval(np.linspace(0.003, 0.004, 6)).excludes_zero(2)
    assert mean_interval(np.linspace(0.003, 0.004, 6)).excludes_zero(3)


def metrics(acc: float, **methods) -> list[dict]:
    """Rows of `metrics.csv` from (psnr, ssim) of every sample, by method."""
    return [
        dict.fromkeys(SCORES, np.nan)
        | {"sample": str(i), "acc": acc, "method": method}
        | {"psnr": psnr, "ssim": ssim, "moving_psnr": psnr}
        for method, values in methods.items()
        for i, (psnr, ssim) in enumerate(values)
    ]


def test_advantage_is_over_the_best_training_free_method_of_each_score():
    rows = metrics(
        6, cascade=[(35.0, 0.9), (37.0, 0.9)],
        kt_sparse=[(34.0, 0.6), (34.0, 0.6)], temporal_tv=[(33.0, 0.8), (33.0, 0.8)],
    )  # fmt: skip
    rows += metrics(10, cascade=[(30.0, 0.5)], kt_sparse=[(31.0, 0.5)])
    found = {(d.condition.acc, d.score): d for d in advantages(rows)}
    assert len(found) == 6
    of_psnr, of_ssim = found[6, "psnr"], found[6, "ssim"]
    assert (of_psnr.first, of_psnr.second, of_psnr.interval.mean) == ("cascade", "kt_sparse", 2.0)
    assert (of_ssim.second, of_ssim.interval.mean) == ("temporal_tv", pytest.approx(0.1))
    assert found[10, "psnr"].interval.mean == -1.0
    assert np.isnan(found[10, "psnr"].interval.low)


def test_advantage_is_over_patients_and_needs_a_training_free_method():
    rows = metrics(6, unet=[(30.0, 0.5), (32.0, 0.5), (34.0, 0.5)], zero_filled=[(30.0, 0.5)] * 3)
    apart = advantages(rows, [7, 8, 9])[0].interval
    together = advantages(rows, [7, 8, 8])[0].interval
    assert (apart.mean, apart.n_units) == (2.0, 3)
    assert (together.mean, together.n_units) == (1.5, 2)
    assert apart.low < 2 < apart.high
    assert advantages(metrics(6, unet=[(30.0, 0.5)])) == []


def test_spread_of_one_value_is_unknown():
    assert np.isnan(spread(np.array([1.0])))
    assert spread(np.array([1.0, 3.0])) == pytest.approx(np.sqrt(2))


def test_any_two_methods_are_compared_on_the_same_samples():
    rows = metrics(6, mine=[(30.0, 0.5), (33.0, 0.7)], other=[(29.0, 0.5), (31.0, 0.5)])
    of_psnr, of_ssim = paired_differences(rows, "mine", "other", scores=("psnr", "ssim"))
    assert (of_psnr.first, of_psnr.second, of_psnr.interval.mean) == ("mine", "other", 1.5)
    assert of_ssim.interval.mean == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"same samples, found \[0, 1\] and \[0\]"):
        paired_differences(rows[:-1], "mine", "other")
    with pytest.raises(ValueError, match=r"found \[\] and \[0, 1\]"):
        paired_differences(rows, "yours", "other")
