import pytest
import torch
from helpers import random_complex

from CS_mask import cartesian_mask
from physics.consistency import DataConsistency
from physics.fourier import fftc, ifftc, undersample


def measured_lines(ny: int, real_image: bool, batch: int = 2):
    """A series, its mask and what was measured of it."""
    images = random_complex(batch, 5, ny, 7)
    images = images.real.contiguous() if real_image else images
    mask = torch.from_numpy(cartesian_mask((batch, 5, ny, 1), 3, 2, centred=True, seed=0))
    return images, mask, DataConsistency(undersample(images, mask), mask, real_image)


BOTH = pytest.mark.parametrize("real_image", [True, False])
ANY_NY = pytest.mark.parametrize("ny", [16, 15])


@BOTH
@ANY_NY
def test_projection_has_the_measured_lines_is_idempotent_and_keeps_the_truth(ny, real_image):
    images, mask, measured = measured_lines(ny, real_image)
    other = random_complex(2, 5, ny, 7, seed=3)
    found = measured.enforce(other.real if real_image else other)
    torch.testing.assert_close(measured.inverse(measured.transform(images)), images)
    aliased = undersample(images, mask)
    torch.testing.assert_close(undersample(found, mask), aliased, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(measured.enforce(images), images, atol=1e-5, rtol=1e-5)
    once = measured.enforce(torch.zeros_like(images))
    torch.testing.assert_close(measured.enforce(once), once, atol=1e-5, rtol=1e-5)


@BOTH
@ANY_NY
def test_linear_part_of_the_projection_is_its_own_adjoint(ny, real_image):
    """x to project(x) - project(0) is the projection onto the lines that were not measured."""
    x, _, measured = measured_lines(ny, real_image)
    y = random_complex(*x.shape, seed=4)
    y = y.real.contiguous() if real_image else y
    constant = measured.enforce(torch.zeros_like(x))

    def project(image):
        return measured.enforce(image) - constant

    left, right = (torch.vdot(a.ravel(), b.ravel()) for a, b in ((project(x), y), (x, project(y))))
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(project(project(x)), project(x), atol=1e-5, rtol=1e-5)


@BOTH
def test_gradient_of_the_projection_is_its_adjoint(real_image):
    images, _, measured = measured_lines(16, real_image)
    x = torch.zeros_like(images, requires_grad=True)
    y = random_complex(*images.shape, seed=5)
    y = y.real.contiguous() if real_image else y
    measured.enforce(x).backward(y)
    projected = measured.enforce(y) - measured.enforce(torch.zeros_like(y))
    torch.testing.assert_close(x.grad, projected, atol=1e-5, rtol=1e-5)


@BOTH
def test_weighted_projection_lies_between(real_image):
    images, _, measured = measured_lines(16, real_image)
    other = random_complex(*images.shape, seed=6)
    other = other.real.contiguous() if real_image else other
    lines = measured.transform(other)
    found = measured.transform(measured.enforce(other, torch.tensor(3.0)))
    expected = torch.where(measured.known, (lines + 3 * measured.lines) / 4, lines)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    exact = measured.enforce(other, torch.tensor(1e8))
    torch.testing.assert_close(exact, measured.enforce(other), atol=1e-5, rtol=1e-5)


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
    torch.testing.assert_close(measured.enforce(other), expected, atol=1e-5, rtol=1e-5)


@BOTH
def test_a_strip_of_columns_has_the_physics_of_the_whole(real_image):
    images, mask, measured = measured_lines(16, real_image)
    strip = DataConsistency(undersample(images[..., 2:5], mask), mask, real_image)
    zeros = torch.zeros_like(images)
    torch.testing.assert_close(strip.enforce(zeros[..., 2:5]), measured.enforce(zeros)[..., 2:5])


def test_both_lines_of_a_measured_pair_count_where_there_is_noise():
    images, _, _ = measured_lines(16, True)
    mask = torch.ones(2, 5, 16, 1)
    noise = 0.1 * random_complex(*images.shape, seed=8)
    measured = DataConsistency(undersample(images + noise, mask), mask, real_image=True)
    torch.testing.assert_close(
        measured.inverse(measured.lines), images + noise.real, atol=1e-5, rtol=1e-5
    )
