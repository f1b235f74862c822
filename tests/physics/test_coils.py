"""Coils: combination, maps, noise, compression. Maps are known from the simulated loops."""

import pytest
import torch
from helpers import random_complex

from phantom.coils import noise_mixing, receive_coils
from phantom.scanner import phantom
from physics.coils import (
    average_lines,
    combine,
    compression,
    expand,
    mixed,
    noise_covariance,
    sensitivity_maps,
    whitening,
)
from physics.fourier import fftc, undersample
from physics.simulation import white_noise
from util.random_streams import Stream, generator

SHAPE = (64, 60)


@pytest.fixture(scope="module")
def seen():
    """A patient (1, T, Y, X), and what five coils see of it."""
    image = torch.from_numpy(phantom(1, (4, *SHAPE), seed=1)).to(torch.complex64)
    maps, _ = receive_coils(5, SHAPE, seed=0, sample=0, noisy=False)
    return image, maps[None], expand(image, maps[None])


def test_combination_is_the_adjoint_of_expansion_and_its_inverse_for_maps_of_norm_1():
    maps = random_complex(2, 4, 6, 5)
    images, coils = random_complex(2, 3, 6, 5, seed=1), random_complex(2, 3, 4, 6, 5, seed=2)
    left = torch.vdot(coils.ravel(), expand(images, maps).ravel())
    right = torch.vdot(combine(coils, maps).ravel(), images.ravel())
    torch.testing.assert_close(left, right)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    torch.testing.assert_close(combine(expand(images, maps), maps), images)


def test_the_time_average_is_the_mean_over_the_frames_that_measured_a_line():
    coils = random_complex(1, 3, 2, 8, 5)
    mask = torch.zeros(1, 3, 8, 1)
    mask[0, 0, 2] = mask[0, 2, 2] = mask[0, 1, 5] = 1
    aliased = undersample(coils, mask[:, :, None])
    found = fftc(average_lines(aliased.sum(dim=1), mask), axes=(-2,))
    lines = fftc(coils, axes=(-2,))
    expected = torch.zeros_like(found)
    expected[:, :, 2] = (lines[:, 0, :, 2] + lines[:, 2, :, 2]) / 2
    expected[:, :, 5] = lines[:, 1, :, 5]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_estimated_maps_are_those_of_the_loops_up_to_a_phase(seen):
    image, maps, coils = seen
    found = sensitivity_maps(coils.mean(dim=1))
    norm = torch.linalg.vector_norm(found, dim=1)
    in_body = image[:, 0].abs() > 0.1
    torch.testing.assert_close(norm[in_body], torch.ones_like(norm[in_body]))
    agreement = (found.conj() * maps).sum(dim=1).abs()[in_body]
    assert agreement.min() > 0.98
    assert agreement.mean() > 0.998
    # their combination is the image, with a phase
    inside = in_body[:, None].expand_as(image)
    torch.testing.assert_close(
        combine(coils, found).abs()[inside], image.abs()[inside], atol=0.02, rtol=0
    )


def test_maps_are_zero_where_there_is_no_signal():
    average = torch.zeros(1, 2, 96, 96, dtype=torch.complex64)
    average[..., 20:60, 20:60] = 1 + 1j
    found = sensitivity_maps(average).abs().sum(dim=1)[0]
    assert not found[75:].any()
    assert not found[:, 75:].any()
    assert found[22:58, 22:58].min() > 0


@pytest.mark.parametrize("size", [0, 10])
def test_maps_of_little_or_no_signal_are_finite(size):
    average = torch.zeros(1, 3, 96, 96, dtype=torch.complex64)
    average[..., 40 : 40 + size, 40 : 40 + size] = random_complex(3, 1, 1)
    assert sensitivity_maps(average).isfinite().all()


def test_maps_are_smooth_where_signal_is_low():
    """In noise of half the signal of a dark region, as in the lungs."""
    maps, _ = receive_coils(5, SHAPE, seed=0, sample=0, noisy=False)
    image = torch.ones(SHAPE)
    image[20:44, 20:40] = 0.06
    noise = white_noise((5, *SHAPE), 0.03 / 2**0.5, generator(Stream.COILS, 0, 0))
    found = sensitivity_maps((image * maps + noise)[None])[0]
    agreement = (found.conj() * maps).sum(dim=0).abs()
    assert agreement[20:44, 20:40].mean() > 0.98
    assert agreement[20:44, 20:40].min() > 0.9


def test_maps_do_not_depend_on_the_scale_and_follow_mixed_coils(seen):
    *_, coils = seen
    average = coils.mean(dim=1)
    found = sensitivity_maps(average)
    for scale in (1e-12, 1e-5, 1e12):
        scaled = sensitivity_maps(scale * average)
        torch.testing.assert_close(scaled, found, atol=1e-4, rtol=0)
    turned = torch.linalg.qr(random_complex(5, 5)).Q
    images = combine(coils, found)
    others = combine(mixed(turned, coils), sensitivity_maps(mixed(turned, average)))
    torch.testing.assert_close(others.abs(), images.abs(), atol=1e-3, rtol=0)


def test_maps_agree_with_espirit(seen):
    """Of sigpy, from the same k-space; in the body, away from the border of the image, beyond which
    ESPIRiT takes it to go on cyclically."""
    mri = pytest.importorskip("sigpy.mri")
    image, _, coils = seen
    average = coils.mean(dim=1)
    kspace = fftc(average)[0].numpy()
    espirit = torch.from_numpy(
        mri.app.EspiritCalib(kspace, calib_width=24, crop=0.0, show_pbar=False).run()
    )
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    inside[6:-6, 6:-6] = True
    inside &= image[0, 0].abs() > 0.1
    agreement = (sensitivity_maps(average)[0].conj() * espirit).sum(dim=0).abs()[inside]
    assert agreement.min() > 0.995


def test_whitened_noise_is_independent_and_of_the_mean_variance_of_the_coils():
    noise = noise_mixing(6, generator(Stream.COILS, 0, 0)) @ white_noise(
        (6, 20000), 0.1, generator(Stream.COILS, 0, 1)
    )
    covariance = noise_covariance(noise)
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() > 0.001
    white = noise_covariance(whitening(covariance) @ noise)
    mean = covariance.diagonal().real.mean()
    torch.testing.assert_close(white, mean * torch.eye(6, dtype=white.dtype), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(mean, torch.tensor(2 * 0.1**2), rtol=0.03, atol=0)


def test_a_covariance_needs_more_samples_than_coils():
    with pytest.raises(ValueError, match="3 samples of 4 coils"):
        noise_covariance(random_complex(4, 3))


def test_compression_keeps_what_few_combinations_hold(seen):
    *_, coils = seen
    average = coils.mean(dim=1)[0]
    shares = [compression(average, n)[1] for n in (1, 3, 5)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    matrix, _ = compression(average, 3)
    torch.testing.assert_close(matrix @ matrix.mH, torch.eye(3, dtype=matrix.dtype))
    kept = mixed(matrix, average).abs().square().sum() / average.abs().square().sum()
    assert kept.item() == pytest.approx(shares[1], rel=1e-4)
    flat = mixed(random_complex(5, 2), random_complex(2, 6, 7))  # of rank two
    assert compression(flat, 2)[1] == pytest.approx(1)


def test_loops_are_the_same_for_a_seed_and_differ_between_samples():
    maps, mixing = receive_coils(4, SHAPE, 0, 3, noisy=True)
    again, _ = receive_coils(4, SHAPE, 0, 3, noisy=True)
    other, _ = receive_coils(4, SHAPE, 0, 4, noisy=True)
    assert torch.equal(maps, again)
    assert (maps - other).abs().max() > 0.1
    norm = torch.linalg.vector_norm(maps, dim=0)
    torch.testing.assert_close(norm, torch.ones_like(norm), atol=0.1, rtol=0)
    # what is left of the noise's correlation is the error of the noise scan
    left = mixing @ mixing.mH
    torch.testing.assert_close(left, torch.eye(4, dtype=left.dtype), atol=0.1, rtol=0)


@pytest.mark.parametrize("n", [1, 4, 16])
def test_loops_are_smooth_and_see_their_side_best(n):
    maps, _ = receive_coils(n, SHAPE, 0, 0, noisy=False)
    assert maps.shape == (n, *SHAPE)
    change = (maps[:, 1:] - maps[:, :-1]).abs().max()
    assert change < 0.5
    if n > 1:
        brightest = {int(coil.abs().argmax()) for coil in maps}
        assert len(brightest) > n / 2
