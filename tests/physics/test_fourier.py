import numpy as np
import pytest
import torch
from helpers import random_complex

from CS_mask import cartesian_mask
from physics.fourier import fftc, ifftc, join_complex, split_complex, undersample

SIZES = [(16, 12), (15, 12), (16, 11), (15, 11)]


@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_is_the_adjoint_and_energy_is_kept(size):
    image, other = random_complex(2, 3, *size, seed=1), random_complex(2, 3, *size, seed=2)
    kspace = fftc(image)
    torch.testing.assert_close(ifftc(kspace), image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kspace.norm(), image.norm())
    left = torch.vdot(kspace.ravel(), other.ravel())
    right = torch.vdot(image.ravel(), ifftc(other).ravel())
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_known_pairs(size):
    ny, nx = size
    delta = torch.zeros(size)
    delta[ny // 2, nx // 2] = 1
    flat = torch.full(size, 1 / (ny * nx) ** 0.5, dtype=torch.complex64)
    torch.testing.assert_close(fftc(delta), flat)
    torch.testing.assert_close(ifftc(delta), flat)  # zero frequency is at n // 2 too


def test_centring_agrees_with_numpy():
    image = random_complex(15, 12)
    axes = (-2, -1)
    expected = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(image.numpy(), axes=axes), norm="ortho"), axes=axes
    )
    np.testing.assert_allclose(fftc(image).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.uint8, torch.complex128])
def test_always_single_precision(dtype):
    image = torch.ones(4, 6).to(dtype)
    assert fftc(image).dtype == torch.complex64
    assert undersample(image, torch.ones(4, 1)).dtype == torch.complex64


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_complex", [False, True])
def test_undersample_is_the_masked_centred_transform(size, is_complex):
    target = random_complex(2, 3, *size)
    target = target if is_complex else target.real
    mask = torch.from_numpy(cartesian_mask((2, 3, *size), 2, 3, centred=True, seed=0))
    expected = ifftc(fftc(target) * mask)
    torch.testing.assert_close(undersample(target, mask), expected, atol=1e-5, rtol=1e-5)
    one_dimensional = undersample(target, mask[..., :1])  # the readout is sampled alike
    torch.testing.assert_close(one_dimensional, expected, atol=1e-5, rtol=1e-5)


def test_undersampling_is_a_self_adjoint_projection():
    x, y = random_complex(4, 16, 12, seed=1), random_complex(4, 16, 12, seed=2)
    mask = torch.from_numpy(cartesian_mask((4, 16, 1), 3, 2, centred=True, seed=0))
    once = undersample(x, mask)
    torch.testing.assert_close(undersample(once, mask), once, atol=1e-5, rtol=1e-5)
    left, right = (
        torch.vdot(once.ravel(), y.ravel()),
        torch.vdot(x.ravel(), undersample(y, mask).ravel()),
    )
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    assert once.norm() < x.norm()


def test_full_sampling_changes_nothing(target):
    aliased = undersample(target, torch.ones(3, 8, 32, 1))
    torch.testing.assert_close(aliased.real, target, atol=1e-6, rtol=1e-5)
    assert aliased.imag.abs().max() < 1e-6


def test_real_and_imaginary_part_round_trip():
    image = random_complex(2, 3, 4)
    torch.testing.assert_close(join_complex(*split_complex(image)), image)
    real, imaginary = split_complex(image.real)
    assert torch.equal(real, image.real)
    assert not imaginary.any()
