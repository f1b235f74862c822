import numpy as np
import pytest
import torch
from helpers import make_images, sampling

from CS_mask import evaluation_masks
from phantom.coils import receive_coils
from physics.coils import expand
from physics.fourier import undersample
from physics.noise import OF_SIGNAL, noise_level
from physics.sense import measurement_of
from physics.simulation import smooth_phase, white_noise

SHAPE = (20, 96, 80)  # T, Y, X
SOME = [0.0, 0.01, 0.02, 0.04]


def smooth_series() -> torch.Tensor:
    """(4, T, Y, X) complex64 with a phase, without signal in the corners of k-space."""
    y, x = (torch.linspace(-1, 1, n) for n in SHAPE[1:])
    disc = torch.exp(-4 * (y[:, None] ** 2 + x**2))
    phase = smooth_phase(SHAPE[1:], np.random.default_rng(0))
    return (disc * phase).expand(4, *SHAPE).clone()


def noise_of(deviation: float, sample: int, *shape: int) -> torch.Tensor:
    return white_noise(shape, deviation, np.random.default_rng(sample))


def masks() -> torch.Tensor:
    return torch.from_numpy(evaluation_masks(range(4), SHAPE[:2], sampling(4), data_seed=0))


@pytest.mark.parametrize("columns", [slice(0, 80), slice(24, 56)])
def test_noise_is_found_for_each_sample_on_strips_too(columns):
    images = smooth_series()
    for i, deviation in enumerate(SOME):
        images[i] += noise_of(deviation, i, *SHAPE)
    mask = masks()
    aliased = undersample(images[..., columns], mask)
    found = noise_level(measurement_of(aliased, mask))
    wanted = (torch.tensor(SOME) - OF_SIGNAL).clamp(min=0)
    torch.testing.assert_close(found, wanted, rtol=0.1, atol=5e-4)


def test_noise_of_several_coils_is_that_of_each():
    coils, _ = receive_coils(4, SHAPE[1:], 0, 0, noisy=False)
    seen = expand(smooth_series()[:1], coils[None])
    mask = masks()[:1]
    aliased = undersample(seen + noise_of(0.02, 1, *seen.shape), mask[:, :, None])
    found = noise_level(measurement_of(aliased, mask, coils[None]))
    torch.testing.assert_close(found, torch.tensor([0.02 - OF_SIGNAL]), rtol=0.1, atol=0)


def test_without_lines_in_the_corners_no_noise_is_known():
    images = torch.from_numpy(make_images(1)).to(torch.complex64)
    mask = torch.zeros(1, 8, 32, 1)
    mask[:, :, 12:20] = 1
    assert noise_level(measurement_of(undersample(images, mask), mask)).tolist() == [0]
