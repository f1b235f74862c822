"""Shrinkage in patches, against the transforms as they are written down."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from methods import patches
from methods.patches import (
    BLOCK,
    BLOCK_PATCH,
    PATCH,
    garrote,
    joined,
    patch_transform,
    patches_of,
    shift_of,
    shrink_components,
    shrink_patches,
    temporal_transform,
)

RULES = pytest.mark.parametrize("shrink", [shrink_patches, shrink_components])
SIZES = [(1, 8, 8), (7, 24, 12), (8, 19, 31), (3, 5, 3)]  # also such as no patch divides


def real_series(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, *shape, generator=torch.manual_seed(seed))


def test_the_spatial_transform_is_the_orthonormal_cosine_transform():
    image = np.random.default_rng(0).standard_normal((PATCH, PATCH)).astype(np.float32)
    expected = dctn(image, norm="ortho").ravel()
    found = patch_transform(PATCH) @ torch.from_numpy(image).flatten()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("n_frames", [1, 2, 7, 8, 20])
def test_the_temporal_transform_is_orthonormal_and_has_the_energies_of_the_fft(n_frames):
    basis, paired, harmonic = temporal_transform(n_frames)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(n_frames))
    course = real_series(n_frames, seed=1)[0]
    energy = paired @ (basis @ course).square()
    spectrum = torch.fft.fft(course, norm="ortho").abs().square()
    torch.testing.assert_close(energy, spectrum[harmonic.long()], atol=1e-6, rtol=1e-4)
    assert harmonic.max() == n_frames // 2


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("block", "patch"), [(PATCH, PATCH), (BLOCK, BLOCK_PATCH)])
def test_all_pixels_are_in_patches_and_return(shape, block, patch):
    images = real_series(*shape)
    for shift in ((0, 0), (1, 3), (block - 1, 2)):
        pixels = patches_of(images, block, patch, shift)
        assert pixels.shape[2] % block**2 == 0
        assert torch.equal(joined(pixels, images.shape, block, patch, shift), images)


def test_a_patch_holds_neighbouring_pixels_from_its_shift_on():
    image = torch.arange(8.0 * 12).view(1, 1, 8, 12)
    first = patches_of(image, 4, 4, (1, 2))[0, 0, :16]
    assert torch.equal(first.view(4, 4), image[0, 0, 1:5, 2:6])
    blocks = patches_of(image, 4, 2, (0, 0))[0, 0, :16].view(4, 2, 2)
    assert torch.equal(blocks[1], image[0, 0, :2, 2:4])  # of the first block, along X first


@RULES
@pytest.mark.parametrize("shape", SIZES)
def test_small_thresholds_change_nothing_and_large_ones_leave_nothing(shrink, shape):
    images = real_series(*shape)
    torch.testing.assert_close(shrink(images, 1e-6, (2, 1)), images, atol=1e-5, rtol=1e-4)
    assert shrink(images, 1e4, (2, 1)).abs().max() == 0


def test_patches_are_shrunk_as_the_formula_says():
    images, threshold = real_series(8, 8, 8), 0.3
    shrunk = shrink_patches(images, threshold, (0, 0), mean_weight=2.0, harmonic_power=-0.5)
    spectrum = torch.fft.fft(images, dim=1, norm="ortho")
    blocks = spectrum.view(2, 8, 2, 4, 2, 4).permute(0, 1, 2, 4, 3, 5).flatten(4)
    coefficients = blocks @ patch_transform(4).T.to(blocks.dtype)
    harmonic = torch.tensor([0, 1, 2, 3, 4, 3, 2, 1])
    weight = torch.where(harmonic > 0, harmonic.clamp(min=1) ** -0.5, 2.0)
    fine = torch.linspace(1, patches.FINE_WEIGHT, 4)
    limits = threshold * weight.view(8, 1, 1, 1) * (fine[:, None] * fine).flatten()
    kept = coefficients * (1 - limits**2 / coefficients.abs().square()).clamp(min=0)
    blocks = (kept @ patch_transform(4).to(kept.dtype)).view(2, 8, 2, 2, 4, 4)
    expected = torch.fft.ifft(
        blocks.permute(0, 1, 2, 4, 3, 5).reshape(2, 8, 8, 8), dim=1, norm="ortho"
    )
    assert expected.imag.abs().max() < 1e-6
    torch.testing.assert_close(shrunk, expected.real, atol=1e-5, rtol=1e-4)


def test_a_block_keeps_the_components_it_is_made_of():
    """Two courses over time in a block, as large as they are, stay; noise beside them goes."""
    courses = torch.linalg.qr(real_series(8, 2, seed=3)[0])[0]  # (T, 2)
    smooth = torch.linspace(1, 2, BLOCK)
    places = torch.stack([smooth[:, None] * smooth, smooth[:, None] * smooth.flip(0)])
    block = torch.einsum("tk,kyx->tyx", courses, places)[None]
    noise = 0.02 * torch.randn(block.shape, generator=torch.manual_seed(4))
    shrunk = shrink_components(block + noise, 0.1, (0, 0))
    assert (shrunk - block).norm() < 0.4 * noise.norm()


def test_blocks_that_do_not_change_have_eigenvectors():
    """Matrices of rank 1 and of all sizes, on some of which LAPACK fails in single precision."""
    rng = torch.manual_seed(0)
    size = 10 ** (-12 * torch.rand(20_000, 1, 1, generator=rng))
    course = torch.ones(20_000, 20, 1)
    course[::3, :5] = 0
    course[1::3] += 1e-7 * torch.randn(course[1::3].shape, generator=rng)
    matrices = size * (course @ course.mT)
    vectors = patches.eigenvectors(matrices)
    assert vectors.dtype == matrices.dtype
    unit = torch.eye(20).expand_as(vectors)
    torch.testing.assert_close(vectors.mT @ vectors, unit, atol=1e-5, rtol=0)
    values = vectors.mT @ matrices @ vectors / size
    off = values - torch.diag_embed(values.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 1e-4


def test_black_blocks_have_eigenvectors():
    """Of denormal values, for which LAPACK gives NaN in single precision, without an error."""
    values = torch.tensor([[6.0, 3.0, 1.0], [3.0, 2.0, 0.0], [1.0, 0.0, 1.0]])
    matrices = torch.zeros(2, 20, 20)
    matrices[:, :3, :3] = values * 1.4e-45
    vectors = patches.eigenvectors(matrices)
    unit = torch.eye(20).expand_as(vectors)
    torch.testing.assert_close(vectors.mH @ vectors, unit, atol=1e-5, rtol=0)


@RULES
def test_a_sample_does_not_depend_on_its_batch(shrink):
    images = real_series(7, 24, 30)
    together = shrink(images, 0.2, (1, 2))
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], shrink(images[i : i + 1], 0.2, (1, 2)))


def test_the_garrote_keeps_what_is_large():
    values = garrote(torch.tensor([0.0, 0.25, 1.0, 4.0, 100.0]), torch.tensor(1.0))
    torch.testing.assert_close(values, torch.tensor([0.0, 0.0, 0.0, 0.75, 0.99]))


@pytest.mark.parametrize("size", [PATCH, BLOCK])
def test_shifts_cover_the_patch_evenly(size):
    shifts = [shift_of(step, size) for step in range(4 * size * size)]
    counts = np.bincount([y * size + x for y, x in shifts], minlength=size * size)
    assert counts.min() >= 2
    assert counts.max() <= 6
