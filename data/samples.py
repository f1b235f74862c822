"""The samples of a stored dataset: checked, in single precision, and read when they are used."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from data.coils import coil_images
from data.stored import Stored
from util.errors import InputError

REAL_EXCESS = 2.0**-24  # over 1: float32 rounds this to 1
COMPLEX_EXCESS = 1e-5  # over 1: the rounded magnitude of values divided by their magnitude


class SampleSource(Protocol):
    """An array in a file whose items can be read one by one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def mapped(self, i: int) -> np.ndarray: ...

    def samples(self, n: int) -> Iterator[np.ndarray]: ...


class MappedImages(Sequence[Tensor]):
    """Images (n_samples, T, Y, X) in a file, each sample read when it is used: like a tensor of
    them, as far as samples are taken one by one."""

    def __init__(self, stored: Stored, n_samples: int, complex_pairs: bool, normalise: bool):
        self.stored, self.normalise, self.complex_pairs = stored, normalise, complex_pairs
        shape, dtype = stored.shape, stored.dtype
        if complex_pairs:
            shape, dtype = joined_pairs(shape, dtype, str(stored))
        self.shape = (n_samples, *shape[1:])
        self.dtype = single(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        sample = self.stored.mapped(range(len(self))[i])
        if self.complex_pairs:
            (sample,) = complex_samples([sample])
        return torch.from_numpy(converted(sample, self.dtype, self.normalise))

    def is_complex(self) -> bool:
        return self.dtype.kind == "c"


class CoilSamples(Sequence[Tensor]):
    """Coil images (n_samples, T, C, Y, X) of k-space in a file, each made when it is used."""

    def __init__(self, stored: SampleSource, whiten: Sequence[np.ndarray], scales: Sequence[float]):
        """`whiten`, `scales`: of each sample, the matrix (C, C) that whitens its noise, and the
        factor that brings its image into [0, 1]."""
        self.stored, self.whiten, self.scales = stored, whiten, scales
        self.shape = (len(scales), *stored.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        i = range(len(self))[i]
        kspace = np.array(self.stored.mapped(i), dtype=np.complex64)
        return self.scales[i] * coil_images(kspace, self.whiten[i])

    def is_complex(self) -> bool:
        return True


# (n_samples, T, Y, X), or of several coils (n_samples, T, C, Y, X)
Images = Tensor | MappedImages | CoilSamples


def single(dtype: np.dtype) -> np.dtype:
    """The type that values of `dtype` are kept in."""
    return np.dtype(np.complex64 if dtype.kind == "c" else np.float32)


def complex_samples(pairs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Samples of complex values from those whose last axis is real and imaginary part."""
    for pair in pairs:
        sample = np.empty(pair.shape[:-1], np.result_type(pair.dtype, np.complex64))
        sample.real, sample.imag = pair[..., 0], pair[..., 1]
        yield sample


def joined_pairs(
    shape: tuple[int, ...], dtype: np.dtype, data: str
) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of complex values whose real and imaginary part are the array's last axis."""
    if len(shape) != 5 or shape[-1] != 2 or dtype.kind not in "biuf":
        raise InputError(
            f"{data}: the array is {shape} {dtype}, but --complex-pairs expects"
            " [n_samples, n_frames, ny, nx, 2] of real numbers: leave the flag out"
        )
    return shape[:-1], np.result_type(dtype, np.complex64)


def checked(
    samples: Iterable[np.ndarray], dtype: np.dtype, normalise: bool, data: str
) -> Iterator[np.ndarray]:
    """The samples as float32 in [0, 1], or complex64 of magnitude up to 1, without those that
    cannot be; after the last, InputError if there were such.

    Integers and other floats are converted without scaling.
    """
    is_complex = dtype.kind == "c"
    limit = 1 + (COMPLEX_EXCESS if is_complex else REAL_EXCESS)
    low, high, n_bad = np.inf, 0.0, 0
    first: tuple[int, ...] = ()
    for i, sample in enumerate(samples):
        finite = np.isfinite(sample)
        if not finite.all():
            n_bad += int(finite.size - np.count_nonzero(finite))
            place = (int(k) for k in np.unravel_index(finite.argmin(), sample.shape))
            first = first or (i, *place)
            continue
        size = np.abs(sample) if is_complex else sample
        low, high = min(low, float(size.min())), max(high, float(size.max()))
        if low >= 0 and (high <= limit or normalise):  # else it is refused below
            yield converted(sample, dtype, normalise)
    if n_bad:
        raise InputError(
            f"{data}: {n_bad} values are NaN or infinite, the first at {first}: repair or remove"
            " these samples"
        )
    if low < 0 or (high > limit and not normalise):
        raise InputError(
            f"{data}: {'magnitudes' if is_complex else 'values'} lie in [{low:g}, {high:.7g}],"
            " expected [0, 1]: "
            + (
                "magnitude images have no negative values"
                if low < 0
                else "--normalise divides every sample by its maximum"
            )
        )


def converted(sample: np.ndarray, dtype: np.dtype, normalise: bool) -> np.ndarray:
    """A sample in single precision, with `normalise` divided by its maximum; a new array."""
    if normalise:
        peak = (np.abs(sample) if dtype.kind == "c" else sample).max()
        if peak > 0:
            is_whole = sample.dtype.kind in "biu"
            wide = np.dtype(np.float64) if is_whole else np.result_type(sample.dtype, np.float32)
            result = np.empty(sample.shape, dtype)
            scale = np.abs(wide.type(peak))
            return np.divide(sample, scale, out=result, dtype=wide, casting="same_kind")
    return sample.astype(dtype, order="C")
