import math

import numpy as np
import pytest
import torch

from evaluation.heart_view import find_heart
from evaluation.series_view import ventricle_rows, view_series
from evaluation.ventricle import N_RAYS, areas, contours, ejection_fraction, find_pool
from phantom.scanner import cavity_areas, phantom

SHAPE = (96, 112)


def ventricle(radii, centre=(44.0, 60.0), wall=7.0, size=SHAPE) -> torch.Tensor:
    """A bright disc of the radii (T,) in a dark wall, with a crescent beside it, (T, Y, X)."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
    r = ((y - centre[0]).square() + (x - centre[1]).square()).sqrt()
    other = ((y - centre[0] + 8).square() + (x - centre[1] - 26).square()).sqrt()
    frames = []
    for radius in radii:
        image = 0.05 + 0.6 * torch.sigmoid(2 * (17 - other))  # the right ventricle
        inside = torch.sigmoid(2 * (math.hypot(radius, 2 * wall) - r))
        image = image + inside * (0.25 - image)  # the wall covers it, and thickens
        image = image + torch.sigmoid(4 * (radius - r)) * (0.8 - image)
        frames.append(image)
    return torch.stack(frames)


def beat(largest=14.0, smallest=8.0, n_frames=16) -> torch.Tensor:
    phase = torch.arange(n_frames) * (2 * math.pi / n_frames)
    return (largest + smallest) / 2 + (largest - smallest) / 2 * torch.cos(phase)


def test_area_of_a_known_disc():
    radii = beat()
    series = ventricle(radii)
    pool = find_pool(series, find_heart(series))
    assert pool is not None
    assert (pool.centres - torch.tensor([44.0, 60.0])).abs().max() < 1
    truth = math.pi * radii.square()
    torch.testing.assert_close(areas(series, pool), truth, rtol=0.05, atol=0)
    assert ejection_fraction(areas(series, pool)) == pytest.approx(
        ejection_fraction(truth), abs=0.03
    )
    assert contours(series, pool).shape == (16, N_RAYS)


def test_papillary_muscles_belong_to_the_pool():
    radii = beat()
    series = ventricle(radii)
    y, x = torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij")
    muscle = (y - 50).square() + (x - 60).square() < 2.5**2
    series[:, muscle] = 0.3
    pool = find_pool(series, find_heart(series))
    assert pool is not None
    torch.testing.assert_close(areas(series, pool), math.pi * radii.square(), rtol=0.12, atol=0)


def test_a_pool_whose_area_jumps_is_refused():
    radii = beat()
    radii[3::4] *= 0.6
    series = ventricle(radii)
    assert find_pool(series, find_heart(series)) is None


def test_other_series_are_measured_at_the_place_of_the_reference():
    series = ventricle(beat())
    pool = find_pool(series, find_heart(series))
    assert pool is not None
    still = series.mean(dim=0, keepdim=True).expand_as(series)  # the motion is lost
    assert ejection_fraction(areas(still, pool)) < 0.25
    assert ejection_fraction(areas(0.95 * series, pool)) == pytest.approx(0.67, abs=0.05)
    assert areas(torch.full_like(series, torch.nan), pool).shape == (16,)


@pytest.mark.parametrize("kind", ["black", "texture", "one frame", "small", "not finite"])
def test_nothing_is_invented_without_a_pool(kind):
    noise = torch.rand(12, 64, 64, generator=torch.manual_seed(0))
    series = {
        "black": torch.zeros(12, 64, 64),
        "texture": noise,
        "one frame": ventricle(beat())[:1],
        "small": noise[:, :17, :19],
        "not finite": ventricle(beat()).index_fill(0, torch.tensor(3), torch.nan),
    }[kind]
    view = find_heart(series.nan_to_num())
    assert find_pool(series, view) is None


def test_ejection_fraction_is_not_decided_by_a_single_frame():
    area = torch.tensor([100.0, 100, 80, 60, 50, 50, 60, 80, 100, 100])
    assert ejection_fraction(area) == 0.5
    area[7] = 1
    assert ejection_fraction(area) == 0.5
    assert ejection_fraction(torch.tensor([4.0, 1.0])) == 0.75
    assert math.isnan(ejection_fraction(torch.zeros(4)))


def test_ejection_fraction_of_phantoms_is_close_to_the_truth():
    """See docs/experiments.md for 40 phantoms of full size."""
    n_samples, shape = 8, (10, 128, 128)
    series, truth = torch.from_numpy(phantom(n_samples, shape)), cavity_areas(n_samples, shape)
    errors, ratios = [], []
    for images, area in zip(series, truth, strict=True):
        pool = find_pool(images, find_heart(images))
        if pool is not None:
            found = areas(images, pool)
            errors.append(ejection_fraction(found) - (area.max() - area.min()) / area.max())
            ratios.append(float(np.mean(found.numpy() / area)))
    assert len(errors) >= 5
    assert np.median(np.abs(errors)) < 0.08
    assert np.median(ratios) == pytest.approx(1, abs=0.12)


def test_a_view_has_areas_and_errors_of_all_series():
    truth = ventricle(beat()).numpy()
    worse = (0.9 * truth).astype(np.float32)
    view = view_series("a", {"truth": truth, "mine": worse}, {"mine": "network"}, "truth")
    assert list(view.psnr) == ["mine"]
    mse = np.square(worse - truth).mean(axis=(1, 2))
    np.testing.assert_allclose(view.psnr["mine"], -10 * np.log10(mse), rtol=1e-4)
    assert list(view.areas) == list(view.ejection) == ["truth", "mine"]
    rows = ventricle_rows({7: view})
    assert len(rows) == 2 * 16
    assert rows[-1] | {"area": 0} == {"sample": 7, "method": "mine", "frame": 15, "area": 0}


def test_a_view_without_truth_has_no_errors():
    series = ventricle(beat()).numpy()
    view = view_series("a", {"zero_filled": 0 * series, "mine": series}, {}, None)
    assert not view.psnr
    assert view.ejection["mine"] > 0.5
