"""How far to trust images: the expected absolute error of every pixel, and a bound.

With a quarter of the measured lines outside the centre held out, the series is reconstructed again,
twice. Where these images differ from those of all lines, the lines that were not measured matter,
too. With d the root mean square of the two differences, t the difference to the images of another
method, and h the root mean square error of the held-out lines, the expected absolute error is

    e = LEVEL d^SPREAD t^OTHER h^(1 - SPREAD - OTHER)

The other method of a network is the training-free `COMPARED`, and that of a training-free method is
the network. d and t are smoothed over a few pixels and three frames, the last followed by the
first. All of it scales with the images. The bound is e times a factor by conformal risk control,
such that 90 % of the pixels hold it on average over series, in the moving region and in the rest of
the image; scans with much noise, of several coils, or of equispaced lines have larger ones. The
numbers here are of phantoms alone; they are made again by `python -m
scan.error_calibration`. Errors are of magnitudes.

What is wrong alike in all of these images is not seen.

References: A. Angelopoulos et al., "Conformal risk control", ICLR 2024, arXiv:2208.02814.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.batches import Batch
from methods.baselines import Method
from methods.held_out import (
    centre_lines,
    hold_out,
    line_error,
    line_weights,
    of_coils,
    random_lines,
)
from metrics import moving_region
from physics.noise import noise_level
from physics.sense import as_measured, measurement_of, seen_by
from util.errors import InputError
from util.random_streams import Stream, generator

PROMISED = 0.9  # share of the pixels within the bound
COMPARED = "patch_low_rank"  # the training-free method
SHARE, DRAWS = 0.25, 2  # of the lines outside the centre that are held out, and how often
FEWEST = 5  # held-out lines of each draw
SMOOTH, RADIUS = 2.5, 7  # pixels: standard deviation and reach of the Gaussian
LEAST = 1e-6  # of the largest difference: what is below is rounding
LEVEL, SPREAD, OTHER = 2.086, 0.35, 0.55  # of `scan.error_calibration`
BOUND = 2.44  # factor, of the same: the larger of those of networks and of `COMPARED`
NOISE, COILS, EQUISPACED = "noise", "coils", "equispaced lines"
BOUNDS = {NOISE: 2.79, COILS: 2.98, EQUISPACED: 3.87}  # the same for other kinds of scans
NOISY = 0.01  # of the peak, as `noise_level` finds it, from which on a scan is of this kind
WIDER = 1.2  # times the median bound of all frames


@dataclass(frozen=True)
class Evidence:
    """What tells the error of a series without its truth, in the scale that networks get."""

    spread: Tensor  # d, (T, Y, X), smoothed
    other: Tensor  # t, the same
    held_out: float  # h


@dataclass(frozen=True)
class ErrorMap:
    """The expected absolute error of the images of one series."""

    expected: Tensor  # (T, Y, X) float32, in the units of the images, on the CPU
    factor: float  # of the bound
    seconds: float  # that it took

    @property
    def bound(self) -> Tensor:
        """(T, Y, X): 90 % of the pixels are expected to be within it."""
        return self.factor * self.expected


@dataclass(frozen=True)
class Held:
    """What an error map turned out to be worth, where the truth is known."""

    still: float  # share of the pixels within the bound, outside the moving region
    moving: float  # the same in the moving region
    correlation: float  # Spearman's, of map and true error, smoothed as the map is


@torch.no_grad()
def error_map(
    method: Method,
    images: Tensor,
    other: Tensor,
    scale: float,
    measured: Batch,
    is_real: bool,
    seed: int,
    factor: float | None = None,
) -> ErrorMap:
    """The expected error of the images (T, Y, X) that `method` gives.

    Args:
        images: in the units of the input, which are those that networks get times `scale`.
        other: the images of the other method, in the same units.
        measured: the series.
        seed: of the lines that are held out.
        factor: of the bound; None: that of phantoms of the same kinds.

    Raises:
        InputError: there are too few lines to hold some out.
    """
    started = time.perf_counter()
    if factor is None:
        factor = max([BOUND, *(BOUNDS[kind] for kind in kinds_of(measured, is_real))])
    found = evidence(method, images / scale, other / scale, measured, is_real, seed)
    expected = scale * expected_error(found)
    return ErrorMap(expected, factor, time.perf_counter() - started)


def kinds_of(measured: Batch, is_real: bool) -> list[str]:
    """The kinds of `BOUNDS` that a series is of, by what was measured. `is_real`: its images are
    real-valued, with noise that is not white."""
    noise = noise_level(measurement_of(measured.aliased, measured.mask, measured.maps))
    is_of = {
        NOISE: not is_real and measured.maps is None and noise.item() > NOISY,
        COILS: measured.maps is not None,
        EQUISPACED: is_equispaced(measured.mask[0, :, :, 0]),
    }
    return [kind for kind, applies in is_of.items() if applies]


def is_equispaced(lines: Tensor) -> bool:
    """Whether the lines of each frame, (T, Y), are as far from one another everywhere, up to a
    line: aliasing is then a few shifted copies, which all reconstructions may share."""
    spacings = [frame.nonzero()[:, 0].diff() for frame in lines.cpu()]
    return all(len(one) > 1 and one.max() - one.min() <= 1 for one in spacings)


@torch.no_grad()
def evidence(
    method: Method, images: Tensor, other: Tensor, measured: Batch, is_real: bool, seed: int
) -> Evidence:
    """What tells the error of images (T, Y, X); see `error_map`."""
    aliased, mask, maps = measured.aliased, measured.mask, measured.maps
    require_lines(mask, is_real, seed)
    rng = generator(Stream.HELD_OUT, seed, 1)
    magnitude = images.abs().cpu()
    spread, errors = torch.zeros_like(magnitude), []
    for _ in range(DRAWS):
        held = hold_out(aliased, mask, maps, is_real, rng, SHARE)
        again = method(*as_measured(held.given, held.seen, maps))
        spread += (again[0].abs().cpu() - magnitude).square() / DRAWS
        weight = of_coils(held.lines * line_weights(held.often), maps)
        errors.append(line_error(seen_by(again, maps), aliased, weight).item())
    return Evidence(
        smoothed(spread.sqrt()),
        smoothed((other.abs().cpu() - magnitude).abs()),
        float(np.sqrt(np.mean(errors))),
    )


def require_lines(mask: Tensor, is_real: bool, seed: int) -> None:
    """Raise InputError if a mask (1, T, Y, 1) has too few lines to hold some out."""
    rng = generator(Stream.HELD_OUT, seed, 1)
    outside = mask.bool() & ~centre_lines(mask, is_real)
    for _ in range(DRAWS):
        n_held = int((outside & random_lines(outside, SHARE, rng)).sum())
        if n_held < FEWEST:
            raise InputError(
                f"an error map needs {FEWEST} lines outside the centre that can be held out, found"
                f" {n_held}: leave --error-map out"
            )


def expected_error(found: Evidence) -> Tensor:
    """The expected absolute error (T, Y, X) float32; see above."""
    floor = LEAST * max(found.spread.max().item(), found.held_out)  # rounding
    spread, other = found.spread.clamp(min=floor), found.other.clamp(min=floor)
    rest = max(found.held_out, floor) ** (1 - SPREAD - OTHER)
    return LEVEL * spread**SPREAD * other**OTHER * rest


def smoothed(values: Tensor) -> Tensor:
    """Values (T, Y, X), smoothed over space and time."""
    from torchvision.transforms.v2.functional import gaussian_blur

    values = (values.roll(1, 0) + 2 * values + values.roll(-1, 0)) / 4
    reach = min(RADIUS, *(n - 1 for n in values.shape[1:]))
    return gaussian_blur(values, [2 * reach + 1] * 2, [SMOOTH] * 2)


def held_bound(found: ErrorMap, images: Tensor, truth: Tensor) -> Held:
    """What the map of images (T, Y, X) is worth, by the truth."""
    error = (images.abs() - truth.abs()).abs()
    moving = moving_region(truth.abs()[None])[0]
    within = (error <= found.bound).float()
    return Held(
        within[:, ~moving].mean().item(),
        within[:, moving].mean().item(),
        rank_correlation(found.expected, smoothed(error)),
    )


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two tensors of one shape."""
    ranks = [each.flatten().argsort().argsort().double() for each in (first, second)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


def conformal_factor(
    missed: Callable[[float], np.ndarray], promised: float = PROMISED, highest: float = 100.0
) -> float:
    """The smallest factor of a bound that holds the promise for a further series: with n series,
    the mean share of pixels beyond the bound is at most ((n + 1)(1 - promised) - 1) / n.

    Args:
        missed: the share of the pixels of each series beyond the bound of a factor, (n,); it does
            not grow with the factor.

    Raises:
        ValueError: there are too few series for any factor, or `highest` does not suffice.
    """
    low, high = 0.0, highest

    def holds(factor: float) -> bool:
        shares = missed(factor)
        return (shares.sum() + 1) / (len(shares) + 1) <= 1 - promised

    if not holds(high):
        raise ValueError(f"no factor up to {highest:g} holds {promised:g}: give more series")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def curves(found: ErrorMap, region: Tensor) -> dict[str, np.ndarray]:
    """The means over a region (Y, X) by frame, (T,)."""
    named = {"expected error": found.expected, "90 % bound": found.bound}
    return {name: values[:, region].mean(dim=1).numpy() for name, values in named.items()}


def wide_frames(bound: np.ndarray) -> tuple[int, int] | None:
    """First and last of the adjoining frames, counted from 0, in which the mean bound (T,) is much
    wider than in others, around the widest; None: there are none."""
    wide = bound > WIDER * np.median(bound)
    first = last = int(bound.argmax())
    if not wide[first]:
        return None
    while first > 0 and wide[first - 1]:
        first -= 1
    while last + 1 < len(bound) and wide[last + 1]:
        last += 1
    return first, last


def error_line(found: ErrorMap, images: Tensor, truth: Tensor | None) -> str:
    """What the error map of images (T, Y, X) says, in a sentence or two."""
    reference = (images if truth is None else truth).abs()
    moving, peak = moving_region(reference[None])[0], reference.max()
    still, heart = (found.bound[:, each].mean() / peak for each in (~moving, moving))
    wide = wide_frames(curves(found, moving)["90 % bound"])
    frames = "" if wide is None else "; wider in " + frames_in_words(*wide)
    elsewhere = "" if moving.all() else f", {still:.2g} elsewhere"  # of what does not move
    line = (
        f"90 % bound of the error: {heart:.2g} of the peak in the moving region on average"
        f"{elsewhere}{frames}; made in {found.seconds:.1f} s"
    )
    if truth is None:
        return line
    held = held_bound(found, images, truth)
    elsewhere = "" if moving.all() else f" and {held.still:.0%} elsewhere"
    return (
        f"{line}; held by {held.moving:.0%} of the pixels in the moving region{elsewhere}; rank"
        f" correlation of expected and true error {held.correlation:.2f}"
    )


def frames_in_words(first: int, last: int) -> str:
    """Frames counted from 0, in words."""
    return f"frame {first + 1}" if first == last else f"frames {first + 1} to {last + 1}"
