"""Receive coils: sensitivity maps, combination, noise whitening and compression.

Coil images are (B, T, C, Y, X) complex64: sample, frame, coil, phase-encoding line, readout. A coil
c sees the image m through its sensitivity, `b_c = S_c m`. Maps S are (B, C, Y, X), the same for all
frames, with `sum_c |S_c|^2 = 1` in the body and 0 outside. Their phase is relative to that of one
combination of the coils, so the image has the phase that this combination sees.

References:
  Maps from local covariances: D. Walsh, A. Gmitro, M. Marcellin, "Adaptive reconstruction of phased
    array MR imagery", Magn Reson Med 43:682-690, 2000.
  Maps from a cine's own time average: P. Kellman, F. Epstein, E. McVeigh, "Adaptive sensitivity
    encoding incorporating temporal filtering (TSENSE)", Magn Reson Med 45:846-852, 2001.
  Whitening: K. Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space
    trajectories", Magn Reson Med 46:638-651, 2001.
  Compression: F. Huang et al., "A software channel compression technique for faster reconstruction
    with many channels", Magn Reson Imaging 26:133-141, 2008.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from physics.fourier import fftc, ifftc, in_single

GRID = 64  # points of the grid that maps are computed on, along each axis, at least
NEAR = 48  # covariances are averaged over neighbours up to an axis divided by this number
AROUND = 24  # where signal is low, they are averaged farther, up to an axis divided by this number
LOW = 0.1  # of the brightest signal, around and below which signal is low
POWER_STEPS = 20  # of the power iteration for the dominant eigenvector of each point
BODY = 0.04  # of the brightest signal, below which maps are zero
BRIGHT = 0.95  # quantile of the signal that counts as the brightest

TINY = torch.finfo(torch.float32).tiny


def expand(images: Tensor, maps: Tensor) -> Tensor:
    """What each coil sees of images (B, T, Y, X): (B, T, C, Y, X)."""
    return maps[:, None] * images[:, :, None]


def combine(coils: Tensor, maps: Tensor) -> Tensor:
    """Images (B, T, Y, X) of coil images (B, T, C, Y, X), `sum_c conj(S_c) b_c`: the adjoint of
    `expand`, and for maps of norm 1 its inverse."""
    return torch.stack([(maps.conj() * frame).sum(1) for frame in coils.unbind(1)], dim=1)


def average_lines(total: Tensor, mask: Tensor) -> Tensor:
    """The time-averaged coil images of a cine, (B, C, Y, X) complex64.

    Each line of k-space is the mean over the frames that measured it, so that nearly all lines are
    there; the others are zero.

    Args:
        total: (B, C, Y, X), the sum over the frames of the aliased coil images. As nothing is in
            lines that were not measured, its k-space is the sum of the measured lines.
        mask: (B, T, Y, 1), centred.
    """
    count = mask.sum(dim=1)[:, None].clamp(min=1)  # (B, 1, Y, 1)
    return ifftc(fftc(total, axes=(-2,)) / count, axes=(-2,))


def estimated_maps(aliased: Tensor, mask: Tensor) -> Tensor:
    """Sensitivity maps (B, C, Y, X) from aliased coil images (B, T, C, Y, X) and their centred mask
    (B, T, Y, 1)."""
    return sensitivity_maps(average_lines(aliased.sum(dim=1), mask))


def sensitivity_maps(average: Tensor) -> Tensor:
    """Sensitivity maps (B, C, Y, X) complex64 from fully sampled coil images of the same shape.

    Walsh's method: at each point the dominant eigenvector of the covariances of the coils, averaged
    over its neighbourhood. Maps are smooth: they are computed on a coarse grid and interpolated,
    and where signal is low (lungs) a larger neighbourhood is averaged.
    """
    peak = average.abs().amax(dim=(1, 2, 3), keepdim=True)
    average = average / peak.clamp(min=TINY)
    covariance = torch.stack(  # (B, C, C, y, x)
        [_local_mean(coil[:, None] * average.conj()) for coil in average.unbind(1)], dim=1
    )
    shape = average.shape[-2:]
    energy = _energy(covariance)  # (B, 1, 1, y, x)
    brightest = energy.flatten(1).quantile(BRIGHT, dim=1)[:, None, None, None, None]
    reach = [max(1, round(n / AROUND / _step(n))) for n in shape]  # of the grid
    around = _pooled(_pooled(covariance.flatten(1, 2), reach), reach)  # the far counts less
    around = around.unflatten(1, covariance.shape[1:3])
    low = LOW**2 * brightest * around / _energy(around).clamp(min=TINY)

    whole = covariance.sum(dim=(-2, -1))
    reference = torch.linalg.eigh(whole).eigenvectors[..., -1]  # (B, C), the brightest combination
    points = (covariance + low).permute(0, 3, 4, 1, 2).contiguous()  # (B, y, x, C, C)
    vector = reference[:, None, None, :, None].expand(*points.shape[:-1], 1)
    for _ in range(POWER_STEPS):
        vector = _unit(points @ vector, dim=-2)
    vector = vector[..., 0].permute(0, 3, 1, 2)  # (B, C, y, x)
    seen = torch.einsum("bc,bcyx->byx", reference.conj(), vector)[:, None]
    vector = vector * seen.sgn().conj()

    signal = _resized(energy[:, 0].sqrt(), shape)  # (B, 1, Y, X)
    body = signal > BODY * brightest[:, 0].sqrt()
    return _unit(_resized(vector, shape), dim=1) * body


def _energy(covariance: Tensor) -> Tensor:
    """Of all coils together: covariances (B, C, C, y, x) to (B, 1, 1, y, x)."""
    return covariance.diagonal(dim1=1, dim2=2).real.sum(-1)[:, None, None]


def _local_mean(values: Tensor) -> Tensor:
    """The mean over the neighbourhood of each point of the grid: (B, C, Y, X) to (B, C, y, x)."""
    shape = values.shape[-2:]
    return _pooled(values, [max(1, n // NEAR) for n in shape], [_step(n) for n in shape])


def _pooled(values: Tensor, reach: list[int], steps: list[int] | int = 1) -> Tensor:
    """Means over neighbours up to `reach`, at every step: (B, C, Y, X) to (B, C, y, x)."""
    width = [2 * n + 1 for n in reach]
    parts = (
        F.avg_pool2d(part, width, steps, reach, count_include_pad=False)
        for part in (values.real, values.imag)
    )
    return torch.complex(*parts)


def _step(n: int) -> int:
    """Pixels between points of the grid, along an axis of `n` pixels."""
    return max(1, n // GRID)


def _unit(vectors: Tensor, dim: int) -> Tensor:
    """The vectors along an axis, of norm 1; zero stays zero."""
    norm = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / norm.clamp(min=TINY)


def _resized(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Values (..., y, x) on the grid, linearly interpolated to images of `shape` = (Y, X)."""
    rows, columns = (
        _hats(n, few, values.device).to(values.dtype)
        for n, few in zip(shape, values.shape[-2:], strict=True)
    )
    return rows @ values @ columns.T


def _hats(n: int, few: int, device: torch.device) -> Tensor:
    """Weights (n, few) of linear interpolation from `few` points of the grid to `n` pixels."""
    position = (torch.arange(n, device=device) / _step(n)).clamp(max=few - 1)
    return (1 - (position[:, None] - torch.arange(few, device=device)).abs()).clamp(min=0)


def noise_covariance(noise: Tensor) -> Tensor:
    """Covariance (C, C) of the coils' noise, from samples (C, N) without signal, N at least C."""
    noise = in_single(noise)
    if noise.shape[1] < noise.shape[0]:
        raise ValueError(
            f"the noise has {noise.shape[1]} samples of {noise.shape[0]} coils: expected more"
        )
    return noise @ noise.mH / noise.shape[1]


def whitening(covariance: Tensor) -> Tensor:
    """The matrix W (C, C) after which noise is independent between coils, and of equal size: that
    of the mean of the coils before. Apply it with `mixed`."""
    mean = covariance.diagonal().real.mean()
    triangle = torch.linalg.cholesky(covariance / mean)
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return torch.linalg.solve_triangular(triangle, identity, upper=False)


def compression(average: Tensor, n: int) -> tuple[Tensor, float]:
    """The matrix (n, C) to the `n` virtual coils that keep most energy of coil images (C, Y, X), by
    singular value decomposition, and the share that they keep. Apply it with `mixed`."""
    coils = average.flatten(1)
    energy, vectors = torch.linalg.eigh(coils @ coils.mH)  # ascending
    return vectors.flip(1)[:, :n].mH, (energy[-n:].sum() / energy.sum()).item()


def mixed(matrix: Tensor, coils: Tensor) -> Tensor:
    """Combinations (..., n, Y, X) of coils (..., C, Y, X) by a matrix (n, C)."""
    return (matrix @ coils.flatten(-2)).unflatten(-1, coils.shape[-2:])
