import copy
import dataclasses

import numpy as np
import pytest
import torch
from helpers import sampling

from methods.cascade import Cascade
from methods.held_out import (
    RAREST,
    centre_lines,
    line_error,
    line_weights,
    of_coils,
    random_lines,
)
from methods.start import OF_PATCH
from phantom.scanner import phantom
from physics.coils import expand
from physics.consistency import DataConsistency
from physics.fourier import undersample
from report.scan_text import adaptation_lines
from scan.adaptation import Adapted, adapt, divided_lines, held_out_errors
from scan.measurement import from_images
from training.checkpoint import load_network
from util.random_streams import Stream, generator
from util.stop import NEVER, StopRequest

IMAGES = phantom(1, (8, 64, 64), seed=4)[0]
MEASUREMENT = from_images(IMAGES, sampling(4, 4), 0, 0, None)
RNG = np.random.default_rng(0)


def cascade() -> Cascade:
    torch.manual_seed(0)
    return Cascade(
        stages=1,
        features=8,
        real_image=True,
        dc_weight=None,
        learn_dc_weight=False,
        start="kt_sparse",
    )


def test_a_line_and_its_partner_are_hidden_together():
    for ny in (32, 33):
        lines = random_lines(
            torch.ones(1, 8, ny, 1, dtype=torch.bool), 0.3, np.random.default_rng(0)
        )
        assert lines.shape == (1, 8, ny, 1)
        partner = (2 * (ny // 2) - torch.arange(ny)) % ny
        if ny % 2:
            assert torch.equal(lines, lines[:, :, partner])
        else:  # the lowest line is its own partner
            assert torch.equal(lines[:, :, 1:], lines[:, :, partner[1:]])
        assert 0.2 < lines.float().mean() < 0.4


def test_hidden_lines_cannot_be_seen_by_symmetry():
    mask = MEASUREMENT.mask
    chosen = random_lines(mask, 0.3, np.random.default_rng(0))
    hidden = mask.bool() & ~centre_lines(mask, True) & chosen
    seen = DataConsistency(MEASUREMENT.aliased, mask * ~hidden, real_image=True)
    all_lines = DataConsistency(MEASUREMENT.aliased, mask, real_image=True)
    lost = (all_lines.known & ~seen.known).sum()
    frequencies = torch.fft.ifftshift(hidden, dim=-2)[:, :, : 64 // 2 + 1].sum()
    assert lost >= frequencies > 0


def test_the_fully_sampled_centre_is_never_hidden():
    centre = centre_lines(MEASUREMENT.mask, True)
    assert centre[0, 0, 30:35].all()  # four lines from 64 // 2 - 4 // 2 on, and their partners
    assert centre.sum() < 12
    sparse = torch.zeros(1, 8, 64, 1)
    sparse[:, :, ::3] = 1
    assert centre_lines(sparse, True).flatten().nonzero().flatten().tolist() == [31, 32, 33]


def test_the_error_of_lines_is_that_of_their_kspace():
    images = torch.rand(2, 4, 16, 12)
    other = torch.rand(2, 4, 16, 12)
    every = torch.ones(2, 4, 16, 1)
    expected = (images - other).square().mean()
    torch.testing.assert_close(line_error(images, other, every), expected)
    some = torch.zeros_like(every)
    some[:, :, 8] = True  # zero frequency
    difference = (images - other).sum(dim=-2) / 4  # orthonormal, 16 lines
    expected = difference.square().mean()
    torch.testing.assert_close(line_error(images, other.to(torch.complex64), some), expected)
    some[:, :, 0] = 1e-12  # weights, not lines
    torch.testing.assert_close(line_error(images, other, 3 * some), expected)


def test_lines_that_are_seldom_measured_weigh_more():
    often = torch.full((1, 1, 33, 1), 0.1)
    often[:, :, 10:23] = 1
    weight = line_weights(often)[0, 0, :, 0]
    assert weight.argmin() == 16
    assert weight[16] == pytest.approx(1, rel=0.15)
    assert weight[3] > 5 * weight[16]
    torch.testing.assert_close(weight, weight.flip(0))
    torch.testing.assert_close(line_weights(0 * often), torch.full((1, 1, 33, 1), 1 / RAREST))


@pytest.mark.parametrize("real_image", [True, False])
def test_frequencies_that_no_frame_measured_are_known_as_such(real_image):
    mask = np.zeros((8, 64))
    mask[:, 28:36] = 1
    mask[::2, 40] = mask[1::2, 20] = 1
    measurement = from_images(IMAGES, sampling(4, 4), 0, 0, mask)
    lines = divided_lines(measurement, cascade(), real_image, "float32", RNG)
    known = {20, 40, *range(28, 36)}
    if real_image:  # and their partners
        known |= {(64 - line) % 64 for line in known}
    assert set((~lines.unknown).flatten().nonzero().flatten().tolist()) == known


def test_adaptation_to_images_of_another_kind_brings_them_closer_to_the_truth(monkeypatch):
    """Of other contrast than those that the weights were trained on; the truth is not used. The
    same seed gives the same weights, and the network is left alone."""
    monkeypatch.setattr("scan.adaptation.PATIENCE", 1)
    monkeypatch.setattr("scan.adaptation.CHECK_EVERY", 5)
    monkeypatch.setattr("scan.adaptation.WARM_UP", 1)
    monkeypatch.setattr("scan.adaptation.RATE", 2e-3)
    monkeypatch.setitem(OF_PATCH, "n_steps", 16)
    measurement = from_images(1 - IMAGES[..., 16:48], sampling(4, 4), 0, 0, None)
    network = load_network("cascade_phantom")
    with torch.no_grad():
        for stage in network.stages:  # so that there is more to gain
            stage.project.weight *= -0.5
    unchanged = copy.deepcopy(network.state_dict())
    adapted, again = (
        adapt(network, [measurement], True, 10, "float32", 0, NEVER) for _ in range(2)
    )

    def error(judged) -> float:
        with torch.no_grad():
            images = judged(measurement.aliased, measurement.mask)
        return (images - measurement.image).square().mean().item()

    assert adapted.best > 0
    assert adapted.after < adapted.before
    assert error(adapted.network) < 0.9 * error(network)
    assert (adapted.best, adapted.after) == (again.best, again.after)
    pairs = zip(adapted.network.parameters(), again.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    for name, value in network.state_dict().items():
        assert torch.equal(value, unchanged[name])


def test_series_of_a_scan_are_adapted_to_together(monkeypatch):
    """Of any size; one without lines to hold out is left aside."""
    monkeypatch.setattr("scan.adaptation.PATIENCE", 1)
    smaller = from_images(IMAGES[:6, :48], sampling(4, 4), 0, 1, None)
    centre = np.zeros((8, 64))
    centre[:, 31:34] = 1
    without = from_images(IMAGES, sampling(4, 4), 0, 0, centre)
    scan = [MEASUREMENT, without, smaller]
    adapted = adapt(cascade(), scan, True, 10, "float32", 0, NEVER)
    assert adapted.series == 2
    rng = generator(Stream.ADAPTATION, 0)
    first, _, last = (divided_lines(series, cascade(), True, "float32", rng) for series in scan)
    errors = [held_out_errors(cascade(), lines, "float32").sum() for lines in (first, last)]
    assert adapted.before == pytest.approx(np.mean(errors))


@pytest.mark.parametrize("coils", [False, True])
def test_held_out_lines_reach_nothing_that_is_trained(coils):
    """Other values of them change neither the lines that are given nor what the network is held
    to."""
    measurement = MEASUREMENT
    if coils:
        maps = torch.ones(1, 2, 64, 64, dtype=torch.complex64) / 2**0.5
        measurement = dataclasses.replace(
            measurement, aliased=expand(measurement.aliased.to(torch.complex64), maps), maps=maps
        )
    network = Cascade(1, 8, not coils, None, False, "kt_sparse")

    def divided(one):
        return divided_lines(one, network, not coils, "float32", np.random.default_rng(0))

    lines = divided(measurement)
    held_out = of_coils(lines.held_out.float(), measurement.maps)
    noise = undersample(torch.randn(measurement.aliased.shape), held_out)
    if not coils:
        noise = noise.real.to(measurement.aliased.dtype)
    changed = divided(dataclasses.replace(measurement, aliased=measurement.aliased + noise))
    assert (changed.measured - lines.measured).abs().max() > 0.1
    torch.testing.assert_close(changed.given, lines.given, rtol=0, atol=1e-5)
    torch.testing.assert_close(changed.before, lines.before, rtol=0, atol=1e-4)


def test_a_gain_within_its_standard_error_changes_nothing():
    chance = Adapted(cascade(), 1, 20, 20, before=1.0, after=0.9, gain=0.46, gain_error=0.97)
    assert not chance.is_better
    assert "0.46 ± 0.97 dB" in adaptation_lines(chance)[0]
    assert "no clear gain" in adaptation_lines(chance)[0]
    clear = dataclasses.replace(chance, gain_error=0.2)
    assert clear.is_better
    assert "adapted to 1 series" in adaptation_lines(clear)[0]


def test_without_lines_to_hold_out_nothing_changes():
    mask = np.zeros((8, 64))
    mask[:, 31:34] = 1
    network = cascade()
    adapted = adapt(
        network, [from_images(IMAGES, sampling(4, 4), 0, 0, mask)], True, 1, "float32", 0, NEVER
    )
    assert adapted.network is network
    assert np.isnan(adapted.before)


def test_complex_images_are_adapted_to_without_the_prior(monkeypatch):
    monkeypatch.setattr("scan.adaptation.PATIENCE", 1)
    monkeypatch.setattr("scan.adaptation.CHECK_EVERY", 2)
    monkeypatch.setattr("scan.adaptation.RATE", 0.0)
    y = torch.linspace(-1, 1, 64)[:, None]
    images = (torch.from_numpy(IMAGES) * torch.exp(2j * y**2)).numpy()
    measurement = from_images(images, sampling(4, 4), 0, 0, None)
    network = Cascade(
        1, 8, real_image=False, dc_weight=10.0, learn_dc_weight=True, start="kt_sparse"
    )
    adapted = adapt(network, [measurement], False, 10, "float32", 0, NEVER)
    assert (adapted.steps, adapted.best) == (2, 0)
    assert np.isfinite(adapted.before)


@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_a_limit_or_a_request_to_stop_ends_it(minutes):
    stop = StopRequest(max_steps=0 if minutes else None)
    adapted = adapt(cascade(), [MEASUREMENT], True, minutes, "float32", 0, stop)
    assert adapted.steps == adapted.best == 0
    assert adapted.before == adapted.after
