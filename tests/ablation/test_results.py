import numpy as np
import pytest
from helpers import save_result

from ablation.results import compare, read_result
from evaluation.intervals import NOTHING, Interval
from training.run_folder import read_config, write_config
from util.errors import InputError


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
    assert found.difference == Interval(2.0, 2.0, 2.0, 3)  # the same for every sample


def test_only_seeds_of_both_are_compared(tmp_path):
    row = {k: save_result(tmp_path / f"row{k}", [30.0 + k, 31.0 + k]) for k in (0, 1)}
    control = {1: save_result(tmp_path / "control", [31.0, 31.0])}
    found = compare(row, control, "psnr")
    assert found.mean == 31.0
    assert found.difference.mean == 0.5  # of seed 1: (31, 32) against (31, 31)
    assert compare(row, {}, "psnr").difference is NOTHING


def test_a_run_of_another_version_is_refused(tmp_path):
    save_result(tmp_path / "run", [30.0])
    config = read_config(tmp_path / "run")
    del config["parameters"]
    write_config(tmp_path / "run", config)
    with pytest.raises(InputError, match="made by another version"):
        read_result(tmp_path / "run")
