"""The phantom is reproducible, kept for the next run, and as hard to reconstruct as real cine."""

import os
import re
import time

import numpy as np
import pytest
import torch
from helpers import sampling

from CS_mask import evaluation_masks
from methods.baselines import BASELINES
from metrics import moving_region, scores_of
from phantom import cached, scanner
from phantom.cached import load_phantom
from phantom.scanner import phantom
from physics.consistency import DataConsistency
from physics.fourier import undersample

SMALL = (5, 40, 48)

# Means over 32 real short-axis cine slices (20 frames of 192 x 192, maximum 1), undersampled with
# the evaluation masks of acc 6 and 10 centre lines: PSNR dB, 3-D SSIM, moving-region PSNR dB.
REAL = {
    "zero_filled": (23.1, 0.542, 20.6),
    "time_average": (33.0, 0.895, 24.1),
    "view_sharing": (33.9, 0.899, 26.5),
    "kt_sparse": (36.5, 0.946, 29.4),  # with the real-image prior
}
TOLERANCE = (2.5, 0.08, 2.5)


@pytest.fixture(scope="module")
def full_size():
    return phantom(6)


def test_seeds_and_samples_differ_and_a_seed_gives_the_same_again():
    first, second = both = phantom(2, SMALL, seed=0)
    other = phantom(1, SMALL, seed=1)[0]
    assert np.abs(first - second).mean() > 0.02
    assert np.abs(first - other).mean() > 0.02
    np.testing.assert_array_equal(phantom(2, SMALL, seed=0), both)
    np.testing.assert_array_equal(phantom(3, SMALL, seed=0)[:2], both)


def test_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    phantom(1, SMALL)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(7, 64, 48), (4, 65, 51), (1, 32, 32), (3, 48, 96)])
def test_any_shape_gives_float32_of_maximum_one(shape):
    samples = phantom(2, shape)
    assert samples.shape == (2, *shape)
    assert samples.dtype == np.float32
    assert samples.min() >= 0  # false for NaN too
    np.testing.assert_array_equal(samples.max(axis=(1, 2, 3)), 1)


def test_no_samples_is_an_empty_array():
    assert phantom(0, SMALL).shape == (0, *SMALL)


@pytest.mark.parametrize(
    ("n_samples", "shape", "seed"),
    [(-1, SMALL, 0), (1, (0, 40, 40), 0), (1, (5, 31, 40), 0), (1, (40, 40), 0), (1, SMALL, -1)],
)
def test_impossible_arguments_are_named(n_samples, shape, seed):
    found = re.escape(f"got n_samples={n_samples}, shape={shape}, seed={seed}")
    with pytest.raises(ValueError, match=found):
        phantom(n_samples, shape, seed)
    with pytest.raises(ValueError, match=found):
        load_phantom(n_samples, shape, seed)


def test_what_moves_is_near_the_middle(full_size):
    region = moving_region(torch.from_numpy(full_size)).float()  # (B, Y, X)
    middle = region[:, 48:144, 48:144].sum(dim=(-2, -1)) / region.sum(dim=(-2, -1))
    assert middle.mean() > 0.6  # of a quarter of the picture


@pytest.mark.parametrize(("ny", "nx"), [(32, 40), (33, 41)])
def test_scanner_drops_what_lies_beyond_its_kspace(ny, nx):
    y = torch.arange(2 * ny)[:, None] / (2 * ny)
    x = torch.arange(2 * nx) / (2 * nx)
    slow = torch.cos(2 * torch.pi * (5 * y + 7 * x))
    fast = torch.cos(2 * torch.pi * (20 * y + 3 * x)) + torch.cos(2 * torch.pi * 22 * x)
    image = scanner._in_band(slow + fast, ny, nx)  # it resolves 16 and 20 periods
    torch.testing.assert_close(image, slow[::2, ::2], rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", REAL)
def test_phantom_is_as_hard_as_real_cine(full_size, method):
    target = torch.from_numpy(full_size)
    mask = torch.from_numpy(evaluation_masks(range(6), (20, 192), sampling(6, 10), data_seed=0))
    baseline = BASELINES[method]
    measured = DataConsistency(undersample(target, mask), mask, baseline.real_image is None)
    reconstruction = baseline.reconstruct(measured, **baseline.usual).abs()
    scores = scores_of(reconstruction, target, ("psnr", "ssim", "moving_psnr"))
    for found, real, tolerance in zip(scores.values(), REAL[method], TOLERANCE, strict=True):
        assert found.mean().item() == pytest.approx(real, abs=tolerance)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the phantom in an empty cache."""
    monkeypatch.setenv("CINE_CACHE", str(tmp_path))
    return tmp_path / "phantom"


def test_cache_returns_the_same_bits_and_keeps_the_larger_phantom(folder, monkeypatch):
    load_phantom(1, SMALL)
    made = load_phantom(3, SMALL)
    np.testing.assert_array_equal(made, phantom(3, SMALL))
    monkeypatch.setattr(cached, "phantom", _must_not_run)
    np.testing.assert_array_equal(load_phantom(3, SMALL), made)
    np.testing.assert_array_equal(load_phantom(2, SMALL), made[:2])
    assert len(list(folder.iterdir())) == 1  # and no temporary file


def test_cache_keeps_seeds_and_shapes_apart(folder):
    shapes = SMALL, (5, 48, 40)
    for seed in (0, 1):
        for shape in shapes:
            made = load_phantom(1, shape, seed)
            np.testing.assert_array_equal(made, phantom(1, shape, seed))
    assert len(list(folder.iterdir())) == 4


def test_a_phantom_of_other_code_is_made_anew(folder, monkeypatch):
    load_phantom(1, SMALL)
    (before,) = folder.iterdir()
    np.save(before, np.zeros((1, *SMALL), np.float32))
    monkeypatch.setattr(cached, "CODE", "edited")
    np.testing.assert_array_equal(load_phantom(1, SMALL), phantom(1, SMALL))
    assert len(list(folder.iterdir())) == 2


def test_files_that_nobody_reads_are_removed_after_some_days(folder, monkeypatch):
    load_phantom(1, SMALL)
    (unused,) = folder.iterdir()
    load_phantom(1, SMALL, seed=1)
    long_ago = time.time() - (cached.KEEP_DAYS + 1) * 24 * 3600
    for path in folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    load_phantom(1, SMALL, seed=1)  # reading it keeps it
    load_phantom(1, SMALL, seed=2)
    assert len(list(folder.iterdir())) == 2
    assert not unused.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not an array\n" * 100),
        lambda path: np.save(path, np.full((2, *SMALL), np.nan, np.float32)),
        lambda path: np.save(path, phantom(2, (5, 48, 40))),
    ],
    ids=["truncated", "empty", "text", "NaN", "other shape"],
)
def test_damaged_file_is_made_anew(folder, damage):
    made = load_phantom(2, SMALL)
    (path,) = folder.iterdir()
    damage(path)
    np.testing.assert_array_equal(load_phantom(2, SMALL), made)
    np.testing.assert_array_equal(np.load(path), made)


def test_unwritable_folder_still_gives_data(folder, capsys):
    folder.write_text("in the way")
    np.testing.assert_array_equal(load_phantom(1, SMALL), phantom(1, SMALL))
    (notice,) = [line for line in capsys.readouterr().err.splitlines() if "not cached" in line]
    assert str(folder) in notice


def test_failed_write_leaves_nothing_behind(folder, monkeypatch, capsys):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    assert load_phantom(1, SMALL).shape == (1, *SMALL)
    assert "No space left" in capsys.readouterr().err
    assert not list(folder.iterdir())


def _must_not_run(*_, **__):
    raise AssertionError("the cache was not used")
