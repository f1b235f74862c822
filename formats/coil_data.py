"""Training data of several coils: fully sampled k-space, a sample at a time.

An array `kspace` [n_samples, n_frames, n_coils, ny, nx], complex and centred, and optionally
`noise` [n_coils, n] or [n_samples, n_coils, n], scans of noise alone. Each sample is checked, its
noise whitened, and scaled so that the largest magnitude of its combined image is 1.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from formats.coils import coil_images, combined, require_coils, require_noise, whitened
from formats.hdf5 import HDF5Array
from formats.kspace import is_full, measured_lines
from formats.samples import CoilSamples, Images
from util.errors import InputError
from util.progress import progress
from util.stored import Stored, require_memory

COPIES = 6  # of one sample, while it is checked and combined
AXES = "[n_samples, n_frames, n_coils, ny, nx]"


def require_kspace(shape: Sequence[int], dtype: np.dtype, where: str) -> None:
    """Raise InputError unless an array can be fully sampled k-space of several coils."""
    if len(shape) != 5 or 0 in shape or dtype.kind != "c":
        raise InputError(
            f"{where} is {tuple(shape)} {dtype}; expected complex k-space {AXES}, no axis of length"
            " 0: images go under the key 'dataset'"
        )
    _, n_frames, n_coils, ny, nx = shape
    if n_coils > min(ny, nx) or n_frames > max(ny, nx):
        raise InputError(
            f"{where} is {tuple(shape)}, of {n_frames} frames, {n_coils} coils, {ny} lines and {nx}"
            f" columns; expected {AXES}: np.moveaxis makes it so"
        )


def read_coils(
    stored: Stored | HDF5Array,
    noise: np.ndarray | None,
    n_samples: int,
    keep: bool,
    where: str,
    examine: Callable[[Tensor], Any],
    remedy: str,
) -> tuple[Images, list[str], list[Any], list[str]]:
    """The first samples of k-space in a file: coil images, hashes, what `examine` finds in the
    combined images (T, Y, X), and notices.

    Args:
        noise: the scans of noise; None: the corners of k-space are taken.
        keep: hold the coil images in memory; else they are made of the file when they are used.
        remedy: what to do if the memory is too small.

    Raises:
        InputError: a sample cannot be used.
    """
    shape = stored.shape[1:]
    n_bytes = math.prod(shape) * np.dtype(np.complex64).itemsize
    whole = stored.n_bytes * stored.is_fortran
    require_memory((n_samples * keep + COPIES) * n_bytes + whole, stored, remedy)
    if noise is not None:
        several = noise.ndim == 3 and len(noise) >= n_samples
        for scan in noise[:n_samples] if several else noise[None]:
            require_noise(scan, shape[1], where)
    images = torch.empty(n_samples if keep else 0, *shape, dtype=torch.complex64)
    whiten: list[np.ndarray] = []
    scales: list[float] = []
    hashes, findings, notices = [], [], []
    shown = progress(stored.samples(n_samples), "reading k-space", n_samples, lambda sample: 1)
    for i, sample in enumerate(shown):
        of_sample = f"{where}, sample {i}"
        kspace = np.array(sample, dtype=np.complex64, order="C")
        require_coils(kspace, of_sample)
        if not is_full(measured_lines(kspace, of_sample)):
            raise InputError(
                f"{of_sample} is undersampled; expected fully sampled k-space, which training"
                " undersamples itself: reconstruct.py takes undersampled scans"
            )
        scan = noise if noise is None or noise.ndim == 2 else noise[i]
        matrix, note = whitened(kspace, scan, of_sample)
        coils = coil_images(kspace, matrix)
        image = combined(coils)
        scale = 1 / image.abs().max().item()
        whiten.append(matrix)
        scales.append(scale)
        digest = hashlib.sha256(kspace.data)
        digest.update(matrix.tobytes())  # which the noise decides
        hashes.append(digest.hexdigest()[:16])
        findings.append(examine(scale * image))
        if keep:
            torch.mul(coils, scale, out=images[i])
        if note not in notices:
            notices.append(note)
    if keep:
        return images, hashes, findings, notices
    stored.mapped(0)  # finds where the array begins while its file is open
    return CoilSamples(stored, whiten, scales), hashes, findings, notices
