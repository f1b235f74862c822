import dataclasses
import json

import numpy as np
import pytest
import torch
from helpers import sampling

from CS_mask import Sampling
from evaluation.error_map import (
    BOUND,
    BOUNDS,
    COILS,
    EQUISPACED,
    NOISE,
    OTHER,
    SPREAD,
    ErrorMap,
    Evidence,
    conformal_factor,
    error_map,
    expected_error,
    held_bound,
    kinds_of,
    smoothed,
    wide_frames,
)
from methods.baselines import baseline
from phantom.scanner import phantom
from physics.fourier import fftc, undersample
from physics.simulation import white_noise
from reconstruct import reconstruct, reconstruct_scan
from scan.measurement import from_images
from util.errors import InputError

IMAGES = phantom(1, (8, 64, 72), seed=5)
QUICK = {"acc": 4, "sample_n": 4, "picture_dpi": 30, "device": "cpu", "precision": "float32"}


def test_the_factor_is_the_smallest_that_holds_the_promise():
    """Uniform errors: the share beyond a factor f is 1 - f, and (99 (1 - f) + 1) / 100 <= 0.1."""
    factor = conformal_factor(lambda f: np.full(99, max(0.0, 1 - f)))
    assert factor == pytest.approx(1 - 9 / 99)
    with pytest.raises(ValueError, match="give more series"):
        conformal_factor(lambda f: np.zeros(8))


def test_further_series_hold_the_promise_on_average():
    rng = np.random.default_rng(0)

    def series(n: int) -> np.ndarray:  # errors over expected ones; series differ from each other
        return rng.exponential(size=(n, 500)) * rng.lognormal(sigma=0.4, size=(n, 1))

    held = []
    for _ in range(50):
        known = series(30)

        def missed(factor: float, known: np.ndarray = known) -> np.ndarray:
            return (known > factor).mean(axis=1)

        held.append((series(30) <= conformal_factor(missed)).mean())
    assert 0.9 <= np.mean(held) < 0.95


def test_more_of_any_evidence_is_more_error_and_all_scales_with_the_images():
    rng = np.random.default_rng(0)
    spread, other = (torch.from_numpy(rng.uniform(0.1, 1, (3, 8, 8))) for _ in range(2))
    found = expected_error(Evidence(spread, other, 0.2))
    for more in (
        Evidence(2 * spread, other, 0.2),
        Evidence(spread, 2 * other, 0.2),
        Evidence(spread, other, 0.4),
    ):
        assert (expected_error(more) >= found).all()
    assert min(SPREAD, OTHER, 1 - SPREAD - OTHER) >= 0
    scaled = expected_error(Evidence(1000 * spread, 1000 * other, 200.0))
    torch.testing.assert_close(scaled, 1000 * found)


def test_smoothing_keeps_a_constant_and_works_in_small_images():
    torch.testing.assert_close(smoothed(torch.full((1, 5, 9), 2.0)), torch.full((1, 5, 9), 2.0))


def test_what_was_held_is_counted_by_region():
    truth = torch.zeros(4, 10, 10)
    truth[:, :, 0] = torch.arange(4.0)[:, None]  # 10 of 100 pixels move
    expected = torch.linspace(1, 2, 400).view(4, 10, 10)
    images = truth + 0.5 * BOUND * expected
    images[:, 0, 0] += 2 * BOUND * expected[:, 0, 0]  # one of the moving ones is beyond
    found = held_bound(ErrorMap(expected, BOUND, 0.0), images, truth)
    assert found.still == 1
    assert found.moving == pytest.approx(0.9)
    assert found.correlation > 0.5


def test_the_bound_is_that_of_the_kind_of_scan():
    rng = np.random.default_rng(0)
    plain = from_images(IMAGES[0], sampling(4, 4), 0, 0, None)
    noisy = dataclasses.replace(
        plain, aliased=plain.aliased + undersample(white_noise((1, *IMAGES[0].shape), 0.03, rng),
                                                   plain.mask)
    )  # fmt: skip
    comb = Sampling(("equispaced",), (4.0, 4.0), (0,), (1.0,))
    equispaced = from_images(IMAGES[0], comb, 0, 0, None)
    maps = torch.ones(1, 1, *IMAGES.shape[2:], dtype=torch.complex64)
    coils = dataclasses.replace(noisy, aliased=noisy.aliased[:, :, None], maps=maps)
    method = baseline("view_sharing", False)
    for measured, kinds in (
        (plain, []), (noisy, [NOISE]), (coils, [COILS]), (equispaced, [EQUISPACED]),
    ):  # fmt: skip
        assert kinds_of(measured, False) == kinds
        images = method(*measured.measured)[0]
        found = error_map(method, images, images, 1.0, measured, False, 0)
        assert found.factor == max([BOUND, *(BOUNDS[kind] for kind in kinds)])
    assert kinds_of(noisy, True) == []


def test_frames_that_are_wider():
    bound = np.array([1.0, 1, 1, 2, 3, 1.5, 1, 1, 1.4])
    assert wide_frames(bound) == (3, 5)
    assert wide_frames(np.ones(5)) is None


def test_the_map_scales_with_the_units_and_needs_lines_to_hold_out():
    measured = from_images(IMAGES[0], sampling(4, 4), 0, 0, None)
    method = baseline("view_sharing", True)
    images = method(*measured.measured)[0]
    other = baseline("time_average", True)(*measured.measured)[0]
    one, many = (
        error_map(method, scale * images, scale * other, scale, measured, True, 0).expected
        for scale in (1, 1000)
    )
    torch.testing.assert_close(many, 1000 * one)
    centre = torch.zeros_like(measured.mask)
    centre[:, :, 24:40] = 1
    low = dataclasses.replace(measured, mask=centre, aliased=undersample(measured.aliased, centre))
    with pytest.raises(InputError, match="5 lines outside the centre that can be held out, found"):
        error_map(method, images, other, 1.0, low, True, 0)


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """A fully sampled series in units of its own, with its error map."""
    folder = tmp_path_factory.mktemp("scan")
    np.save(folder / "mine.npy", 1000 * IMAGES)
    reconstruct_scan(folder / "mine.npy", folder / "out", error_map=True, **QUICK)
    with np.load(next((folder / "out").glob("*/reconstruction.npz"))) as arrays:
        return folder / "out", dict(arrays)


def test_a_scan_has_its_error_map_in_files_page_and_words(trial):
    folder, arrays = trial
    expected, bound = arrays["expected_error"], arrays["error_bound"]
    assert expected.shape == bound.shape == arrays["reconstruction"].shape
    assert (expected > 0).all()
    np.testing.assert_allclose(bound, BOUND * expected, rtol=1e-5)
    free, of_free = (arrays[f"patch_low_rank_{k}"] for k in ("expected_error", "error_bound"))
    np.testing.assert_allclose(of_free, BOUND * free, rtol=1e-5)
    assert not np.allclose(free, expected)
    text = " ".join((folder / "output.txt").read_text().split())
    assert "Error map sample_1, cascade_calibrated: 90 % bound of the error: 0.0" in text
    assert "sample_1, patch_low_rank: 90 % bound of the error: 0.0" in text
    assert "rank correlation of expected and true error 0." in text
    page = (folder / "report.html").read_text()
    data = page.split('id="player-data">')[1].split("</script>")[0]
    (layer,) = json.loads(data)["views"][0]["layers"]
    assert layer["name"] == "expected error"
    assert "Error of the network by frame" in page
    assert "90 % bound of the error: 0.0" in page


def test_a_call_on_arrays_gives_images_error_and_bound(trial):
    _, arrays = trial
    mask = arrays["mask"]
    kspace = (fftc(torch.from_numpy(1000 * IMAGES[0])) * torch.from_numpy(mask)[..., None]).numpy()
    images, expected, bound = reconstruct(
        kspace, mask, error_map=True, precision="float32", device="cpu"
    )
    assert images == pytest.approx(arrays["reconstruction"], abs=5)
    assert np.corrcoef(expected.ravel(), arrays["expected_error"].ravel())[0, 1] > 0.99
    np.testing.assert_allclose(bound, BOUND * expected, rtol=1e-5)
