"""The noise of a scan: its strength, and the limit that it sets to scores."""

import numpy as np
import pytest
import torch
from helpers import sampling

from data.acquisition import Noise
from metrics import psnr
from phantom.scanner import phantom
from physics.fourier import fftc, ifftc
from physics.simulation import white_noise
from scan.measurement import from_images
from scan.noise import measured_noise, noise_in_scores, outside_noise

IMAGES = torch.from_numpy(phantom(1, (10, 96, 96), seed=2)[0])


def smooth(images: torch.Tensor) -> torch.Tensor:
    """The images without what their k-space has near its corners, with a phase."""
    y, x = (torch.linspace(-1, 1, n) for n in images.shape[1:])
    inside = ((y[:, None].abs() < 0.6) & (x.abs() < 0.6)).float()
    return ifftc(fftc(images.to(torch.complex64)) * inside) * torch.exp(2j * x)


def noisy(deviation: float) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return smooth(IMAGES) + white_noise(IMAGES.shape, deviation, rng)


@pytest.mark.parametrize("deviation", [0.003, 0.03])
def test_the_noise_is_measured_in_the_units_of_the_network(deviation):
    measurement = from_images(noisy(deviation).numpy(), sampling(2, 10), 0, 0, None)
    found = measured_noise(measurement)
    assert found * measurement.scale == pytest.approx(deviation, rel=0.1)


def test_no_noise_is_found_where_there_is_none_or_signal_or_no_phase():
    for images in (smooth(IMAGES), IMAGES * torch.exp(1j * IMAGES), IMAGES):
        assert measured_noise(from_images(images.numpy(), sampling(2, 10), 0, 0, None)) is None


def test_noise_unlike_that_of_the_training_is_said():
    assert outside_noise(0.006, Noise.of(0.005)) == []
    assert "noise of 0.022 of the peak" in outside_noise(0.022, Noise.of(0.005))[0]
    assert "trained with 0" in outside_noise(0.022, Noise.of(0.0))[0]


def test_the_perfect_image_is_at_the_limit_that_noise_sets():
    """The images without noise, with the measured lines, noise included: the best that there is."""
    images = noisy(0.03)
    measurement = from_images(images.numpy(), sampling(2, 10), 0, 0, None)
    mask, truth = measurement.mask[0], images
    perfect = ifftc(fftc(images) * mask + fftc(smooth(IMAGES)) * (1 - mask))
    lines = noise_in_scores(
        measured_noise(measurement), measurement, {"perfect": perfect, "input": truth}, truth
    )
    limit = float(lines[0].partition("below about ")[2].split()[0])
    peak = truth.abs().max()
    assert psnr(perfect.abs()[None] / peak, truth.abs()[None] / peak).item() == pytest.approx(
        limit, abs=1.5
    )
    assert "perfect 0.0" in lines[1]
    assert "input 0.0000" in lines[1]
