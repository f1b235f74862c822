"""Receive coils around the chest: what each loop sees, and the noise that they share.

A loop receives by reciprocity: its sensitivity is the field `Bx - i By` that a current in it would
make (law of Biot and Savart), in the plane of the image. Coils differ in gain and couple to their
neighbours, so their noise is correlated. A scan of noise alone whitens it, as on a scanner.

Conventions: lengths are in halves of the longer side of the image; x along X, y along Y, z through
the plane. All random numbers of a sample come from one generator, seeded by `(seed, sample)` alone.

Reference: D. I. Hoult, "The principle of reciprocity in signal strength calculations: a
mathematical guide", Concepts Magn Reson 12:173-187, 2000.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from physics.coils import expand, mixed, noise_covariance, whitening
from physics.fourier import fftc
from physics.simulation import white_noise
from util.random_streams import Stream, generator

AROUND = (1.25, 1.5), (1.15, 1.4)  # half axes, along x and y, of the ellipse of the loops' centres
WIRE = 0.15  # half-width of the wire, within which the field stays finite
SEGMENTS = 24  # of a loop
COARSE = 48  # points along the longer side at which fields are computed; they are smooth
GAIN = 0.25  # spread of the logarithm of the coils' gains
COUPLING = 0.15  # of neighbours, relative
NOISE_SAMPLES = 4096  # of the scan of noise alone


def receive_coils(
    n: int, shape: tuple[int, int], seed: int, sample: int, noisy: bool
) -> tuple[Tensor, Tensor]:
    """The coils of a patient, after their noise was whitened.

    Args:
        n: number of coils.
        shape: (Y, X).
        noisy: False: there is no noise, so nothing is whitened.

    Returns:
        the sensitivities (C, Y, X) complex64, of norm 1 at every pixel but for the error of the
        measured covariance; and the matrix (C, C) that turns white noise into what is left of the
        coils' noise.
    """
    maps, colour, rng = _coils(n, shape, seed, sample, noisy)
    mixing = torch.eye(n, dtype=torch.complex64)
    if noisy:
        scan = colour @ white_noise((n, NOISE_SAMPLES), 1.0, rng)
        mixing = whitening(noise_covariance(scan)) @ colour
    return mixed(mixing, maps), mixing


def coil_scan(
    images: Tensor, n: int, noise: float, seed: int = 0, sample: int = 0
) -> tuple[Tensor, Tensor]:
    """What a scanner with `n` coils measures of images (T, Y, X), as raw data.

    Args:
        noise: standard deviation of the mean coil's noise, in real and imaginary part each, for
            images with a peak of 1.

    Returns:
        fully sampled centred k-space (T, C, Y, X), and a scan of noise alone (C, N), complex64.
    """
    shape = images.shape[-2], images.shape[-1]
    maps, colour, rng = _coils(n, shape, seed, sample, noise > 0)
    kspace = fftc(expand(images[None], maps[None])[0])
    kspace = kspace + white_noise(tuple(kspace.shape), noise, rng)
    scan = white_noise((n, NOISE_SAMPLES), noise, rng)
    return mixed(colour, kspace), colour @ scan


def _coils(
    n: int, shape: tuple[int, int], seed: int, sample: int, noisy: bool
) -> tuple[Tensor, Tensor, np.random.Generator]:
    """The sensitivities (C, Y, X) of norm 1 that perfect whitening would leave; the matrix (C, C)
    that gives the coils the noise, and the sensitivities, that they have; random numbers."""
    rng = generator(Stream.COILS, seed, sample)
    fields = torch.view_as_real(_coarse_fields(n, shape, seed, sample)).permute(0, 3, 1, 2)
    fields = F.interpolate(fields, shape, mode="bilinear", align_corners=True)
    maps = torch.complex(*fields.unbind(1))  # (C, Y, X), of the coils as they are
    colour = torch.eye(n, dtype=torch.complex64)
    if noisy:
        colour = noise_mixing(n, rng)
        maps = mixed(torch.linalg.inv(colour), maps)
    return maps / torch.linalg.vector_norm(maps, dim=0), colour, rng


def noise_mixing(n: int, rng: np.random.Generator) -> Tensor:
    """The matrix (C, C) that turns white noise into the noise of coupled coils of different gains;
    their mean variance is 1."""
    neighbours = np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0)
    phases = np.exp(2j * math.pi * rng.random((n, n)))
    coupled = np.eye(n) + COUPLING * (n > 1) * neighbours * phases
    coupled = rng.lognormal(0, GAIN, (n, 1)) * coupled
    coupled /= math.sqrt(np.square(np.abs(coupled)).sum() / n)
    return torch.from_numpy(coupled.astype(np.complex64))


@functools.lru_cache(maxsize=512)  # of 18 kB a coil
def _coarse_fields(n: int, shape: tuple[int, int], seed: int, sample: int) -> Tensor:
    """The sensitivities (C, y, x) complex64 on a coarse grid over the image."""
    rng = generator(Stream.COILS, seed, sample, 1)
    longer = max(shape)
    y, x = (
        torch.linspace(-1, 1, max(2, round(COARSE * size / longer))) * (size / longer)
        for size in shape
    )
    half_axes = [rng.uniform(*limits) for limits in AROUND]
    turn = rng.uniform(0, 2 * math.pi)
    loops = [_loop(rng, turn + 2 * math.pi * i / n, half_axes, n) for i in range(n)]
    return torch.stack([_field(loop, x, y) for loop in loops])


def _loop(rng: np.random.Generator, angle: float, half_axes: Sequence[float], n: int) -> np.ndarray:
    """Points (SEGMENTS, 3) on a loop that faces the body at this angle; `n` loops overlap a
    little."""
    angle += rng.normal(0, 0.25 / n)
    centre = np.array([half_axes[0] * math.cos(angle), half_axes[1] * math.sin(angle), 0])
    centre[2] = rng.normal(0, 0.15)
    facing = angle + rng.normal(0, 0.15)
    along = np.array([-math.sin(facing), math.cos(facing), 0])  # in the plane of the image
    radius = min(0.8, max(0.3, 1.15 * math.pi * sum(half_axes) / 2 / n)) * rng.uniform(0.9, 1.1)
    steps = 2 * math.pi * np.arange(SEGMENTS) / SEGMENTS
    circle = np.cos(steps)[:, None] * along + np.sin(steps)[:, None] * np.array([0, 0, 1])
    return centre + radius * circle


def _field(loop: np.ndarray, x: Tensor, y: Tensor) -> Tensor:
    """`Bx - i By` (y, x) of a current in a loop, in arbitrary units, at z = 0."""
    middle = torch.from_numpy((loop + np.roll(loop, -1, axis=0)) / 2).float()
    wire = torch.from_numpy(np.roll(loop, -1, axis=0) - loop).float()
    field = torch.zeros(len(y), len(x), dtype=torch.complex64)
    for (px, py, pz), (lx, ly, lz) in zip(middle.tolist(), wire.tolist(), strict=True):
        rx, ry, rz = (x - px)[None], (y - py)[:, None], -pz
        cubed = (rx.square() + ry.square() + rz**2 + WIRE**2).pow(1.5)
        bx, by = (ly * rz - lz * ry) / cubed, (lz * rx - lx * rz) / cubed
        field += torch.complex(bx, -by)
    return field
