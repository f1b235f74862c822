import numpy as np
import pytest
import torch

from data.augmentation import AUGMENTATIONS, augment
from physics.fourier import fftc
from physics.simulation import PHASE_SPREAD, smooth_phase, white_noise


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_augmentation_is_one_of_all_flips_and_shifts(target):
    images = target[0]
    every = [
        images.flip(axes).roll(shift, 0)
        for axes in ([], [0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2])
        for shift in range(len(images))
    ]
    seen = set()
    for seed in range(60):
        moved = augment(images, ("flips", "time"), generator(seed))
        matches = [i for i, candidate in enumerate(every) if torch.equal(moved, candidate)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len({i // len(images) for i in seen}) == 8
    assert len({i % len(images) for i in seen}) == len(images)


def test_kinds_of_augmentation_are_apart(target):
    images = target[0]
    still = images[:1].expand(8, -1, -1)
    upright = images * 0 + torch.arange(8.0)[:, None, None]
    for seed in range(8):
        assert torch.equal(augment(still, ("time",), generator(seed)), still)
        assert torch.equal(augment(upright, ("flips",), generator(seed)), upright)
        assert torch.equal(augment(images, (), generator(seed)), images)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("turned", [False, True])
def test_augmentation_treats_all_frames_alike_and_keeps_the_range(kind, turned):
    still = torch.rand(1, 24, 28, generator=torch.manual_seed(0)).expand(6, -1, -1)
    images = still * torch.exp(torch.tensor(2j)) if turned else still
    changed = set()
    for seed in range(12):
        moved = augment(images, (kind,), generator(seed))
        assert moved.shape == images.shape
        assert moved.dtype == images.dtype
        torch.testing.assert_close(moved, moved[:1].expand(6, -1, -1))
        assert moved.abs().max() <= 1 + 1e-6
        assert turned or moved.min() >= 0
        changed.add(torch.allclose(moved, images))
        assert torch.equal(moved, augment(images, (kind,), generator(seed)))
    assert (False in changed) is (kind != "time")  # which does nothing to what stands still


def test_jitter_scales_about_one_mean_for_all_frames(target):
    images = target[0] / 2
    factors = generator(3)
    factors.random(3), factors.integers(len(images))
    brightness, contrast = factors.uniform(0.8, 1.2, 2)
    bright = brightness * images
    expected = (bright.mean() + contrast * (bright - bright.mean())).clamp(0, 1)
    jittered = augment(images, ("jitter",), generator(3))
    torch.testing.assert_close(jittered, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in AUGMENTATIONS if kind != "jitter"])
def test_coil_images_change_like_images(kind, target):
    """A coil that sees half of another, and with another phase."""
    images = target[0].to(torch.complex64) / 2
    coils = torch.stack([images, 0.5j * images], dim=1)
    changed = augment(coils, (kind,), generator(5))
    assert changed.shape == coils.shape
    torch.testing.assert_close(changed[:, 1].sgn(), 1j * changed[:, 0].sgn(), atol=1e-4, rtol=0)
    torch.testing.assert_close(changed[:, 0], augment(images, (kind,), generator(5)))


def test_blur_is_a_gaussian_and_affine_moves_by_no_more_than_it_says():
    point = torch.zeros(2, 41, 41)
    point[:, 20, 20] = 1
    y, x = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
    for seed in range(20):
        blurred = augment(point, ("blur",), generator(seed))
        assert blurred.sum().item() == pytest.approx(2, rel=1e-4)
        moved = augment(point, ("affine",), generator(seed))[0]
        centre = torch.stack(((moved * y).sum(), (moved * x).sum())) / moved.sum()
        assert (centre - 20).abs().max() < 0.1 * 41 + 1


def test_phase_has_magnitude_one_and_is_smooth():
    factor = smooth_phase((96, 80), generator())
    assert factor.dtype == torch.complex64
    torch.testing.assert_close(factor.abs(), torch.ones(96, 80))
    turned = (factor[1:] * factor[:-1].conj()).angle().abs().max()
    assert 0 < turned < 0.2  # radians from a pixel to the next
    unwrapped = np.unwrap(np.unwrap(factor.angle().numpy(), axis=0), axis=1)
    assert unwrapped.std() == pytest.approx(PHASE_SPREAD, rel=0.05)
    assert torch.equal(smooth_phase((96, 80), generator()), factor)
    assert not torch.equal(smooth_phase((96, 80), generator(1)), factor)


def test_noise_has_its_deviation_in_image_and_kspace():
    noise = white_noise((20, 64, 64), 0.1, generator())
    for values in (noise, fftc(noise)):
        assert values.real.std().item() == pytest.approx(0.1, rel=0.02)
        assert values.imag.std().item() == pytest.approx(0.1, rel=0.02)
        correlation = (values.real * values.imag).mean() / 0.01
        assert abs(correlation.item()) < 0.02
