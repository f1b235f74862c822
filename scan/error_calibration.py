"""Makes the numbers of `evaluation/error_map.py` again, on phantoms, and tests what they promise.

    python -m scan.error_calibration [cine.npz]

The weights of the terms are those of the highest likelihood of an exponential distribution, whose
mean is the expected error, for the images of networks. The factors of the bounds are by conformal
risk control on other patients, for networks and for `patch_low_rank`, of each kind of scan; the
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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from CS_mask import Sampling
from evaluation import error_map
from evaluation.error_map import (
    COILS,
    COMPARED,
    EQUISPACED,
    NOISE,
    PROMISED,
    ErrorMap,
    Evidence,
    conformal_factor,
    evidence,
    expected_error,
    held_bound,
    rank_correlation,
)
from evaluation.lesion import find_path, kept_contrast, lesion
from formats.reading import read_scan
from methods.baselines import Method, baseline
from methods.calibration import calibrated
from metrics import moving_region
from model import run_network
from phantom.coils import receive_coils
from phantom.scanner import phantom
from physics.coils import expand, mixed
from physics.fourier import fftc
from physics.sense import aliased_by
from physics.simulation import smooth_phase, white_noise
from scan.measurement import Measurement, drawn_lines, from_coils, from_images
from scan.weights import default_weights, load_scan_weights
from util.random_streams import Stream, generator

FIT, CALIBRATION, TEST = (24, 21_000), (60, 22_000), (20, 23_000)  # phantoms, and their seed
N_SHIFTED, SHIFTED_CALIBRATION = 8, (24, 24_000)  # the same for each of `SHIFTS`
SHIFTS: dict[str, dict[str, Any]] = {  # settings of `acquired`, by the kinds of `BOUNDS`
    NOISE: {"acc": 6.0, "noise": 0.02},
    COILS: {"acc": 6.0, "noise": 0.005, "coils": 8, "centre": 9},
    EQUISPACED: {"acc": 6.0, "noise": 0.0, "pattern": "equispaced", "centre": 0},
}
USUAL = "usual"
# other scans, for which the factor of the usual ones has to do
OTHERS: dict[str, dict[str, Any]] = {
    "no noise": {"acc": 6.0, "noise": 0.0},
    "golden step, no centre, noise 0.01": {
        "acc": 6.0, "noise": 0.01, "pattern": "golden_step", "centre": 0,
    },
}  # fmt: skip
REAL = (0, 1, 9, 18, 21)  # slices of a file
SIZES = ((12, 96, 96), (16, 112, 104), (20, 96, 112))  # (T, Y, X), in turn
ACCELERATIONS, NOISES = (4.0, 6.0, 8.0, 5.0), (0.0, 0.005, 0.01)
PIXELS = 2000  # of each region of a phantom that weights are fitted to
GRID = np.arange(0, 1.01, 0.05)  # powers that are tried
NETWORK = "network"
METHODS = (NETWORK, COMPARED)
REGIONS = ("still", "moving")
PROMISES = (0.5, 0.7, 0.8, PROMISED, 0.95)
FLAGGED = 1.5  # times the median of the map in the moving region
ERASED, KEPT = 0.5, 0.8  # of the contrast of a lesion: at most, at least


@dataclass
class Case:
    """A series with the reconstruction of one method, in the scale that networks get."""

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


Cases = dict[str, Case]  # of one series, by method
Factors = dict[str, dict[float, float]]  # of bounds, by method and promise


def acquired(
    images: np.ndarray,
    number: int,
    acc: float,
    pattern: str,
    centre: int,
    noise: float,
    coils: int | None = None,
) -> Measurement:
    """Undersampled images (T, Y, X); with a phase and white noise if `noise` is above 0, or of
    simulated coils."""
    rng = generator(Stream.EVALUATION_SAMPLE, number)
    if noise:
        images = images * smooth_phase(images.shape[1:], rng).numpy()
    sampling = Sampling((pattern,), (acc, acc), (centre,), (1.0,))
    if coils is not None:
        shape = images.shape[1], images.shape[2]
        sensitivities, mixing = receive_coils(coils, shape, number, number, noisy=noise > 0)
        seen = expand(torch.from_numpy(images)[None], sensitivities[None])[0]
        kspace = fftc(seen + mixed(mixing, white_noise(tuple(seen.shape), noise, rng))).numpy()
        drawn = drawn_lines(images.shape, sampling, number, number, None)
        return from_coils(kspace, drawn, condition=sampling.condition, number=number)
    measured = from_images(images, sampling, number, number, None)
    if noise:
        added = white_noise(tuple(measured.aliased.shape), noise / measured.scale, rng)
        measured.aliased = measured.aliased + aliased_by(added, measured.mask)
    return measured


@torch.no_grad()
def cases_of(measurement: Measurement) -> Cases:
    """Reconstruct a series by the shipped weights for it, calibrated, and without training."""
    weights = load_scan_weights(default_weights(measurement), torch.device("cpu"))
    network: Method = partial(run_network, weights.network, precision="float32")
    if weights.start is not None:
        network = calibrated(network, weights.start, weights.needs_real)
    methods = {NETWORK: network, COMPARED: baseline(COMPARED, measurement.is_real)}
    images, seconds = {}, {}
    for name, method in methods.items():
        started = time.perf_counter()
        images[name] = method(*measurement.measured)[0]
        seconds[name] = time.perf_counter() - started
    cases = {}
    for name, other in zip(methods, reversed(images.values()), strict=True):
        started = time.perf_counter()
        found = evidence(methods[name], images[name], other, measurement, measurement.is_real, 0)
        spent = seconds[name], time.perf_counter() - started
        cases[name] = Case(measurement, methods[name], images[name], found, spent)
    return cases


def phantoms(n: int, seed: int, **fixed) -> Iterator[Cases]:
    """Patients of a seed, of several sizes, accelerations and noises; `fixed`: of `acquired`."""
    for i in range(n):
        images = phantom(1, SIZES[i % len(SIZES)], seed + 10 * i)[0]
        given = {
            "acc": ACCELERATIONS[i % len(ACCELERATIONS)],
            "pattern": "gaussian",
            "centre": images.shape[1] // 16,
            "noise": NOISES[i // 2 % len(NOISES)],
        }
        yield cases_of(acquired(images, seed + i, **(given | fixed)))


def fitted(cases: Sequence[Case]) -> tuple[float, float, float]:
    """LEVEL, SPREAD and OTHER of the highest likelihood, each region weighted alike."""
    rng = np.random.default_rng(0)
    columns = []
    for case in cases:
        for region in case.regions.values():
            values = torch.stack([case.error, case.found.spread, case.found.other])
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


def bound_factors(cases: Sequence[Case]) -> dict[float, float]:
    """The factors that hold each of the `PROMISES` in both regions."""
    ratios = [(case.error / expected_error(case.found), case.regions) for case in cases]

    def missed(factor: float, name: str) -> np.ndarray:
        beyond = [(ratio > factor)[:, regions[name]] for ratio, regions in ratios]
        return np.array([one.float().mean().item() for one in beyond])

    return {
        promised: max(conformal_factor(partial(missed, name=k), promised) for k in REGIONS)
        for promised in PROMISES
    }


def tested(title: str, series: Sequence[Cases], factors: Factors) -> None:
    """Print what the maps were worth on some series: at `PROMISED`, then at the other promises."""
    for name, of_promise in factors.items():
        cases = [one[name] for one in series]
        rows = []
        for case in cases:
            found = ErrorMap(expected_error(case.found), of_promise[PROMISED], 0.0)
            held = held_bound(found, case.images, case.truth)
            peak, inside = case.truth.max(), case.regions["moving"]
            by_pixel = rank_correlation(found.expected, case.error)
            in_heart = rank_correlation(
                found.expected[:, inside], error_map.smoothed(case.error)[:, inside]
            )
            widths = [(found.bound[:, r].mean() / peak).item() for r in case.regions.values()]
            errors = [(case.error[:, r].mean() / peak).item() for r in case.regions.values()]
            rows.append([held.still, held.moving, *widths, *errors, held.correlation, by_pixel,
                         in_heart, case.seconds[1] / case.seconds[0]])  # fmt: skip
        held_still, held_moving, *rest = np.mean(rows, axis=0)
        low = np.min(rows, axis=0)
        print(
            f"{title}, {name} ({len(cases)}): held still {held_still:.3f} (lowest {low[0]:.3f}),"
            f" moving {held_moving:.3f} (lowest {low[1]:.3f}); mean bound still {rest[0]:.4f},"
            f" moving {rest[1]:.4f}; mean error still {rest[2]:.4f}, moving {rest[3]:.4f}; rank"
            f" correlation {rest[4]:.2f}, by pixel {rest[5]:.2f}, in the moving region"
            f" {rest[6]:.2f}; time of the map over that of the reconstruction {rest[7]:.1f}"
        )
        curve = []
        for promised, factor in of_promise.items():
            shares = []
            for case in cases:
                found = ErrorMap(expected_error(case.found), factor, 0.0)
                held = held_bound(found, case.images, case.truth)
                shares.append((held.still, held.moving))
            still, moving = np.mean(shares, axis=0)
            curve.append(f"{promised:g}: {still:.3f} {moving:.3f}")
        print(f"  promised: held still, moving: {'; '.join(curve)}", flush=True)


@torch.no_grad()
def lesions(series: Sequence[Cases], factors: Factors) -> None:
    """Print how many planted lesions the maps flag, those that were erased and those kept, and how
    many of their pixels are within the bound."""
    flagged: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cases, diameter, contrast in itertools.product(series, (3.0, 6.0), (0.2, -0.2)):
        plain = cases[NETWORK]
        measured = plain.measurement
        added = lesion(plain.truth, find_path(plain.truth), diameter, contrast)
        phase = measured.truth.sgn() if measured.truth.is_complex() else 1.0
        change = aliased_by(added * phase, *measured.measured[1:])
        inside = added.abs() > 0.5 * abs(contrast)
        changed = cases_of(dataclasses.replace(measured, aliased=measured.aliased + change))
        for name, case in changed.items():
            kept = kept_contrast(case.images.abs() - cases[name].images.abs(), added)
            expected = expected_error(case.found)
            typical = expected[:, plain.regions["moving"]].median()
            error = (case.images.abs() - (plain.truth + added)).abs()
            held = (error <= factors[name][PROMISED] * expected).float()
            for frame, share in enumerate(kept.tolist()):
                if inside[frame].any() and np.isfinite(share):
                    kind = "erased" if share <= ERASED else "kept" if share >= KEPT else "between"
                    ratio = (expected[frame][inside[frame]].mean() / typical).item()
                    within = held[frame][inside[frame]].mean().item()
                    flagged.setdefault((name, kind), []).append((ratio, within))
    for (name, kind), found in sorted(flagged.items()):
        ratios, within = np.array(found).T
        print(
            f"lesions, {name}, frames {kind} ({len(ratios)}): flagged"
            f" {np.mean(ratios > FLAGGED):.2f}, map over its median {np.median(ratios):.2f};"
            f" held by {within.mean():.3f} of the lesion's pixels",
            flush=True,
        )


def calibrated_factors() -> dict[str, Factors]:
    """The factors that hold the promises, by kind of scan: for both methods the larger one."""
    factors = {}
    for kind, given in {USUAL: {}, **SHIFTS}.items():
        series = list(phantoms(*(CALIBRATION if kind == USUAL else SHIFTED_CALIBRATION), **given))
        found = {name: bound_factors([one[name] for one in series]) for name in METHODS}
        of_both = {one: max(known[one] for known in found.values()) for one in PROMISES}
        factors[kind] = dict.fromkeys(METHODS, of_both)
        each = ", ".join(f"{name} {known[PROMISED]:.2f}" for name, known in found.items())
        print(f"factor that holds {PROMISED:.0%}, {kind}: {each}", flush=True)
    return factors


def main(arguments: Sequence[str]) -> None:
    """Fit, calibrate and test."""
    level, spread, other = fitted([cases[NETWORK] for cases in phantoms(*FIT)])
    error_map.LEVEL, error_map.SPREAD, error_map.OTHER = level, spread, other
    print(f"LEVEL, SPREAD, OTHER = {level:.3f}, {spread:.2f}, {other:.2f}", flush=True)
    by_kind = calibrated_factors()
    factors = by_kind[USUAL]
    plain = list(phantoms(*TEST))
    tested("phantoms", plain, factors)
    lesions(plain[:N_SHIFTED], factors)
    for kind, given in {**SHIFTS, **OTHERS}.items():
        series = list(phantoms(N_SHIFTED, TEST[1], **given))
        tested(f"phantoms, {kind}", series, by_kind.get(kind, factors))
        if kind == EQUISPACED:
            lesions(series[:4], by_kind[kind])
    for path in arguments:
        slices = [s.values for i, s in enumerate(read_scan(Path(path), None, None)) if i in REAL]
        for title, change in (("real", lambda x: x), ("real, inverted", lambda x: x.max() - x)):
            series = [
                cases_of(acquired(change(x), i, 6.0, "gaussian", 10, 0.0))
                for i, x in enumerate(slices)
            ]
            tested(title, series, factors)
            if title == "real":
                lesions(series[:2], factors)


if __name__ == "__main__":
    main(sys.argv[1:])
