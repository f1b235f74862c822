"""From a scan to the input of a network: the measured lines, scaled, with their mask.

K-space is centred and orthonormal (see `physics/fourier.py`), (T, Y, X) complex: frame,
phase-encoding line, readout. A mask is (T, Y), True for measured lines; the readout is fully
sampled.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from CS_mask import Condition, Sampling, evaluation_masks
from data.batches import Batch
from data.coils import coil_images, require_calibration, require_coils, whitened
from data.kspace import is_full, measured_lines
from formats.series import require_values
from methods.baselines import view_sharing
from physics.coils import combine, estimated_maps, mixed
from physics.fourier import ifftc, undersample
from physics.sense import measurement_of
from util.errors import InputError

BRIGHT_QUANTILE, BRIGHT_LEVEL = 0.999, 0.77  # images of the phantom with a peak of 1 have this one
MEASURED = "measured"  # the pattern of lines that come with the scan
REAL_SHARE = 1e-4  # of the energy, in what contradicts real-valued images: rounding, no phase


@dataclass
class Measurement(Batch):
    """The measured lines of one series, scaled; the truth is the `image`, if it is known."""

    scale: float = 1.0  # images times this are in the units of the input
    is_real: bool = False  # whether the images can be taken to be real-valued
    notes: tuple[str, ...] = ()  # on the coils

    def without_images(self) -> "Measurement":
        """The same on the CPU without its images, of which only the shape is kept."""
        nothing = torch.zeros((), dtype=self.aliased.dtype).expand(self.aliased.shape)
        return dataclasses.replace(
            self, aliased=nothing, mask=self.mask.cpu(), image=None, maps=None
        )

    @property
    def acceleration(self) -> float:
        """All lines over the measured ones."""
        return self.mask.numel() / self.mask.sum().item()

    def acceleration_among(self, n_lines: int) -> float:
        """The `n_lines` around the centre of k-space over those of them that are measured."""
        first = self.mask.shape[-2] // 2 - n_lines // 2
        middle = self.mask[..., first : first + n_lines, :]
        return middle.numel() / max(1.0, middle.sum().item())

    @property
    def true_images(self) -> Tensor | None:
        """The truth (T, Y, X) in the units of the input, on the CPU; None: not known."""
        return None if self.image is None else self.scale * self.image[0].cpu()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, Y, X)"""
        _, n_frames, *_, ny, nx = self.aliased.shape
        return n_frames, ny, nx


def from_images(
    images: np.ndarray, sampling: Sampling, seed: int, number: int, mask: np.ndarray | None
) -> Measurement:
    """Undersample fully sampled images (T, Y, X), real or complex.

    Args:
        sampling, seed, number: of the mask, which is drawn as for sample `number` of the test part
            in `train.py`.
        mask: (T, Y), to use instead.

    Raises:
        InputError: the values are not finite or all zero, or there can be no such mask.
    """
    require_values(images, "the images")
    truth = torch.from_numpy(np.ascontiguousarray(images))[None]
    if truth.is_complex() and truth.imag.square().sum() < REAL_SHARE * truth.abs().square().sum():
        truth = truth.real
    lines = drawn_lines(images.shape, sampling, seed, number, mask)
    nominal = sampling.condition if mask is None else None
    return _scaled(undersample(truth, lines), lines, truth, not truth.is_complex(), nominal, number)


def drawn_lines(
    shape: tuple[int, ...], sampling: Sampling, seed: int, number: int, mask: np.ndarray | None
) -> Tensor:
    """The mask (1, T, Y, 1) for images of `shape` (T, Y, X); see `from_images`."""
    n_frames, ny = shape[:2]
    if mask is not None:
        lines = checked_mask(mask, shape).astype(np.float32)[None, ..., None]
        return torch.from_numpy(lines)
    try:
        return torch.from_numpy(evaluation_masks([number], (n_frames, ny), sampling, seed))
    except ValueError as error:
        raise InputError(f"--acc, --sample-n and --partial-fourier: {error}") from None


def from_coils(
    kspace: np.ndarray,
    drawn: Tensor | None,
    maps: np.ndarray | None = None,
    noise: np.ndarray | None = None,
    condition: Condition | None = None,
    where: str = "k-space",
    number: int = 0,
) -> Measurement:
    """The lines of k-space (T, C, Y, X) complex of several coils.

    Args:
        drawn: (1, T, Y, 1), the lines that fully sampled k-space is undersampled to; the truth is
            then its combined image. None: all measured lines are taken.
        maps: (C, Y, X), sensitivities; None: they are estimated from the measured lines.
        noise: (C, N), a scan of the coils' noise; None: the corners of k-space are taken.
        condition: that of `drawn`; None: the actual acceleration.
        where: its place, for messages.
        number: of the series in the scan.

    Raises:
        InputError: values, maps or noise are not of such k-space, or too few lines near the centre
            were measured in any frame to estimate maps.
    """
    _, n_coils, ny, nx = kspace.shape
    require_coils(kspace, where)
    measured = measured_lines(kspace, where)
    white, note = whitened(kspace, noise, where)
    coils = coil_images(kspace, white)[None]
    if drawn is None:
        lines, aliased = torch.from_numpy(measured.astype(np.float32))[None, ..., None], coils
    else:
        lines, aliased = drawn, undersample(coils, drawn[:, :, None])
    if maps is None:
        require_calibration(lines, where)
        used = estimated_maps(aliased, lines)
        of_maps = "sensitivity maps are estimated from the time average of the measured lines"
    else:
        fits = maps.dtype.kind in "biufc" and maps.shape == (n_coils, ny, nx)
        if not fits or not np.isfinite(maps).all() or not maps.any():
            raise InputError(
                f"{where}: the sensitivity maps are {maps.shape} {maps.dtype}; expected finite"
                f" numbers ({n_coils}, {ny}, {nx}), not all zero, for the coils, lines and columns"
                " of k-space: correct them, or leave them out"
            )
        used = mixed(torch.from_numpy(white), torch.from_numpy(maps.astype(np.complex64)))[None]
        size = torch.linalg.vector_norm(used, dim=1, keepdim=True)
        used = torch.where(size > 0, used / size, 0)
        of_maps = "sensitivity maps are those of the file, scaled to a norm of 1"
    truth = None if drawn is None else combine(coils, used)
    measurement = _scaled(aliased, lines, truth, False, condition, number, used)
    return dataclasses.replace(measurement, notes=(note, of_maps))


def from_kspace(kspace: np.ndarray, mask: np.ndarray | None, number: int = 0) -> Measurement:
    """The lines of undersampled k-space (T, Y, X) complex.

    `mask`: (T, Y); None: the lines that are not zero. `number`: of the series in the scan.

    Raises:
        InputError: the values are not finite or all zero, or the zeros are not whole lines.
    """
    require_values(kspace, "k-space")
    measured = measured_lines(kspace[:, None], "k-space")
    if mask is not None:
        require_mask(mask, measured, kspace.shape)
    lines = torch.from_numpy(measured.astype(np.float32))[None, ..., None]
    aliased = ifftc(torch.from_numpy(np.ascontiguousarray(kspace)))[None]
    is_real = contradiction(aliased, lines) < REAL_SHARE
    return _scaled(aliased, lines, None, is_real, None, number)


def require_mask(mask: np.ndarray, found: np.ndarray, shape: tuple[int, int, int]) -> None:
    """Raise InputError unless a mask names the lines (T, Y) that were found in k-space of `shape`
    (T, Y, X)."""
    mask = checked_mask(mask, shape)
    if (empty := np.count_nonzero(mask & ~found)) or (more := np.count_nonzero(found & ~mask)):
        what = f"{empty} lines that are zero" if empty else f"not {more} lines that have values"
        raise InputError(
            f"the mask has {what}, expected the measured lines: give the k-space its own mask,"
            " centred as the k-space is, or leave the mask out"
        )


def is_fully_sampled(kspace: np.ndarray) -> bool:
    """Whether k-space (T, Y, X) or (T, C, Y, X) is fully sampled, but for empty lines at both
    ends."""
    lines = (kspace != 0).any(axis=-1)
    return is_full(lines if lines.ndim == 2 else lines.any(axis=1))


def checked_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask (Y,), (T, Y), (T, Y, 1) or (T, Y, X) as (T, Y) bool, for data of `shape` (T, Y, X).

    Raises:
        InputError: it has another shape, other values than 0 and 1, or parts of lines.
    """
    n_frames, ny, nx = shape
    given = np.asarray(mask)
    if given.dtype.kind not in "biufc" or not np.isin(given, (0, 1)).all():
        raise InputError("the mask has other values than 0 and 1: 1 stands for a measured line")
    lines = given.astype(bool)
    if lines.ndim == 3 and lines.shape[-1] in (1, nx):
        if not (lines == lines[..., :1]).all():
            raise InputError(
                "the mask is not constant along the readout (its last axis), which must be fully"
                " sampled: give its axes in the order frame, line, readout"
            )
        lines = lines[..., 0]
    if lines.shape not in ((ny,), (1, ny), (n_frames, ny)):
        raise InputError(
            f"the mask is {given.shape}, expected ({n_frames}, {ny}) for the frames and lines of"
            f" data {tuple(shape)}, or ({ny},) for the same lines in every frame"
        )
    lines = np.broadcast_to(lines, (n_frames, ny))
    if not lines.any():
        raise InputError("the mask has no measured line: 1 stands for a measured line")
    return lines


def contradiction(aliased: Tensor, mask: Tensor) -> float:
    """The share of the energy of measured lines that contradicts real-valued images.

    The k-space of a real image is Hermitian. Compared are the lines whose conjugate-symmetric
    partner was measured too; 1 if there is none.
    """
    lines = torch.fft.fft(aliased, dim=-2, norm="ortho")
    count = torch.fft.ifftshift(mask, dim=-2)
    partner = -torch.arange(lines.shape[-2]) % lines.shape[-2]
    both = count * count[..., partner, :]
    energy = (both * lines.abs().square()).sum()
    difference = (both * (lines - lines[..., partner, :].conj()).abs().square()).sum()
    return (difference / (2 * energy)).item() if energy else 1.0


def _scaled(
    aliased: Tensor,
    mask: Tensor,
    truth: Tensor | None,
    is_real: bool,
    condition: Condition | None,
    number: int,
    maps: Tensor | None = None,
) -> Measurement:
    """Images divided so that they are as bright as those that networks are trained on.

    `BRIGHT_QUANTILE` of the magnitude of the view-shared images becomes `BRIGHT_LEVEL`: a robust
    factor that needs only the measured lines.
    """
    shared = view_sharing(measurement_of(aliased, mask, maps)).abs()
    bright = float(np.quantile(shared.numpy(), BRIGHT_QUANTILE))
    scale = (bright or float(shared.max())) / BRIGHT_LEVEL
    if truth is not None:
        truth = truth / scale
    if condition is None:  # not drawn here
        condition = Condition(MEASURED, mask.numel() / mask.sum().item())
    return Measurement(
        [number], condition, truth, mask, aliased / scale, maps, scale=scale, is_real=is_real
    )
