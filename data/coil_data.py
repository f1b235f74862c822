"""Training data of several coils, or one: k-space, a sample at a time.

An array `kspace` [n_samples, n_frames, n_coils, ny, nx], complex and centred, and optionally
`noise` [n_coils, n] or [n_samples, n_coils, n], scans of noise alone, and `mask`, the measured
lines. Each sample is checked, its noise whitened, and scaled so that the largest magnitude of its
combined image is 1. Samples are all fully sampled, or all undersampled, each with its own lines;
others are zero. The missing lines of an undersampled one are taken from its time average for the
image that is scaled and measured.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from CS_mask import as_given, given_lines
from data.coils import coil_images, combined, require_coils, require_noise, whitened
from data.kspace import arrange_mask, is_full, measured_lines
from data.quality import measure
from data.samples import SampleSource
from physics.coils import average_lines
from physics.fourier import undersample
from util.errors import InputError
from util.progress import name_list, progress

COPIES = 6  # of one sample, while it is checked and combined
AXES = "[n_samples, n_frames, n_coils, ny, nx]"


def require_kspace(shape: Sequence[int], dtype: np.dtype, where: str) -> None:
    """Raise InputError unless an array can be k-space of coils."""
    if len(shape) != 5 or 0 in shape or dtype.kind != "c":
        one_coil = len(shape) == 4 and dtype.kind == "c"
        remedy = "one coil is kspace[:, :, None]" if one_coil else "images go under 'dataset'"
        raise InputError(
            f"{where} is {tuple(shape)} {dtype}; expected complex k-space {AXES}, no axis of length"
            f" 0: {remedy}"
        )
    _, n_frames, n_coils, ny, nx = shape
    if n_coils > min(ny, nx) or n_frames > max(ny, nx):
        raise InputError(
            f"{where} is {tuple(shape)}, of {n_frames} frames, {n_coils} coils, {ny} lines and {nx}"
            f" columns; expected {AXES}: np.moveaxis makes it so"
        )


@dataclass
class CoilFindings:
    """What is known of samples of k-space once they have been read."""

    whiten: list[np.ndarray] = field(default_factory=list)  # (C, C) complex64, of each sample
    scales: list[float] = field(default_factory=list)  # that bring the combined images into [0, 1]
    hashes: list[str] = field(default_factory=list)
    measured: list[Any] = field(default_factory=list)  # of the combined images
    notices: list[str] = field(default_factory=list)
    # the measured lines of each, as `CS_mask.Sampling.given` has them; empty: fully sampled
    lines: list[tuple[str, ...]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The same in numbers, texts, lists and dicts."""
        return vars(self) | {"whiten": [matrix.tobytes().hex() for matrix in self.whiten]}

    @classmethod
    def of_json(cls, stored: dict[str, Any]) -> "CoilFindings":
        """The inverse of `as_json`."""
        matrices = [
            np.frombuffer(bytearray.fromhex(text), np.complex64) for text in stored["whiten"]
        ]
        n_coils = math.isqrt(matrices[0].size)
        lines = [tuple(frames) for frames in stored["lines"]]
        whiten = [matrix.reshape(-1, n_coils) for matrix in matrices]
        return cls(**stored | {"whiten": whiten, "lines": lines})


def read_coils(
    stored: SampleSource,
    noise: np.ndarray | None,
    n_samples: int,
    images: Tensor | None,
    where: str,
) -> CoilFindings:
    """Read and check the first samples of k-space in a file.

    Args:
        noise: the scans of noise; None: the corners of k-space are taken.
        images: takes the coil images (n_samples, T, C, Y, X), complex64, if given.

    Raises:
        InputError: a sample cannot be used.
    """
    result = CoilFindings()
    notes: dict[str, list[int]] = {}  # the samples of each
    shown = progress(stored.samples(n_samples), "reading k-space", n_samples, lambda sample: 1)
    for i, sample in enumerate(shown):
        of_sample = f"{where}, sample {i}"
        kspace = np.array(sample, dtype=np.complex64, order="C")
        require_coils(kspace, of_sample)
        measured = measured_lines(kspace, of_sample)
        of_lines = () if is_full(measured) else as_given(measured[None])
        if i and bool(of_lines) != bool(result.lines):
            kinds = ("fully sampled", "undersampled")[:: 1 if of_lines else -1]
            raise InputError(
                f"{of_sample} is {kinds[1]}, and those before are {kinds[0]}; expected samples of"
                " one kind: make two files of them"
            )
        result.lines += of_lines
        scan = noise if noise is None or noise.ndim == 2 else noise[i]
        matrix, note = whitened(kspace, scan, of_sample)
        coils = coil_images(kspace, matrix)
        image = combined(with_average(coils, measured) if of_lines else coils)
        scale = 1 / image.abs().max().item()
        result.whiten.append(matrix)
        result.scales.append(scale)
        digest = hashlib.sha256(kspace.data)
        if scan is not None:
            digest.update(scan.tobytes())  # which decides how it is whitened
        result.hashes.append(digest.hexdigest()[:16])
        of_image = measure(scale * image)
        if of_lines:  # empty lines tell nothing of the image
            of_image["band"] = [0, kspace.shape[2]]
        result.measured.append(of_image)
        if images is not None:
            torch.mul(coils, scale, out=images[i])
        notes.setdefault(note, []).append(i)
    for note, samples in notes.items():
        of_some = "" if len(samples) == n_samples else f", in the samples {name_list(samples)}"
        result.notices.append(note + of_some)
    return result


def require_lines_within(
    mask: np.ndarray, shape: Sequence[int], lines: Sequence[tuple[str, ...]], where: str
) -> None:
    """Raise InputError unless a mask fits k-space of this shape (N, T, C, Y, X), and the measured
    `lines` of its first samples (see `CoilFindings`) are within it."""
    allowed = arrange_mask(mask, "stcyx", shape, where)  # (N, T, Y), some of length 1
    measured = np.stack([given_lines(one) for one in lines]) if lines else np.ones(1, bool)
    beyond = measured & ~allowed[: len(lines) or None]
    if beyond.any():
        raise InputError(
            f"{where}: 'kspace' has values in lines where 'mask' is 0; expected zeros, as of lines"
            " that were not measured: multiply it with the mask, or leave the mask out"
        )


def with_average(coils: Tensor, lines: np.ndarray) -> Tensor:
    """Aliased coil images (T, C, Y, X), whose lines (T, Y) that were not measured are those of the
    time average."""
    mask = torch.from_numpy(lines.astype(np.float32))[None, ..., None]
    average = average_lines(coils.sum(dim=0)[None], mask)
    return coils + undersample(average.expand(coils.shape), 1 - mask[0, :, None])


def require_noise_of(noise: np.ndarray | None, n_samples: int, n_coils: int, where: str) -> None:
    """Raise InputError unless noise can be a scan (C, N) of these coils, or one of each sample."""
    if noise is not None:
        several = noise.ndim == 3 and len(noise) >= n_samples
        for scan in noise[:n_samples] if several else noise[None]:
            require_noise(scan, n_coils, where)


def coil_memory(shape: Sequence[int], n_kept: int, n_bytes_whole: int = 0) -> int:
    """Bytes that are taken at most while k-space (N, T, C, Y, X) is read: `n_kept` samples, and
    copies of one. `n_bytes_whole`: of an array in Fortran order, which is read whole."""
    n_bytes = math.prod(shape[1:]) * np.dtype(np.complex64).itemsize
    return (n_kept + COPIES) * n_bytes + n_bytes_whole
