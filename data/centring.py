"""The centre of k-space and of its images, as files have it: found, and put in the middle.

Axes are (T, C, Y, X): frame, coil, phase-encoding line, readout. Nothing is taken from a name: the
energy of k-space is in one place, its magnitude is symmetric about zero frequency as far as the
phase of the images is smooth, and an image is dark or cut at its borders, not in its middle.
"""

import itertools
import math

import numpy as np
import torch

from data.kspace import NEAR
from physics.fourier import ifftc

KSPACE_SHARE = 0.05  # of the energy within `NEAR` of its peak, of k-space at least
EVEN = 12.0  # times the share of energy that is spread evenly, up to which it may be an image
ROUGH = 0.3  # mean square difference of neighbouring magnitudes over their mean square
# contradiction to symmetry below which another centre is taken, and share of that of the middle
SYMMETRIC, SYMMETRIC_SHARE = 0.1, 0.5
MOST = 0.5  # of the energy, that has to have been compared
WINDOW = 24  # lines and columns on either side of a centre that are compared
CLEAR = 1.0  # sum of logarithms, above which quadrants are taken to be exchanged
STRIP = 24  # of an axis, what counts as its border and its middle


def looks_like_kspace(frames: np.ndarray) -> bool | None:
    """Whether complex (T, C, Y, X) are k-space: neighbouring magnitudes differ (0.41 to 1.4 of
    their mean square in 32 cines; 0.18 at most in images), and over 5 % of the energy is in 5 x 5
    points (images of many pixels: 2 % at most). None: one of both alone."""
    size = np.square(np.abs(np.nan_to_num(frames, posinf=0, neginf=0)), dtype=np.float64)
    energy = size.sum((0, 1))  # (Y, X)
    shifts = [NEAR - peak for peak in np.unravel_index(energy.argmax(), energy.shape)]
    around = np.roll(energy, shifts, (0, 1))[: 2 * NEAR + 1, : 2 * NEAR + 1]
    magnitude = np.sqrt(size.sum(1))  # (T, Y, X)
    steps = [np.square(np.diff(magnitude, axis=axis)).sum() for axis in (1, 2)]
    is_rough = min(steps) > ROUGH * energy.sum()
    share = around.sum() / max(float(energy.sum()), np.finfo(np.float64).tiny)
    if is_rough:
        return True if share > KSPACE_SHARE else None
    return False if share < max(KSPACE_SHARE, EVEN * around.size / energy.size) else None


def peak_of(energy: np.ndarray) -> tuple[int, int]:
    """The line and the column of the highest energy (Y, X)."""
    return int(energy.sum(1).argmax()), int(energy.sum(0).argmax())


def average_over_frames(kspace: np.ndarray) -> np.ndarray:
    """K-space (T, C, Y, X) as (C, Y, X): the mean over the frames that measured a sample."""
    count = np.count_nonzero(kspace, axis=0)
    return (kspace.sum(0) / np.maximum(count, 1)).astype(np.complex64)


def centred(kspace: np.ndarray) -> tuple[np.ndarray, tuple[int, int], list[str]]:
    """K-space (T, C, Y, X) with its centre in the middle: where its energy is highest, and, within
    `NEAR` of there, where it is most symmetric if that is clear.

    Returns:
        the k-space, by how many lines and columns it was rolled, and a note for each.
    """
    count = np.count_nonzero(kspace, axis=0)
    energy = (np.square(np.abs(kspace)).sum(0) / np.maximum(count, 1)).sum(0)  # (Y, X)
    middle, shifts = [n // 2 for n in energy.shape], [0, 0]
    for axis, peak in enumerate(peak_of(np.square(np.abs(kspace)).sum((0, 1)))):
        n = energy.shape[axis]
        if abs(peak - middle[axis]) > NEAR:
            shifts[axis] = middle[axis] - (0 if min(peak, n - peak) <= NEAR else peak)
    size = np.sqrt(np.roll(energy, shifts, (0, 1)))
    off = symmetric_centre(size)
    shifts = [shift - n for shift, n in zip(shifts, off, strict=True)]
    notes = [
        f"the centre of k-space was at {what[:-1]} {(half - shift) % n} of {n}: rolled by {shift}"
        f" {what} to {half}"
        for what, half, shift, n in zip(
            ("lines", "columns"), middle, shifts, energy.shape, strict=True
        )
        if shift
    ]
    if any(shifts):
        kspace = np.roll(kspace, shifts, (2, 3))
    return kspace, (shifts[0], shifts[1]), notes


def symmetric_centre(size: np.ndarray) -> tuple[int, int]:
    """By how many lines and columns the centre of k-space of this magnitude (Y, X) is off the
    middle: where it is most symmetric, as of images whose phase is smooth; 0 if that is not clear.
    """
    contradiction = {}
    near = range(-NEAR, NEAR + 1)
    for off in itertools.product(near, near):
        around = []
        for n, step in zip(size.shape, off, strict=True):
            at = n // 2 + step
            reach = max(0, min(WINDOW, at, n - 1 - at))
            around.append(slice(at - reach, at + reach + 1))
        part = size[tuple(around)]
        both = (part > 0) & (part[::-1, ::-1] > 0)
        energy = 2 * np.square(part[both]).sum()
        difference = np.square((part - part[::-1, ::-1])[both]).sum()
        is_most = energy > MOST * 2 * np.square(size).sum()
        contradiction[off] = float(difference / energy) if is_most else 1.0
    best = min(contradiction, key=lambda off: contradiction[off])
    is_clear = contradiction[best] < min(SYMMETRIC, SYMMETRIC_SHARE * contradiction[0, 0])
    return best if is_clear else (0, 0)


def with_middle_in_the_middle(kspace: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Centred k-space (T, C, Y, X), its image shifted by half of both axes if the quadrants are
    exchanged, as of `fft2` without `ifftshift`; and a note."""
    average = torch.from_numpy(average_over_frames(kspace))
    if not quadrants_exchanged(torch.linalg.vector_norm(ifftc(average), dim=0).numpy()):
        return kspace, []
    for axis in (2, 3):
        n = kspace.shape[axis]
        ramp = np.exp(2j * np.pi * (n // 2) / n * (np.arange(n) - n // 2)).astype(np.complex64)
        kspace = kspace * np.expand_dims(ramp, tuple({0, 1, 2, 3} - {axis}))
    note = "the quadrants of the image were exchanged, as of fft2 without ifftshift: shifted back"
    return kspace, [note]


def quadrants_exchanged(image: np.ndarray) -> bool:
    """Whether the magnitude (Y, X) is bright and smooth across its borders, and dark or broken in
    the middle of both axes: the logarithms of the ratios add up to 1.6 at least in 32 cines, whole
    and cropped, whose quadrants were exchanged, and to -1.6 at most as they are."""
    image = np.sqrt(image)  # so that no bright spot decides
    total = 0.0
    for axis, n in enumerate(image.shape):
        width = max(1, n // STRIP)
        energy = np.square(image).mean(1 - axis)
        across = np.square(np.roll(image, -1, axis) - np.roll(image, 2, axis)).mean(1 - axis)
        values = []
        for profile, half, least in ((energy, width, 0.1), (across, 1, 0.3)):
            strips = [
                np.roll(profile, half - at)[: half + max(half, 2)].mean() for at in (0, n // 2)
            ]
            floor = least * profile.mean() + np.finfo(np.float32).tiny
            values.append(math.log((strips[0] + floor) / (strips[1] + floor)))
        total += values[0] - values[1]
    return total > CLEAR
