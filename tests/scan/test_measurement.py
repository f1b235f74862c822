import re

import numpy as np
import pytest
import torch
from helpers import make_images, sampling

from CS_mask import evaluation_masks
from formats.series import Series
from methods.baselines import view_sharing
from physics.consistency import DataConsistency
from physics.fourier import fftc, undersample
from scan.measurement import (
    BRIGHT_LEVEL,
    BRIGHT_QUANTILE,
    checked_mask,
    contradiction,
    from_images,
    from_kspace,
    is_fully_sampled,
)
from scan.reconstruction import note_on_lines
from util.errors import InputError

IMAGES = make_images(1)[0]  # (8, 32, 36)
MASK = evaluation_masks([0], (8, 32), sampling(4), data_seed=0)  # (1, 8, 32, 1)


def measured_kspace(images: np.ndarray = IMAGES, mask: np.ndarray = MASK) -> np.ndarray:
    return (fftc(torch.from_numpy(images)) * torch.from_numpy(mask[0])).numpy()


def with_phase(images: np.ndarray) -> np.ndarray:
    y = np.linspace(-1, 1, images.shape[1])[:, None]
    return (images * np.exp(2j * y**2)).astype(np.complex64)


@pytest.mark.parametrize("factor", [1.0, 1e-6, 3e4])
def test_images_and_their_kspace_give_the_same_lines_whatever_their_units(factor):
    first = from_images(IMAGES * np.float32(factor), sampling(4, 4), 0, 0, mask=None)
    second = from_kspace(measured_kspace() * np.float32(factor), mask=None)
    assert torch.equal(first.mask, second.mask)
    assert first.scale == pytest.approx(second.scale, rel=1e-4)
    assert first.scale == pytest.approx(factor * from_kspace(measured_kspace(), None).scale, 1e-4)
    torch.testing.assert_close(first.aliased, second.aliased, atol=1e-5, rtol=1e-4)
    assert first.true_images.numpy() == pytest.approx(IMAGES * factor, rel=1e-5)
    assert second.true_images is None
    assert first.condition == ("gaussian", 4)
    assert second.condition == ("measured", pytest.approx(second.acceleration))


def test_images_are_as_bright_as_those_that_networks_are_trained_on():
    found = from_images(IMAGES, sampling(4, 4), 0, 0, mask=None)
    shared = view_sharing(DataConsistency(found.aliased, found.mask, False)).abs()
    assert np.quantile(shared, BRIGHT_QUANTILE) == pytest.approx(BRIGHT_LEVEL)
    spot = IMAGES.copy()
    spot[0, 3, 3] = 5  # a bright pixel changes little: the factor is robust
    assert from_images(spot, sampling(4, 4), 0, 0, None).scale < 1.3 * found.scale


def test_masks_are_those_of_train_py():
    found = from_images(IMAGES, sampling(4, 4), 3, 7, mask=None)
    expected = evaluation_masks([7], (8, 32), sampling(4), data_seed=3)
    assert np.array_equal(found.mask, expected)


def test_a_given_mask_is_used():
    mask = MASK[0, ..., 0]
    for given in (mask, mask.astype(bool), mask[..., None], np.repeat(mask[..., None], 36, 2)):
        found = from_images(IMAGES, sampling(99, 99), 0, 0, given)
        assert np.array_equal(found.mask, MASK)
        assert found.condition == ("measured", 4)
    assert np.array_equal(from_kspace(measured_kspace(), mask).mask, MASK)
    one = checked_mask(mask[0], IMAGES.shape)
    assert (one == (mask[0] > 0)).all()


@pytest.mark.parametrize(("images", "is_real"), [(IMAGES, True), (with_phase(IMAGES), False)])
def test_images_with_a_phase_are_told_from_real_ones(images, is_real):
    assert from_images(images, sampling(4, 4), 0, 0, None).is_real == is_real
    kspace = measured_kspace(images)
    assert from_kspace(kspace, None).is_real == is_real
    aliased = undersample(torch.from_numpy(images)[None], torch.from_numpy(MASK))
    share = contradiction(aliased, torch.from_numpy(MASK))
    assert share < 1e-8 if is_real else 0.05 < share < 2


def test_complex_images_without_an_imaginary_part_are_real():
    found = from_images(IMAGES.astype(np.complex64), sampling(4, 4), 0, 0, None)
    assert found.is_real
    assert not found.image.is_complex()


def test_lines_without_a_partner_prove_nothing():
    mask = torch.zeros(1, 8, 32, 1)
    mask[:, :, 20] = 1
    aliased = undersample(torch.from_numpy(IMAGES)[None], mask)
    assert contradiction(aliased, mask) == 1


def test_acceleration_among_the_lines_that_the_scanner_measured():
    found = from_images(IMAGES, sampling(4, 4), 0, 0, None)
    assert found.acceleration_among(32) == found.acceleration == 4
    middle = found.mask[:, :, 8:24]
    assert found.acceleration_among(16) == middle.numel() / middle.sum()
    series = Series("a", IMAGES, False, n_acquired=16)
    (note,) = note_on_lines(series, found)
    assert f"{found.acceleration_among(16):.2f} among the middle 16 lines" in note
    assert note_on_lines(Series("a", IMAGES, False), found) == []


def test_full_kspace_may_be_zero_padded():
    kspace = fftc(torch.from_numpy(IMAGES)).numpy()
    assert is_fully_sampled(kspace)
    assert is_fully_sampled(np.pad(kspace, ((0, 0), (8, 8), (0, 0))))
    assert not is_fully_sampled(measured_kspace())


KSPACE = measured_kspace()


def with_holes(kspace: np.ndarray) -> np.ndarray:
    return kspace * (np.random.default_rng(0).random(kspace.shape) > 0.5)


def with_nan(kspace: np.ndarray) -> np.ndarray:
    kspace[2, 16, 5] = np.nan
    return kspace


@pytest.mark.parametrize(
    ("kspace", "mask", "message"),
    [
        (with_holes(KSPACE), None, "zeros of k-space are within lines"),
        (
            with_nan(KSPACE.copy()),
            None,
            "1 values are NaN or infinite, the first at frame, line, column (2, 16, 5)",
        ),
        (0 * KSPACE, None, "all values are zero"),
        (KSPACE, np.fft.ifftshift(MASK[0, ..., 0], axes=-1), "the mask has"),
        (
            KSPACE,
            np.random.default_rng(0).integers(2, size=IMAGES.shape),
            "constant along the readout",
        ),
        (KSPACE, np.ones((8, 30)), "the mask is (8, 30), expected (8, 32)"),
        (KSPACE, np.full((8, 32), 0.5), "other values than 0 and 1"),
        (KSPACE, np.zeros((8, 32)), "no measured line"),
    ],
)
def test_kspace_and_masks_that_cannot_be_used_are_refused(kspace, mask, message):
    with pytest.raises(InputError, match=re.escape(message)):
        from_kspace(kspace, mask)


def test_a_mask_without_room_for_its_centre_is_refused():
    with pytest.raises(InputError, match=r"--sample-n .*int\(32 / 4\) = 8 lines a frame, got 10"):
        from_images(IMAGES, sampling(4, 10), 0, 0, None)
    with pytest.raises(InputError, match="leaves none of 32 lines"):
        from_images(IMAGES, sampling(40, 0), 0, 0, None)
