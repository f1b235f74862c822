"""The noise of a measurement, by the corners of its k-space.

Images have little signal there, and white noise has as much as everywhere. It is taken from
(ky, x) space, so that a strip of columns has about the noise of the whole image: a window along X
keeps the ends of the strip out of the corners.
"""

import math

import torch
from torch import Tensor

from physics.consistency import DataConsistency
from physics.sense import CoilConsistency

CORNER = 0.8  # of the highest frequency, along both axes, from which on it is a corner
OF_SIGNAL = 0.004  # of the peak: what images without noise have in the corners, at most about
STEP = 1e-4  # of the peak: so coarse that rounding elsewhere has no effect
RAYLEIGH = math.sqrt(math.pi / 2)  # mean size of complex noise of standard deviation 1 in each part


def noise_level(measured: DataConsistency | CoilConsistency) -> Tensor:
    """Standard deviation of the noise in the real and in the imaginary part, of each sample: (B,),
    above what signal may be. 0 if no line of the corners was measured. `measured` must be without
    the real-image prior, because noise has a phase.
    """
    return ((corner_level(measured) - OF_SIGNAL) / STEP).round().clamp(min=0) * STEP


def corner_level(measured: DataConsistency | CoilConsistency) -> Tensor:
    """The same with what signal there is in the corners."""
    lines, known = measured.lines, measured.known
    ny, nx = lines.shape[-2:]
    outer_y, outer_x = (
        2 * torch.fft.fftfreq(n, device=lines.device).abs() > CORNER for n in (ny, nx)
    )
    window = torch.hann_window(nx, periodic=False, device=lines.device)
    window = window / window.square().mean().sqrt()
    kspace = torch.fft.fft(lines * window, dim=-1, norm="ortho")
    corners = (known & outer_y[:, None] & outer_x).expand(kspace.shape)
    size = torch.where(corners, kspace.abs(), 0).flatten(1).sum(dim=1)
    return size / corners.flatten(1).sum(dim=1).clamp(min=1) / RAYLEIGH
