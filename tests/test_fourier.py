import numpy as np
import pytest
import torch

from CS_mask import cartesian_mask
from fourier import Measured, fftc, ifftc, join_complex, split_complex, undersample


def random_complex(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.manual_seed(seed))


SIZES = [(16, 12), (15, 12), (16, 11), (15, 11)]


@pytest.mark.parametrize("size", SIZES)
def test_round_trip_and_energy(size):
    image = random_complex(2, 3, *size)
    kspace = fftc(image)
    torch.testing.assert_close(ifftc(kspace), image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kspace.norm(), image.norm())


@pytest.mark.parametrize("size", SIZES)
def test_inverse_is_the_adjoint(size):
    x, y = random_complex(*size, seed=1), random_complex(*size, seed=2)
    left, right = torch.vdot(fftc(x).ravel(), y.ravel()), torch.vdot(x.ravel(), ifftc(y).ravel())
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


# What was measured, and consistency with it


def measured_lines(ny: int, real_image: bool, batch: int = 2):
    """A series, its mask and what was measured of it."""
    images = random_complex(batch, 5, ny, 7)
    images = images.real.contiguous() if real_image else images
    mask = torch.from_numpy(cartesian_mask((batch, 5, ny, 1), 3, 2, centred=True, seed=0))
    return images, mask, Measured(undersample(images, mask), mask, real_image)


BOTH = pytest.mark.parametrize("real_image", [True, False])
ANY_NY = pytest.mark.parametrize("ny", [16, 15])


@BOTH
@ANY_NY
def test_transform_of_lines_is_unitary(ny, real_image):
    images, _, measured = measured_lines(ny, real_image)
    torch.testing.assert_close(measured.inverse(measured.transform(images)), images)


@BOTH
@ANY_NY
def test_consistent_images_have_the_measured_lines_exactly(ny, real_image):
    images, mask, measured = measured_lines(ny, real_image)
    other = random_complex(2, 5, ny, 7, seed=3)
    found = measured.consistent(other.real if real_image else other)
    aliased = undersample(images, mask)
    torch.testing.assert_close(undersample(found, mask), aliased, atol=1e-5, rtol=1e-5)


@BOTH
@ANY_NY
def test_consistency_is_idempotent_and_keeps_the_truth(ny, real_image):
    images, _, measured = measured_lines(ny, real_image)
    torch.testing.assert_close(measured.consistent(images), images, atol=1e-5, rtol=1e-5)
    once = measured.consistent(torch.zeros_like(images))
    torch.testing.assert_close(measured.consistent(once), once, atol=1e-5, rtol=1e-5)


@BOTH
@ANY_NY
def test_linear_part_of_consistency_is_its_own_adjoint(ny, real_image):
    """x to consistent(x) - consistent(0) is the projection on what was not measured."""
    x, _, measured = measured_lines(ny, real_image)
    y = random_complex(*x.shape, seed=4)
    y = y.real.contiguous() if real_image else y
    constant = measured.consistent(torch.zeros_like(x))

    def project(image):
        return measured.consistent(image) - constant

    left, right = (torch.vdot(a.ravel(), b.ravel()) for a, b in ((project(x), y), (x, project(y))))
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(project(project(x)), project(x), atol=1e-5, rtol=1e-5)


@BOTH
def test_gradient_of_consistency_is_its_adjoint(real_image):
    images, _, measured = measured_lines(16, real_image)
    x = torch.zeros_like(images, requires_grad=True)
    y = random_complex(*images.shape, seed=5)
    y = y.real.contiguous() if real_image else y
    measured.consistent(x).backward(y)
    projected = measured.consistent(y) - measured.consistent(torch.zeros_like(y))
    torch.testing.assert_close(x.grad, projected, atol=1e-5, rtol=1e-5)


@BOTH
def test_weighted_consistency_lies_between(real_image):
    images, _, measured = measured_lines(16, real_image)
    other = random_complex(*images.shape, seed=6)
    other = other.real.contiguous() if real_image else other
    lines = measured.transform(other)
    found = measured.transform(measured.consistent(other, torch.tensor(3.0)))
    expected = torch.where(measured.known, (lines + 3 * measured.lines) / 4, lines)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    exact = measured.consistent(other, torch.tensor(1e8))
    torch.testing.assert_close(exact, measured.consistent(other), atol=1e-5, rtol=1e-5)


@BOTH
@ANY_NY
def test_one_dimensional_physics_equals_the_two_dimensional(ny, real_image):
    images, mask, measured = measured_lines(ny, real_image)
    other = random_complex(*images.shape, seed=7)
    other = other.real.contiguous() if real_image else other
    kspace, known = fftc(images), mask.expand(-1, -1, -1, images.shape[-1]) > 0
    if real_image:  # the mirror of centred index i is 2 (n // 2) - i, with conjugation
        y, x = ((2 * (n // 2) - torch.arange(n)) % n for n in images.shape[-2:])
        known = known | known[..., y, :][..., x]
    expected = ifftc(torch.where(known, kspace, fftc(other)))
    expected = expected.real if real_image else expected
    torch.testing.assert_close(measured.consistent(other), expected, atol=1e-5, rtol=1e-5)


@BOTH
def test_a_strip_of_columns_has_the_physics_of_the_whole(real_image):
    images, mask, measured = measured_lines(16, real_image)
    strip = Measured(undersample(images[..., 2:5], mask), mask, real_image)
    zeros = torch.zeros_like(images)
    torch.testing.assert_close(
        strip.consistent(zeros[..., 2:5]), measured.consistent(zeros)[..., 2:5]
    )


def test_both_lines_of_a_measured_pair_count_where_there_is_noise():
    images, _, _ = measured_lines(16, True)
    mask = torch.ones(2, 5, 16, 1)
    noise = 0.1 * random_complex(*images.shape, seed=8)
    measured = Measured(undersample(images + noise, mask), mask, real_image=True)
    torch.testing.assert_close(
        measured.inverse(measured.lines), images + noise.real, atol=1e-5, rtol=1e-5
    )
