"""Seeded Cartesian undersampling masks for compressed-sensing (CS) cine MRI.

A mask samples whole phase-encoding lines: it varies along Y (axis -2) and is constant along the
readout X (axis -1). The lines of each frame are drawn independently, so that the aliasing differs
from frame to frame and looks like noise over time.

Density: Gaussian around the k-space centre on a uniform floor, with a fully sampled centre, as in
  H. Jung et al., "k-t FOCUSS: a general compressed sensing framework for high resolution dynamic
  MRI", Magn Reson Med 61:103-116, 2009, and
  J. Schlemper et al., "A deep cascade of convolutional neural networks for dynamic MR image
  reconstruction", IEEE Trans Med Imaging 37:491-503, 2018.
Drawing without replacement by the largest perturbed log-weights:
  P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", Inf Process Lett 97,
  2006.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from util.random_streams import Stream, generator

Mask = TypeVar("Mask", np.ndarray, Tensor)


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


def cartesian_mask(
    shape: Sequence[int],
    acc: float,
    sample_n: int = 10,
    centred: bool = False,
    seed: int | np.random.Generator | None = None,
) -> np.ndarray:
    """Draw a Cartesian mask, with independent lines for every frame.

    Args:
        shape: (..., Y, X), any leading axes; each leading index is a frame.
        acc: nominal acceleration, at least 1; a frame gets exactly `int(Y / acc)` lines.
        sample_n: number of these lines in the sampled centre, from `Y//2 - sample_n//2` on.
        centred: True puts zero frequency at Y//2; False at 0 (the `ifftshift` of it).
        seed: an int, a `numpy.random.Generator` (advanced by the call), or None for a fresh draw.

    Returns:
        a new float32 array of `shape`, of zeros and ones.

    Raises:
        ValueError: `shape`, `acc` or `sample_n` cannot give such a mask.
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"shape must be (..., Y, X) with positive sizes, got {shape}")
    *leading, ny, nx = shape
    check_lines(ny, acc, sample_n)
    rng = np.random.default_rng(seed)
    lines = gaussian_lines(math.prod(leading), ny, acc, int(sample_n), rng)
    if not centred:
        lines = np.fft.ifftshift(lines, axes=-1)
    return np.repeat(lines[:, :, None], nx, axis=-1).reshape(shape)


def check_lines(ny: int, acc: float, sample_n: float) -> None:
    """Raise ValueError unless a frame of `ny` lines can have `sample_n` in the centre at `acc`."""
    if not math.isfinite(acc) or acc < 1:
        raise ValueError(f"acc must be a finite number of at least 1, got {acc}")
    n_lines = lines_per_frame(ny, acc)
    if n_lines < 1:
        raise ValueError(
            f"acc={acc} leaves none of {ny} lines: choose acc of at most {ny}, the number of lines"
        )
    if sample_n != int(sample_n):
        raise ValueError(f"sample_n must be a whole number, got {sample_n}")
    if not 0 <= sample_n <= n_lines:
        raise ValueError(
            f"sample_n must be between 0 and int({ny} / {acc:g}) = {n_lines} lines a frame,"
            f" got {int(sample_n)}: choose fewer centre lines or a smaller acc"
        )


def gaussian_lines(
    n_frames: int, ny: int, acc: float, centre_lines: int, rng: np.random.Generator
) -> np.ndarray:
    """The lines of each frame drawn from `line_density`, without replacement, and the centre:
    (n_frames, Y) float32, centred."""
    start = ny // 2 - centre_lines // 2
    weight = np.log(line_density(ny, acc))
    weight[start : start + centre_lines] = -np.inf  # already taken
    perturbed = weight + rng.gumbel(size=(n_frames, ny))
    n_drawn = lines_per_frame(ny, acc) - centre_lines
    drawn = np.argsort(-perturbed, axis=-1, kind="stable")[:, :n_drawn]
    lines = np.zeros((n_frames, ny), dtype=np.float32)
    lines[:, start : start + centre_lines] = 1
    np.put_along_axis(lines, drawn, 1, axis=-1)
    return lines


GAUSSIAN = "gaussian"
# To add a pattern, add its function here: the lines (n_frames, Y) float32 of 0 and 1, centred.
PATTERNS: dict[str, Callable[[int, int, float, int, np.random.Generator], np.ndarray]] = {
    GAUSSIAN: gaussian_lines,
}


@dataclass(frozen=True)
class Sampling:
    """Which phase-encoding lines are measured."""

    pattern: str  # one of `PATTERNS`
    acc: tuple[float, float]  # lowest and highest acceleration; each mask draws one between them
    centre_lines: int  # fully sampled lines in the centre of k-space

    def at(self, acc: float) -> "Sampling":
        """The same sampling at one acceleration."""
        return dataclasses.replace(self, acc=(float(acc), float(acc)))

    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """A centred mask (T, Y, 1) float32 for `shape` = (T, Y); ValueError if there is none."""
        low, high = self.acc
        acc = low if low == high else rng.uniform(low, high)
        check_lines(shape[1], acc, self.centre_lines)
        return PATTERNS[self.pattern](*shape, acc, self.centre_lines, rng)[..., None]


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
    generators = [generator(Stream.TRAINING_MASK, seed, *draw) for draw in draws]
    return np.stack([sampling.draw(shape, rng) for rng in generators])


def evaluation_masks(
    samples: Sequence[int], shape: tuple[int, int], sampling: Sampling, data_seed: int
) -> np.ndarray:
    """Centred validation and test masks, (B, T, Y, 1) float32, for `shape` = (T, Y).

    Each depends on `(data_seed, sample)` and the sampling alone, and so never changes.
    """
    generators = [generator(Stream.EVALUATION_MASK, data_seed, 0, sample) for sample in samples]
    return np.stack([sampling.draw(shape, rng) for rng in generators])
