"""The share of a correction that held-out lines favour."""

import numpy as np
import pytest
import torch
from helpers import TINY, rows_of, sampling

from CS_mask import evaluation_masks
from methods.calibration import calibrated, can_be_calibrated
from methods.start import VIEW_SHARING, initial_images
from phantom.scanner import phantom
from physics.coils import expand
from physics.fourier import fftc, undersample
from physics.sense import measurement_of
from train import train
from util.errors import InputError

IMAGES = torch.from_numpy(phantom(2, (8, 64, 48), seed=3))
MASK = torch.from_numpy(evaluation_masks([0, 1], (8, 64), sampling(4, 6), data_seed=0))
MAPS = torch.stack([torch.linspace(0.2, 0.9, 48).expand(64, 48), torch.ones(64, 48)])
MAPS = (MAPS / torch.linalg.vector_norm(MAPS, dim=0)).to(torch.complex64).expand(2, -1, -1, -1)


def overshooting(*factors: float):
    """A network that corrects each sample's start by this many times its error, where the mask is
    of the sample."""

    def method(aliased, mask, *maps, start):
        truth = IMAGES.to(start.dtype)
        if len(start) == 1:  # one of them, when lines are held out
            n = int((MASK * mask).sum((1, 2, 3)).argmax())
            return start + factors[n] * (truth[n : n + 1] - start)
        return start + torch.tensor(factors)[:, None, None, None] * (truth - start)

    return method


@pytest.mark.parametrize("coils", [False, True])
def test_the_share_makes_up_for_a_correction_that_is_too_large_or_wrong(coils):
    maps = (MAPS,) if coils else ()
    images = expand(IMAGES.to(torch.complex64), MAPS) if coils else IMAGES
    aliased = undersample(images, MASK[:, :, None] if coils else MASK)
    start = initial_images(VIEW_SHARING, measurement_of(aliased, MASK, *maps))
    for factors, shares in (((2.0, 4.0), (0.5, 0.25)), ((-1.0, 1.0), (0.0, 1.0))):
        found = calibrated(overshooting(*factors), VIEW_SHARING, False)(aliased, MASK, *maps)
        for one, truth, before, factor, share in zip(
            found, IMAGES, start, factors, shares, strict=True
        ):
            expected = before + factor * share * (truth - before)
            torch.testing.assert_close(one, expected, rtol=0, atol=2e-3)


def test_a_correction_that_is_too_small_is_taken_as_it_is():
    aliased = undersample(IMAGES, MASK)
    found = calibrated(overshooting(0.5, 0.5), VIEW_SHARING, True)(aliased, MASK)
    start = initial_images(VIEW_SHARING, measurement_of(aliased, MASK, None, True))
    torch.testing.assert_close(found, (start + IMAGES) / 2, rtol=0, atol=1e-5)


def test_measured_lines_stay_and_without_others_the_share_is_one():
    aliased = undersample(IMAGES, MASK)
    found = calibrated(overshooting(1.5, 3.0), VIEW_SHARING, True)(aliased, MASK)
    left = (fftc(found) - fftc(IMAGES)) * MASK
    assert left.abs().max() < 1e-3
    centre = torch.zeros_like(MASK)
    centre[:, :, 31:34] = 1
    aliased = undersample(IMAGES, centre)
    method = lambda aliased, mask, start: start + 1  # noqa: E731
    found = calibrated(method, VIEW_SHARING, True)(aliased, centre)
    start = initial_images(VIEW_SHARING, measurement_of(aliased, centre, None, True))
    torch.testing.assert_close(found, start + 1)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ({"start": "patch"}, True),
        ({"start": "zero_filled"}, False),
        ({"start": "kt_sparse", "data_consistency": False}, False),
        ({}, False),
    ],
)
def test_networks_that_can_be_calibrated(architecture, expected):
    assert can_be_calibrated(architecture) == expected


def test_a_run_has_a_row_of_the_calibrated_network_and_its_mean(tmp_path, tiny_npz):
    cascade = {"model": "cascade", "stages": 1, "features": 4, "start": "kt_sparse"}
    settings = TINY | cascade | {"num_epochs": 1, "calibrate": True, "average": 2}
    scores = train(str(tmp_path / "run"), data=str(tiny_npz), **settings)
    names = ["cascade", "cascade_calibrated", "cascade_calibrated_average2"]
    assert [name for name in scores if name.startswith("cascade")] == names
    assert {row["method"] for row in rows_of(tmp_path / "run")} >= set(names)
    assert np.isfinite([scores[name]["psnr"] for name in names]).all()
    assert "cascade_calibrated: the start" in (tmp_path / "run" / "output.txt").read_text()
    with pytest.raises(InputError, match="--calibrate is for networks that correct"):
        train(str(tmp_path / "other"), data=str(tiny_npz), **TINY, calibrate=True)
