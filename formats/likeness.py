"""What the values of an array say about the meaning of its axes.

Neighbours in time are more alike than neighbouring pixels: their root mean square difference was
0.12 to 0.97 of that of neighbouring pixels in 32 cines (images and k-space, undersampled, noisy),
and 3.2 to 9.4 times as large between coils and between slices. In most places frames differ by
noise alone, by 0.005 to 0.07 at coarse resolution; coils by 0.2 to 1. Coils show the edges of one
image: what they share of their edges was 0.67 to 0.93 in simulated coils, 0.13 to 0.51 in slices.

K-space is compared as it is: by Parseval's theorem its differences in time are those of the images,
and neighbouring pixels differ by the k-space times `2 sin(pi k / n)`.
"""

import numpy as np
import torch

from data.centring import average_over_frames, peak_of
from physics.fourier import fftc, ifftc

AS_TIME = 1.15  # times the difference of pixels, up to which neighbours are most likely frames
IN_PLACE = 0.05, 0.19  # relative change up to which they are frames if they differ more, or less
COARSE = 32  # lines and columns of k-space of the images in which it is measured
BRIGHT, QUANTILE = 0.3, 0.98  # of this quantile, what counts as bright
COILS, SLICES = 0.63, 0.55  # share of common edges, above which are coils, below which slices
CENTRE = 48  # lines and columns of k-space whose images are compared
TILE = 4  # pixels of the tiles in which edges are compared


def change_in_time(frames: np.ndarray, is_kspace: bool) -> float:
    """Root mean square difference of neighbouring frames (T, C, Y, X) over that of neighbouring
    pixels, along the axis where it is smaller; of k-space with lines missing, along the readout."""
    values = frames if is_kspace else np.abs(frames)
    there = values != 0
    both = there[1:] & there[:-1] if is_kspace else np.ones(values[1:].shape, bool)
    size = np.square(np.abs(values), dtype=np.float64)
    if not size.any():
        return 0.0
    in_time = (np.square(np.abs(np.diff(values, axis=0)), dtype=np.float64) * both).sum()
    of_both = ((size[1:] + size[:-1]) * both).sum() / 2
    of_pixels = []
    if is_kspace:
        energy = (size.sum(0) / np.maximum(there.sum(0), 1)).sum(0)  # (Y, X)
        for axis, peak in enumerate(peak_of(energy)):
            n, profile = energy.shape[axis], energy.sum(1 - axis)
            weight = 4 * np.sin(np.pi * (np.arange(n) - peak) / n) ** 2
            if (profile > 0).all() or axis:  # lines may be missing, and with them resolution
                of_pixels.append((profile * weight).sum() / energy.sum())
    else:
        for axis in (2, 3):
            step = np.square(np.diff(values, axis=axis), dtype=np.float64).sum()
            of_pixels.append(step / size.sum())
    least = min(of_pixels) * of_both
    return float(np.sqrt(in_time / least)) if least > 0 else 0.0


def common_edges(frames: np.ndarray, is_kspace: bool) -> float:
    """The share of their edges that the channels of (T, N, Y, X) have in common: coils do, whose
    sensitivities are smooth, slices do not. Compared are images of the centre of k-space."""
    if is_kspace:
        kspace = average_over_frames(frames)
    else:
        mean = np.ascontiguousarray(frames.mean(0))
        kspace = fftc(torch.from_numpy(mean)).numpy()
    images = ifftc(torch.from_numpy(central_block(kspace))).numpy()
    edges = np.stack((np.diff(images, axis=1)[..., :-1], np.diff(images, axis=2)[:, :-1]))
    ny, nx = (n // TILE for n in edges.shape[2:])
    edges = edges[..., : ny * TILE, : nx * TILE].reshape(2, len(images), ny, TILE, nx, TILE)
    products = np.abs(np.einsum("dnyaxb,dmyaxb->nmyx", edges, edges.conj()))
    own = np.sqrt(np.einsum("nnyx->nyx", products))
    others = ~np.eye(len(images), dtype=bool)
    most = np.einsum("nyx,myx->nm", own, own)[others].sum()
    return float(products[others].sum() / most) if most > 0 else 0.0


def change_in_place(frames: np.ndarray, is_kspace: bool) -> float:
    """How much neighbouring frames (T, C, Y, X) differ in most places: the median over the bright
    pixels of images of the centre of k-space, relative. A heart moves in few of them."""
    kspace = frames
    if not is_kspace:
        kspace = fftc(torch.from_numpy(np.ascontiguousarray(np.abs(frames)))).numpy()
    energy = np.square(np.abs(kspace)).sum((0, 1))
    for axis, peak in enumerate(peak_of(energy), 2):
        n = kspace.shape[axis]
        kspace = np.roll(kspace, n // 2 - peak, axis)
        kspace = kspace.take(range(max(0, (n - COARSE) // 2), min(n, (n + COARSE) // 2)), axis)
    both = (kspace[1:] != 0) & (kspace[:-1] != 0)
    first, second = (
        ifftc(torch.from_numpy(np.ascontiguousarray(part * both))).abs().numpy()
        for part in (kspace[1:], kspace[:-1])
    )
    mean = (first + second) / 2
    bright = mean > BRIGHT * np.quantile(mean, QUANTILE)
    return float(np.median(np.abs(first - second)[bright] / mean[bright])) if bright.any() else 0.0


def are_frames(frames: np.ndarray, is_kspace: bool) -> bool:
    """Whether (T, C, Y, X) change along their first axis as frames do, and not as slices or coils:
    in few places, and less than between neighbouring pixels. Aliasing spreads a change, so it is
    not looked for in place where lines are missing."""
    in_time = change_in_time(frames, is_kspace)
    is_aliased = is_kspace and not (frames != 0).any((1, 3)).all()
    if is_aliased or not in_time:
        return in_time < AS_TIME
    return change_in_place(frames, is_kspace) < IN_PLACE[int(in_time < AS_TIME)]


def central_block(kspace: np.ndarray) -> np.ndarray:
    """The part of k-space (N, Y, X) around its peak in which all lines were measured."""
    energy = np.square(np.abs(kspace)).sum(0)
    for axis, peak in enumerate(peak_of(energy)):
        filled = np.roll(energy.sum(1 - axis) > 0, len(energy.sum(1 - axis)) // 2 - peak)
        n = len(filled)
        gaps = np.flatnonzero(~filled) - n // 2
        reach = min([CENTRE // 2, n // 2, *np.abs(gaps).tolist()])
        kspace = np.roll(kspace, n // 2 - peak, axis + 1)
        kspace = kspace.take(range(n // 2 - reach, n // 2 + max(reach, 1)), axis + 1)
    return np.ascontiguousarray(kspace)
