import numpy as np
import pytest
import torch
from helpers import make_images, quality_of

from data.quality import band_of, check_range, data_notices, score_notices
from phantom.scanner import phantom
from physics.fourier import fftc, ifftc
from util.errors import InputError

IMAGES = torch.from_numpy(make_images(6))


def notices(images) -> str:
    return "\n".join(data_notices(quality_of(images)))


def zero_padded(images: torch.Tensor) -> torch.Tensor:
    """Magnitude images with twice as many lines, of the same k-space."""
    kspace = fftc(images, axes=(-2,))
    n = images.shape[-2]
    padded = torch.nn.functional.pad(kspace, (0, 0, n // 2, n - n // 2))
    images = ifftc(padded, axes=(-2,)).abs()
    return images / images.amax(dim=(1, 2, 3), keepdim=True)


def test_nothing_is_said_of_plain_data():
    assert notices(IMAGES) == ""
    assert notices(torch.from_numpy(phantom(2, (6, 64, 64)))) == ""
    quality = quality_of(IMAGES)
    assert quality.narrowest == (0, 32)
    assert score_notices(quality, [0, 1]) == []


def test_zero_padding_is_found_and_what_it_leaves():
    images = zero_padded(torch.from_numpy(phantom(2, (6, 64, 64))))
    quality = quality_of(images)
    first, end = quality.narrowest
    assert first == pytest.approx(32, abs=2)
    assert end == pytest.approx(96, abs=2)
    assert "energy in some phase-encoding lines only" in notices(images)
    assert "all their scores are too high" in score_notices(quality, [1])[0]


def test_a_half_empty_kspace_is_found():
    kspace = fftc(IMAGES, axes=(-2,))
    kspace[..., 24:, :] = 0
    images = ifftc(kspace, axes=(-2,))
    assert quality_of(images / images.abs().max()).narrowest == (0, 24)


def test_an_off_centre_kspace_is_found():
    kspace = fftc(IMAGES, axes=(-2,)).roll(5, dims=-2)
    images = ifftc(kspace, axes=(-2,))
    images /= images.abs().max()
    assert "off centre, by up to +5 lines: 0, 1, 2, 3, 4, 5;" in notices(images)
    lines = score_notices(quality_of(images), [1])
    assert "samples that have a k-space that is off centre (1)" in "\n".join(lines)


def test_a_smooth_fall_is_no_cliff():
    lines = np.abs(np.arange(192) - 96)
    assert band_of(np.exp(-lines / 10.0)) == (0, 192)
    assert band_of(1 / (1.0 + lines) ** 3) == (0, 192)


@pytest.mark.parametrize("factor", [1e-6, 0.1])
def test_values_far_from_a_peak_of_one_are_refused(factor):
    with pytest.raises(InputError, match=r"largest magnitude is .*: --normalise divides every"):
        check_range(quality_of(IMAGES * factor), "x.npz")
    check_range(quality_of(IMAGES), "x.npz")
    check_range(quality_of(IMAGES * 0), "x.npz")  # black: said elsewhere


def test_dim_samples_and_bright_pixels_are_named():
    images = IMAGES.clone()
    images[2] *= 0.2
    images[4] *= 0.1
    images[4, 0, 3, 3] = 1.0
    text = notices(images)
    assert "maximum below 0.5, down to 0.19" in text or "maximum below 0.5, down to 0.2" in text
    assert "which a few bright pixels set: 4;" in text
    lines = "\n".join(score_notices(quality_of(images), [2, 3, 4]))
    assert "samples that have a maximum below 0.5 (2): their PSNR is too high" in lines
    assert "samples that have a maximum that a few bright pixels set (4)" in lines


def test_black_still_and_dark_samples_are_named_with_their_scores():
    images = IMAGES.clone()
    images[0] = 0
    images[1] = images[1, :1]
    images[2, 3] = 0
    text = notices(images)
    assert "samples of a single value: 0" in text
    assert "frames are all equal: 1" in text
    assert "frames that are all zero: 2" in text
    lines = score_notices(quality_of(images), [0, 1, 5])
    assert "the means include samples that have a single value (0)" in lines[0]
    assert "samples that do not move (1)" in lines[1]
    assert score_notices(quality_of(images), [5]) == []
