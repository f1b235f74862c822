"""K-space of several coils, fully sampled or not: checked, and its noise whitened.

K-space is (T, C, Y, X) complex64, centred: frame, coil, phase-encoding line, readout. The noise of
coils is known from a scan of noise alone, or estimated from the corners of k-space, where there is
hardly any signal.
"""

import numpy as np
import torch
from torch import Tensor

from data.kspace import NEAR
from physics.coils import combine, mixed, noise_covariance, sensitivity_maps, whitening
from physics.fourier import ifftc
from util.errors import InputError

CORNER = 0.8  # of half of each axis, beyond which k-space is corner
FEWEST = 10  # samples of noise for each coil that make a covariance
FLAT = 1.5  # times the energy of the corners, above which their surroundings are not noise
CALIBRATION_SHARE = 24  # of the lines, on either side of the centre, that maps need
SWAPPED = 2.0  # times as alike, beyond which coils look like frames


def require_coils(kspace: np.ndarray, where: str) -> None:
    """Raise InputError unless k-space (T, C, Y, X) can be that of several coils."""
    finite = np.isfinite(kspace)
    if not finite.all():
        first = tuple(int(k) for k in np.unravel_index(finite.argmin(), kspace.shape))
        raise InputError(
            f"{where}: {finite.size - np.count_nonzero(finite)} values are NaN or infinite, the"
            f" first at frame, coil, line, column {first}: repair or remove this sample"
        )
    filled = kspace != 0
    if (empty := np.flatnonzero(~filled.any(axis=(0, 2, 3)))).size:
        raise InputError(
            f"{where}: coil {empty[0]} of {kspace.shape[1]} is zero everywhere: leave such coils"
            " out, kspace[:, good]"
        )
    lines = filled.any(axis=-1)  # (T, C, Y)
    if (lines != lines[:, :1]).any():
        t, c, y = np.argwhere(lines != lines[:, :1])[0]
        raise InputError(
            f"{where}: coil {c} has {'a' if lines[t, c, y] else 'no'} line {y} in frame {t}, other"
            " than the first coil: expected the same measured lines of all coils"
        )
    # coils see one place with other phases, frames with the same
    mean_square = np.square(np.abs(kspace)).mean()
    alike = [np.square(np.abs(kspace.mean(axis=axis))).mean() / mean_square for axis in (0, 1)]
    if lines.all() and kspace.shape[1] > 1 and alike[1] > SWAPPED * alike[0]:
        raise InputError(
            f"{where} is {kspace.shape}, but its second axis looks like frames and its first like"
            " coils; expected [n_frames, n_coils, ny, nx]: np.swapaxes makes it so"
        )
    energy = np.square(np.abs(kspace)).sum(axis=(0, 1))
    for axis, what in enumerate(("line", "column")):
        n, peak = energy.shape[axis], int(energy.sum(axis=1 - axis).argmax())
        if abs(peak - n // 2) > NEAR:
            raise InputError(
                f"{where}: the highest energy is in {what} {peak} of {n}; expected centred k-space,"
                f" with zero frequency at {n // 2}: np.fft.fftshift centres it"
            )


def calibration_lines(ny: int) -> slice:
    """The lines around the centre of k-space that sensitivity maps need."""
    reach = max(NEAR, ny // CALIBRATION_SHARE)
    return slice(ny // 2 - reach, ny // 2 + reach + 1)


def require_calibration(mask: Tensor, where: str) -> None:
    """Raise InputError unless the frames of a mask (1, T, Y, 1) together measured the centre of
    k-space, which sensitivity maps are estimated from."""
    ny = mask.shape[2]
    centre = mask[0, ..., 0].any(dim=0)[calibration_lines(ny)]
    if not centre.all():
        raise InputError(
            f"{where}: {int((~centre).sum())} of the {len(centre)} lines around the centre of"
            " k-space were measured in no frame, so sensitivity maps cannot be estimated: measure"
            " other lines in every frame (--sample-n of simulated masks), or give maps in the file"
        )


def whitened(kspace: np.ndarray, noise: np.ndarray | None, where: str) -> tuple[np.ndarray, str]:
    """The matrix (C, C) that whitens the noise of k-space (T, C, Y, X), and a note.

    `noise`: (C, N), a scan of noise alone; None: the corners of k-space are taken.

    Raises:
        InputError: the noise is not of these coils.
    """
    n_coils = kspace.shape[1]
    identity = np.eye(n_coils, dtype=np.complex64)
    not_whitened = "the noise of the coils is not whitened"
    if noise is not None:
        require_noise(noise, n_coils, where)
        noise, origin = noise.astype(np.complex64), "a scan of noise"
    else:
        noise, origin = corners(kspace, CORNER, 1), "the corners of k-space"
        if noise.shape[1] >= FEWEST * n_coils:
            energy = np.square(np.abs(noise)).mean()
            inside = np.square(np.abs(corners(kspace, CORNER - 0.1, CORNER)))
            if inside.size and inside.mean() > FLAT * energy:
                return identity, f"{not_whitened}: {origin} hold signal, too"
    if noise.shape[1] < FEWEST * n_coils or not noise.any():
        return identity, f"{not_whitened}: {origin} has too few samples"
    covariance = noise_covariance(torch.from_numpy(np.ascontiguousarray(noise)))
    covariance += 1e-6 * covariance.diagonal().real.mean() * torch.eye(n_coils)
    return whitening(covariance).numpy(), f"the noise of {n_coils} coils is whitened by {origin}"


def require_noise(noise: np.ndarray, n_coils: int, where: str) -> None:
    """Raise InputError unless noise can be a scan (C, N) of `n_coils` coils."""
    fits = noise.dtype.kind in "biufc" and noise.ndim == 2 and len(noise) == n_coils
    if not fits or not np.isfinite(noise).all():
        raise InputError(
            f"{where}: the noise is {noise.shape} {noise.dtype} for {n_coils} coils; expected"
            " finite numbers [n_coils, n]: correct it, or leave it out"
        )
    if (silent := np.flatnonzero(~noise.any(axis=1))).size:
        raise InputError(
            f"{where}: the noise of coil {silent[0]} is zero; expected a scan of all coils: correct"
            " the noise, or leave it out"
        )


def corners(kspace: np.ndarray, first: float, end: float) -> np.ndarray:
    """The measured values (C, N) of centred k-space (T, C, Y, X) in its corners, from `first` to
    `end` of half of both axes, but for what is before `first` of both."""
    ny, nx = kspace.shape[2:]
    y, x = (np.abs(np.arange(n) - n // 2) / (n / 2) for n in (ny, nx))
    smaller, larger = np.minimum(y[:, None], x), np.maximum(y[:, None], x)
    there = (smaller > first) & (larger <= end) if end < 1 else smaller > first
    values = kspace[:, :, there].transpose(1, 0, 2).reshape(kspace.shape[1], -1)
    return values[:, (values != 0).all(axis=0)]


def coil_images(kspace: np.ndarray, whiten: np.ndarray) -> Tensor:
    """Coil images (T, C, Y, X) of k-space, after its noise was whitened."""
    white = mixed(torch.from_numpy(whiten), torch.from_numpy(np.ascontiguousarray(kspace)))
    return ifftc(white)


def combined(coils: Tensor) -> Tensor:
    """The images (T, Y, X) of fully sampled coil images (T, C, Y, X), by maps from their mean."""
    maps = sensitivity_maps(coils.mean(dim=0)[None])
    return combine(coils[None], maps)[0]
