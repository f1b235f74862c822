"""Makes the numbers of `scan/error_map.py` again, on phantoms, and tests what the map promises.

    python -m scan.error_calibration [cine.npz]

The weights of the terms are those of the highest likelihood of an exponential distribution, whose
mean is the expected error. The bound's factor is by conformal risk control on other patients; the
test is on patients that neither has seen, and, of a file, on the slices `REAL`.
"""

import dataclasses
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from CS_mask import Sampling
from evaluation.lesion import find_path, kept_contrast, lesion
from formats.reading import read_scan
from methods.baselines import Method
from methods.calibration import calibrated
from metrics import moving_region
from model import run_network
from phantom.scanner import phantom
from physics.sense import aliased_by
from physics.simulation import smooth_phase, white_noise
from scan import error_map
from scan.error_map import (
    PROMISED,
    ErrorMap,
    Evidence,
    conformal_factor,
    evidence,
    expected_error,
    held_bound,
    rank_correlation,
)
from scan.measurement import Measurement, from_images
from scan.weights import default_weights, load_scan_weights
from util.random_streams import Stream, generator

FIT, CALIBRATION, TEST = (24, 20_001), (60, 20_002), (20, 20_003)  # phantoms, and their seed
REAL = (0, 1, 9, 18, 21)  # slices of a file
SIZES = ((12, 96, 96), (16, 112, 104), (20, 96, 112))  # (T, Y, X), in turn
ACCELERATIONS, NOISES = (4.0, 6.0, 8.0, 5.0), (0.0, 0.005, 0.01)
PIXELS = 2000  # of each region of a phantom that weights are fitted to
GRID = np.arange(0, 1.01, 0.05)  # powers that are tried
FLAGGED = 1.5  # times the median of the map in the moving region
ERASED, KEPT = 0.5, 0.8  # of the contrast of a lesion: at most, at least


@dataclass
class Case:
    """A series with its reconstruction, in the scale that networks get."""

    measurement: Measurement
    method: Method
    images: Tensor  # (T, Y, X)
    found: Evidence
    seconds: tuple[float, float]  # of the reconstruction, and of the map

    @property
    def truth(self) -> Tensor:
        """Magnitude of the truth (T, Y, X)."""
        return self.measurement.target[0]

    @property
    def regions(self) -> dict[str, Tensor]:
        """(Y, X) bool by name."""
        moving = moving_region(self.truth[None])[0]
        return {"still": ~moving, "moving": moving}

    @property
    def error(self) -> Tensor:
        """(T, Y, X)"""
        return (self.images.abs() - self.truth).abs()


def acquired(
    images: np.ndarray, number: int, acc: float, pattern: str, centre: int, noise: float
) -> Measurement:
    """Undersampled images (T, Y, X), complex ones with white noise if `noise` is above 0."""
    rng = generator(Stream.EVALUATION_SAMPLE, number)
    if noise:
        images = images * smooth_phase(images.shape[1:], rng).numpy()
    sampling = Sampling((pattern,), (acc, acc), (centre,), (1.0,))
    measured = from_images(images, sampling, number, number, None)
    if noise:
        added = white_noise(tuple(measured.aliased.shape), noise / measured.scale, rng)
        measured.aliased = measured.aliased + aliased_by(added, measured.mask)
    return measured


@torch.no_grad()
def case_of(measurement: Measurement, method: Method | None = None) -> Case:
    """Reconstruct a series by the shipped weights for it, calibrated."""
    if method is None:
        weights = load_scan_weights(default_weights(measurement), torch.device("cpu"))
        method = partial(run_network, weights.network, precision="float32")
        assert weights.start is not None
        method = calibrated(method, weights.start, weights.needs_real)
    started = time.perf_counter()
    images = method(*measurement.measured)[0]
    between = time.perf_counter()
    found = evidence(method, images, measurement, measurement.is_real, 0)
    seconds = between - started, time.perf_counter() - between
    return Case(measurement, method, images, found, seconds)


def phantoms(n: int, seed: int, **fixed) -> Iterator[Case]:
    """Patients of a seed, of several sizes, accelerations and noises; `fixed`: of `acquired`."""
    for i in range(n):
        images = phantom(1, SIZES[i % len(SIZES)], seed + 10 * i)[0]
        given = {
            "acc": ACCELERATIONS[i % len(ACCELERATIONS)],
            "pattern": "gaussian",
            "centre": images.shape[1] // 16,
            "noise": NOISES[i // 2 % len(NOISES)],
        }
        yield case_of(acquired(images, seed + i, **(given | fixed)))


def fitted(cases: Sequence[Case]) -> tuple[float, float, float]:
    """LEVEL, SPREAD and TRAINING_FREE of the highest likelihood, each region weighted alike."""
    rng = np.random.default_rng(0)
    columns = []
    for case in cases:
        for region in case.regions.values():
            values = torch.stack([case.error, case.found.spread, case.found.training_free])
            inside = values[:, :, region].flatten(1).numpy()
            chosen = inside[:, rng.choice(inside.shape[1], PIXELS)]
            columns.append(np.vstack([chosen, np.full(PIXELS, case.found.held_out)]))
    error, *terms = np.concatenate(columns, axis=1)
    logs = [np.log(np.maximum(term, 1e-7)) for term in terms]
    best = (np.inf, 0.0, 0.0, 0.0)
    for spread, other in itertools.product(GRID, GRID):
        if spread + other <= 1 + 1e-9:
            power = spread * logs[0] + other * logs[1] + (1 - spread - other) * logs[2]
            level = float(np.mean(error / np.exp(power)))
            best = min(best, (np.log(level) + power.mean(), level, spread, other))
    return best[1], float(best[2]), float(best[3])


def bound_factor(cases: Sequence[Case]) -> float:
    """The factor that holds the promise in both regions."""
    ratios = [(case.error / expected_error(case.found), case.regions) for case in cases]

    def missed(factor: float, name: str) -> np.ndarray:
        beyond = [(ratio > factor)[:, regions[name]] for ratio, regions in ratios]
        return np.array([one.float().mean().item() for one in beyond])

    return max(conformal_factor(partial(missed, name=name)) for name in ("still", "moving"))


def tested(title: str, cases: Sequence[Case]) -> None:
    """Print what the map was worth on some series."""
    rows = []
    for case in cases:
        found = ErrorMap(expected_error(case.found), 0.0)
        held = held_bound(found, case.images, case.truth)
        peak = case.truth.max()
        moving = case.regions["moving"]
        by_pixel = rank_correlation(found.expected, case.error)
        inside = rank_correlation(
            found.expected[:, moving], error_map.smoothed(case.error)[:, moving]
        )
        widths = [(found.bound[:, r].mean() / peak).item() for r in case.regions.values()]
        errors = [(case.error[:, r].mean() / peak).item() for r in case.regions.values()]
        cost = case.seconds[1] / case.seconds[0]
        rows.append([held.still, held.moving, *widths, *errors, held.correlation, by_pixel, inside,
                     cost])  # fmt: skip
    held_still, held_moving, *rest = np.mean(rows, axis=0)
    low = np.min(rows, axis=0)
    print(
        f"{title} ({len(cases)}): held still {held_still:.3f} (lowest {low[0]:.3f}), moving"
        f" {held_moving:.3f} (lowest {low[1]:.3f}); mean bound still {rest[0]:.4f}, moving"
        f" {rest[1]:.4f}; mean error still {rest[2]:.4f}, moving {rest[3]:.4f}; rank correlation"
        f" {rest[4]:.2f}, by pixel {rest[5]:.2f}, in the moving region {rest[6]:.2f}; time of the"
        f" map over that of the reconstruction {rest[7]:.1f}",
        flush=True,
    )


@torch.no_grad()
def lesions(cases: Sequence[Case]) -> None:
    """Print how many planted lesions the map flags: those that were erased, and those kept."""
    flagged: dict[str, list[float]] = {"erased": [], "kept": [], "between": []}
    for case, diameter, contrast in itertools.product(cases, (3.0, 6.0), (0.2, -0.2)):
        measured = case.measurement
        path = find_path(case.truth)
        added = lesion(case.truth, path, diameter, contrast)
        phase = measured.truth.sgn() if measured.truth.is_complex() else 1.0
        change = aliased_by(added * phase, *measured.measured[1:])
        changed = dataclasses.replace(measured, aliased=measured.aliased + change)
        other = case_of(changed, case.method)
        kept = kept_contrast(other.images.abs() - case.images.abs(), added)
        expected = expected_error(other.found)
        typical = expected[:, case.regions["moving"]].median()
        inside = added.abs() > 0.5 * abs(contrast)
        for frame in range(len(kept)):
            if inside[frame].any() and torch.isfinite(kept[frame]):
                share = kept[frame].item()
                kind = "erased" if share <= ERASED else "kept" if share >= KEPT else "between"
                flagged[kind].append((expected[frame][inside[frame]].mean() / typical).item())
    for kind, ratios in flagged.items():
        found = np.array(ratios or [np.nan])
        print(
            f"lesions, frames {kind} ({len(ratios)}): flagged {np.mean(found > FLAGGED):.2f}, map"
            f" over its median {np.median(found):.2f}",
            flush=True,
        )


def main(arguments: Sequence[str]) -> None:
    """Fit, calibrate and test."""
    level, spread, other = fitted(list(phantoms(*FIT)))
    error_map.LEVEL, error_map.SPREAD, error_map.TRAINING_FREE = level, spread, other
    print(f"LEVEL, SPREAD, TRAINING_FREE = {level:.3f}, {spread:.2f}, {other:.2f}", flush=True)
    error_map.BOUND = bound_factor(list(phantoms(*CALIBRATION)))
    print(f"BOUND = {error_map.BOUND:.2f}, so that {PROMISED:.0%} hold", flush=True)
    plain = list(phantoms(*TEST))
    tested("phantoms", plain)
    few = 8, TEST[1]
    tested("phantoms, no noise", list(phantoms(*few, acc=6.0, noise=0.0)))
    tested("phantoms, noise 0.02", list(phantoms(*few, acc=6.0, noise=0.02)))
    shifted = list(phantoms(*few, acc=6.0, noise=0.0, pattern="equispaced", centre=0))
    tested("phantoms, equispaced, no centre", shifted)
    lesions(plain[:8])
    lesions(shifted[:4])
    for path in arguments:
        slices = [s.values for i, s in enumerate(read_scan(Path(path), None, None)) if i in REAL]
        for title, change in (("real", lambda x: x), ("real, inverted", lambda x: x.max() - x)):
            measured = [
                acquired(change(x), i, 6.0, "gaussian", 10, 0.0) for i, x in enumerate(slices)
            ]
            cases = [case_of(one) for one in measured]
            tested(title, cases)
            if title == "real":
                lesions(cases[:2])


if __name__ == "__main__":
    main(sys.argv[1:])
