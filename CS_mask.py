"""Seeded Cartesian undersampling masks for compressed-sensing (CS) cine MRI.

A mask samples whole phase-encoding lines: it varies along Y (axis -2) and is constant along the
readout X (axis -1). Each pattern is a function that gives the lines of every frame; its docstring
has its law, its number of lines and its source. To add a pattern, add it to `PATTERNS`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from util.random_streams import Stream, generator

Mask = TypeVar("Mask", np.ndarray, Tensor)
Value = TypeVar("Value")
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2  # of the shorter part to the longer one


def line_density(ny: int, acc: float) -> np.ndarray:
    """Unnormalised sampling density of the `ny` centred phase-encoding lines, shape (Y,).

    `exp(-(y - ny//2)^2 / (2 (ny/10)^2)) + 1 / (2 acc)`: a Gaussian with a standard deviation of a
    tenth of the lines, on a uniform floor.
    """
    y = np.arange(ny)
    return np.exp(-0.5 * ((y - ny // 2) / (ny / 10)) ** 2) + 1 / (2 * acc)


def lines_per_frame(ny: int, acc: float) -> int:
    """Number of the `ny` phase-encoding lines that a frame measures at acceleration `acc`."""
    return int(ny / acc)


def centre_of(ny: int, centre_lines: int) -> slice:
    """The fully sampled centre of `ny` centred lines."""
    start = ny // 2 - centre_lines // 2
    return slice(start, start + centre_lines)


# -- patterns: (n_frames, ny, acc, centre_lines, rng) to lines (n_frames, Y) bool, centred


def gaussian_lines(
    n_frames: int, ny: int, acc: float, centre_lines: int, rng: np.random.Generator
) -> np.ndarray:
    """Variable density: the centre, and lines of every frame drawn from `line_density`.

    `int(Y / acc)` lines a frame, the centre among them. Density as in H. Jung et al., "k-t FOCUSS:
    a general compressed sensing framework for high resolution dynamic MRI", Magn Reson Med
    61:103-116, 2009, and J. Schlemper et al., "A deep cascade of convolutional neural networks for
    dynamic MR image reconstruction", IEEE Trans Med Imaging 37:491-503, 2018.
    """
    n_drawn = lines_per_frame(ny, acc) - centre_lines
    return _random_lines(n_frames, line_density(ny, acc), n_drawn, centre_of(ny, centre_lines), rng)


def uniform_lines(
    n_frames: int, ny: int, acc: float, centre_lines: int, rng: np.random.Generator
) -> np.ndarray:
    """Uniform density: the centre, and lines of every frame drawn with equal probability.

    `int(Y / acc)` lines a frame, the centre among them. The "random" masks of J. Zbontar et al.,
    "fastMRI: an open dataset and benchmarks for accelerated MRI", arXiv:1811.08839, 2018, which
    are the same in all frames there, and of another number of lines.
    """
    n_drawn = lines_per_frame(ny, acc) - centre_lines
    return _random_lines(n_frames, np.ones(ny), n_drawn, centre_of(ny, centre_lines), rng)


def equispaced_lines(
    n_frames: int, ny: int, acc: float, centre_lines: int, rng: np.random.Generator
) -> np.ndarray:
    """Every acc-th line, shifted by one line from frame to frame, and the centre on top.

    The first shift is random. All lines are measured in `ceil(acc)` successive frames. A spacing
    that is not whole is rounded line by line. TSENSE: P. Kellman et al., "Adaptive sensitivity
    encoding incorporating temporal filtering (TSENSE)", Magn Reson Med 45:846-852, 2001; TGRAPPA:
    F. Breuer et al., "Dynamic autocalibrated parallel imaging using temporal GRAPPA (TGRAPPA)",
    Magn Reson Med 53:981-985, 2005.
    """
    first = rng.integers(math.ceil(acc))
    return _with_centre(_comb(ny, acc, first + np.arange(n_frames)), centre_lines)


def equispaced_static_lines(
    n_frames: int, ny: int, acc: float, centre_lines: int, rng: np.random.Generator
) -> np.ndarray:
    """Every acc-th line from a random one on, the same in all frames, and the centre on top.

    The "equispaced" masks of fastMRI (see `uniform_lines`), and those of C. Wang et al.,
    "CMRxRecon: a publicly available k-space dataset and benchmark to advance deep learning for
    cardiac MRI", Sci Data 11:687, 2024, which begin at line 0 and have 24 lines in the centre.
    """
    first = rng.integers(math.ceil(acc))
    return _with_centre(_comb(ny, acc, np.full(n_frames, first)), centre_lines)


def golden_step_lines(
    n_frames: int, ny: int, acc: float, centre_lines: int, rng: np.random.Generator
) -> np.ndarray:
    """Every acc-th line, shifted from frame to frame by the golden ratio of the spacing, and the
    centre on top.

    The first shift is random. M. Joshi et al., "Technical report (v1.0): pseudo-random Cartesian
    sampling for dynamic MRI", arXiv:2206.03630, 2022 (there with a density, as
    `golden_step_density_lines`).
    """
    return _with_centre(_comb(ny, acc, acc * _golden_steps(n_frames, rng)), centre_lines)


def golden_step_density_lines(
    n_frames: int, ny: int, acc: float, centre_lines: int, rng: np.random.Generator
) -> np.ndarray:
    """Lines spaced by `line_density`, closest at the centre, shifted from frame to frame by the
    golden ratio of the spacing, and the centre on top.

    `int(Y / acc)` lines a frame before the centre. Source as of `golden_step_lines`; the spacing is
    that of systematic sampling: W. Madow, "On the theory of systematic sampling, II", Ann Math Stat
    20:333-354, 1949.
    """
    n_lines = lines_per_frame(ny, acc)
    share = _shares(line_density(ny, acc), n_lines)
    reached = np.concatenate([[0], np.cumsum(share)])
    reached[-1] = n_lines
    numbers = np.floor(reached + _golden_steps(n_frames, rng)[:, None])
    return _with_centre(np.diff(numbers) > 0, centre_lines)


def kt_uniform_lines(
    n_frames: int, ny: int, acc: float, centre_lines: int, rng: np.random.Generator
) -> np.ndarray:
    """`equispaced` without the random first shift: line 0 is measured in frame 0.

    "ktUniform" of Z. Wang et al., "CMRxRecon2024: a multimodality, multiview k-space dataset
    boosting universal machine learning for accelerated cardiac MRI", Radiol Artif Intell 7:e240443,
    2025, which has 16 lines in the centre.
    """
    return _with_centre(_comb(ny, acc, np.arange(n_frames)), centre_lines)


def kt_gaussian_lines(
    n_frames: int, ny: int, acc: float, centre_lines: int, rng: np.random.Generator
) -> np.ndarray:
    """Variable density: lines of every frame drawn with the density
    `0.1 + 0.25 exp(-(y - ny//2)^2 / (ny/5)^2)`, and the centre on top.

    `round(Y / acc)` lines a frame before the centre. "ktGaussian" of CMRxRecon2024 (see
    `kt_uniform_lines`), whose draws are with replacement and then moved apart.
    """
    y = np.arange(ny) - ny // 2
    density = 0.1 + 0.25 * np.exp(-((y / (ny / 5)) ** 2))
    lines = _random_lines(n_frames, density, round(ny / acc), slice(0), rng)
    return _with_centre(lines, centre_lines)


def _random_lines(
    n_frames: int, density: np.ndarray, n_drawn: int, centre: slice, rng: np.random.Generator
) -> np.ndarray:
    """The lines of `centre`, and `n_drawn` others drawn without replacement.

    By the largest perturbed log-weights: P. Efraimidis and P. Spirakis, "Weighted random sampling
    with a reservoir", Inf Process Lett 97:181-185, 2006.
    """
    weight = np.log(density)
    weight[centre] = -np.inf  # already taken
    perturbed = weight + rng.gumbel(size=(n_frames, len(density)))
    drawn = np.argsort(-perturbed, axis=-1, kind="stable")[:, :n_drawn]
    lines = np.zeros((n_frames, len(density)), dtype=bool)
    lines[:, centre] = True
    np.put_along_axis(lines, drawn, True, axis=-1)
    return lines


def _comb(ny: int, spacing: float, shifts: np.ndarray) -> np.ndarray:
    """Lines at the multiples of a spacing, rounded down, shifted by so many lines in each frame."""
    y = np.arange(ny) - shifts[:, None]
    return np.floor(-y / spacing) > np.floor(-(y + 1) / spacing)


def _golden_steps(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """A random first number in [0, 1), and those that golden-ratio steps lead to, modulo 1."""
    return (rng.random() + GOLDEN_RATIO * np.arange(n_frames)) % 1


def _shares(density: np.ndarray, total: int) -> np.ndarray:
    """The density scaled to a sum of `total`, with no value above 1."""
    full = np.zeros(len(density), dtype=bool)
    while True:
        scale = (total - full.sum()) / density[~full].sum() if not full.all() else 1.0
        share = np.where(full, 1.0, scale * density)
        if not (share > 1).any():
            return share
        full |= share >= 1


def _with_centre(lines: np.ndarray, centre_lines: int) -> np.ndarray:
    lines[:, centre_of(lines.shape[-1], centre_lines)] = True
    return lines


# -- masks


@dataclass(frozen=True)
class Pattern:
    """A law for the lines of a mask."""

    lines: Callable[[int, int, float, int, np.random.Generator], np.ndarray]
    centre_counts: bool  # the centre is among the `int(Y / acc)` lines; False: it comes on top


PATTERNS = {
    "gaussian": Pattern(gaussian_lines, centre_counts=True),
    "uniform": Pattern(uniform_lines, centre_counts=True),
    "equispaced": Pattern(equispaced_lines, centre_counts=False),
    "equispaced_static": Pattern(equispaced_static_lines, centre_counts=False),
    "golden_step": Pattern(golden_step_lines, centre_counts=False),
    "golden_step_density": Pattern(golden_step_density_lines, centre_counts=False),
    "kt_uniform": Pattern(kt_uniform_lines, centre_counts=False),
    "kt_gaussian": Pattern(kt_gaussian_lines, centre_counts=False),
}


UNNAMED = "gaussian"  # the pattern of older runs and weights, which name none


class Condition(NamedTuple):
    """What methods are compared at."""

    pattern: str | None  # None: each mask has its own
    acc: float | None  # nominal acceleration; None: each mask has its own

    def title(self, with_pattern: bool) -> str:
        """It in words: "acceleration 6, uniform lines"."""
        acc = "" if self.acc is None else f"acceleration {self.acc:g}"
        pattern = f"{self.pattern} lines" if with_pattern and self.pattern else ""
        return ", ".join(filter(None, (acc, pattern)))


@dataclass(frozen=True)
class Sampling:
    """Which phase-encoding lines are measured. Of several patterns, numbers of centre lines and
    shares, each mask draws one, with equal probability."""

    patterns: tuple[str, ...]  # of `PATTERNS`, or the name of the file of the given masks
    acc: tuple[float, float]  # lowest and highest acceleration; each mask draws one between them
    centre_lines: tuple[int, ...]  # fully sampled lines in the centre of k-space
    partial_fourier: tuple[float, ...] = (1.0,)  # share of k-space, from one side on, with lines
    # masks of which one is drawn; a word of zeros and ones, centred, for each frame; (): by pattern
    given: tuple[tuple[str, ...], ...] = ()
    # the given masks are those that the samples were measured with, one each, in their order
    measured: bool = False

    def __str__(self) -> str:
        low, high = self.acc
        return self.text((low,)) if low == high else self.text((f"{low:g} to {high:g}",))

    def text(self, accelerations: Sequence[float | str]) -> str:
        """The sampling in words, at these accelerations."""
        shares = either(self.partial_fourier)
        return (
            f"{either(self.patterns)} lines at acceleration {either(accelerations)}, with"
            f" {either(self.centre_lines)} centre lines"
            + (f" and {shares} partial Fourier" if shares != "1" else "")
        )

    @property
    def condition(self) -> Condition:
        """What all masks have in common."""
        (low, high), pattern = self.acc, self.patterns[0]
        return Condition(pattern if len(self.patterns) == 1 else None, low if low == high else None)

    def at(self, condition: Condition) -> "Sampling":
        """The same sampling of one pattern at one acceleration."""
        pattern, acc = condition
        assert pattern is not None
        assert acc is not None
        return dataclasses.replace(self, patterns=(pattern,), acc=(float(acc), float(acc)))

    def parts(self) -> list["Sampling"]:
        """The samplings of one pattern, one number of centre lines and one share."""
        several = itertools.product(self.patterns, self.centre_lines, self.partial_fourier)
        return [
            dataclasses.replace(
                self, patterns=(pattern,), centre_lines=(centre_lines,), partial_fourier=(share,)
            )
            for pattern, centre_lines, share in several
        ]

    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """A centred mask (T, Y, 1) float32 for `shape` = (T, Y); ValueError if there is none."""
        low, high = self.acc
        acc = rng.uniform(low, high) if low < high else low
        n_frames, ny = shape
        if self.given:
            lines = given_lines(self.given[rng.integers(len(self.given))])
            return lines[..., None].astype(np.float32)
        pattern, centre_lines = _drawn(self.patterns, rng), _drawn(self.centre_lines, rng)
        share = _drawn(self.partial_fourier, rng)
        check_mask(pattern, ny, acc, centre_lines, share)
        lines = PATTERNS[pattern].lines(n_frames, ny, acc, int(centre_lines), rng)
        lines[:, : first_line(ny, share)] = False
        return lines[..., None].astype(np.float32)


def first_line(ny: int, partial_fourier: float) -> int:
    """The first of `ny` centred lines that partial Fourier leaves."""
    return ny - math.ceil(partial_fourier * ny)


def check_mask(
    pattern: str, ny: int, acc: float, centre_lines: float, partial_fourier: float
) -> None:
    """Raise ValueError if there is no such mask of `ny` lines."""
    if pattern not in PATTERNS:
        raise ValueError(f"unknown pattern {pattern!r}, expected one of {', '.join(PATTERNS)}")
    if not math.isfinite(acc) or acc < 1:
        raise ValueError(f"acc must be a finite number of at least 1, got {acc}")
    n_lines = lines_per_frame(ny, acc)
    if n_lines < 1:
        raise ValueError(
            f"acc={acc} leaves none of {ny} lines: choose acc of at most {ny}, the number of lines"
        )
    if centre_lines != int(centre_lines):
        raise ValueError(f"sample_n must be a whole number, got {centre_lines}")
    counted = PATTERNS[pattern].centre_counts
    if not 0 <= centre_lines <= (n_lines if counted else ny):
        of = f"int({ny} / {acc:g}) = {n_lines} lines a frame" if counted else f"{ny} lines"
        raise ValueError(
            f"sample_n must be between 0 and {of}, got {int(centre_lines)}: choose fewer centre"
            " lines" + (" or a smaller acc" if counted else "")
        )
    if not 0.5 < partial_fourier <= 1:
        raise ValueError(f"partial_fourier must be above 0.5 and at most 1, got {partial_fourier}")
    if first_line(ny, partial_fourier) > centre_of(ny, int(centre_lines)).start:
        raise ValueError(
            f"partial_fourier={partial_fourier:g} cuts some of the {int(centre_lines)} centre"
            " lines off: choose a larger share or fewer lines"
        )


def _drawn(values: tuple[Value, ...], rng: np.random.Generator) -> Value:
    """One of the values; the only one, without a random number."""
    return values[rng.integers(len(values))] if len(values) > 1 else values[0]


def either(values: Iterable[float | str]) -> str:
    """The different values in words: "4, 8 or 12"."""
    words = (value if isinstance(value, str) else f"{value:g}" for value in values)
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} or {last}" if first else last


def as_given(masks: np.ndarray) -> tuple[tuple[str, ...], ...]:
    """Masks (N, T, Y) bool, centred, as `Sampling.given`."""
    return tuple(tuple("".join("01"[int(line)] for line in t) for t in mask) for mask in masks)


def given_lines(mask: tuple[str, ...]) -> np.ndarray:
    """The lines (T, Y) bool of one of `Sampling.given`."""
    return np.array([list(frame) for frame in mask]) == "1"


def cartesian_mask(
    shape: Sequence[int],
    acc: float,
    sample_n: int = 10,
    centred: bool = False,
    seed: int | np.random.Generator | None = None,
    pattern: str = "gaussian",
    partial_fourier: float = 1.0,
) -> np.ndarray:
    """Draw Cartesian masks.

    Args:
        shape: (..., T, Y, X) or (Y, X), any leading axes: a mask for each, of T frames.
        acc: nominal acceleration, at least 1.
        sample_n: number of lines in the sampled centre, from `Y//2 - sample_n//2` on.
        centred: True puts zero frequency at Y//2; False at 0 (the `ifftshift` of it).
        seed: an int, a `numpy.random.Generator` (advanced by the call), or None for a fresh draw.
        pattern: one of `PATTERNS`; the docstring of its function has the number of lines.
        partial_fourier: share of k-space, from one side on, that lines are taken from.

    Returns:
        a new float32 array of `shape`, of zeros and ones.

    Raises:
        ValueError: these cannot give such a mask.
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"shape must be (..., Y, X) with positive sizes, got {shape}")
    *leading, ny, nx = shape
    n_masks, n_frames = math.prod(leading[:-1]), leading[-1] if leading else 1
    sampling = Sampling((pattern,), (acc, acc), (sample_n,), (partial_fourier,))
    rng = np.random.default_rng(seed)
    masks = np.stack([sampling.draw((n_frames, ny), rng) for _ in range(n_masks)])
    if not centred:
        masks = np.fft.ifftshift(masks, axes=-2)
    return np.repeat(masks, nx, axis=-1).reshape(shape)


def hermitian_mirror(mask: Mask) -> Mask:
    """The conjugate-symmetric partners of the sampled lines of centred masks (..., Y, 1).

    The k-space of a real image is Hermitian: line i of Y centred lines determines line
    `(2 (Y // 2) - i) mod Y`.
    """
    ny = mask.shape[-2]
    return mask[..., (2 * (ny // 2) - np.arange(ny)) % ny, :]


def training_masks(
    draws: Sequence[tuple[int, int]], shape: tuple[int, int], sampling: Sampling, seed: int
) -> np.ndarray:
    """Centred masks for training, (B, T, Y, 1) float32, for `shape` = (T, Y).

    `draws`: (round, sample) of each mask, which depends on `(seed, round, sample)` alone.
    """
    if sampling.measured:
        return _measured_masks([sample for _, sample in draws], sampling)
    generators = [generator(Stream.TRAINING_MASK, seed, *draw) for draw in draws]
    return np.stack([sampling.draw(shape, rng) for rng in generators])


def evaluation_masks(
    samples: Sequence[int], shape: tuple[int, int], sampling: Sampling, data_seed: int
) -> np.ndarray:
    """Centred validation and test masks, (B, T, Y, 1) float32, for `shape` = (T, Y).

    Each depends on `(data_seed, sample)` and the sampling alone, and so never changes.
    """
    if sampling.measured:
        return _measured_masks(samples, sampling)
    generators = [generator(Stream.EVALUATION_MASK, data_seed, 0, sample) for sample in samples]
    return np.stack([sampling.draw(shape, rng) for rng in generators])


def _measured_masks(samples: Sequence[int], sampling: Sampling) -> np.ndarray:
    """The masks that samples were measured with, (B, T, Y, 1) float32."""
    masks = np.stack([given_lines(sampling.given[sample]) for sample in samples])
    return masks[..., None].astype(np.float32)
