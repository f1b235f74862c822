"""Training-free reconstructions: what a learned one has to beat.

Each takes `(aliased, mask)`, the aliased image (B, T, Y, X) complex64 and its centred Cartesian
mask (B, T, Y, 1), and returns the magnitude (B, T, Y, X) float32. Measured lines are kept as they
are; the methods differ in what they put into the others. Work is done in (ky, x) space: the
readout is fully sampled, so only Y needs a transform.

References: view sharing: R. Jones et al., "K-space substitution: a novel dynamic imaging
technique", Magn Reson Med 29:830-834, 1993.
"""

import torch
from torch import Tensor

from fourier import fftc, ifftc


def zero_filled(aliased: Tensor, mask: Tensor) -> Tensor:
    """Zeros in the lines that were not measured: the magnitude of the aliased image."""
    return aliased.abs()


def time_average(aliased: Tensor, mask: Tensor) -> Tensor:
    """Each missing line is the average of that line over the frames that measured it; zero where
    none did."""
    lines = fftc(aliased, axes=(-2,))
    average = lines.sum(dim=-3, keepdim=True) / mask.sum(dim=-3, keepdim=True).clamp(min=1)
    return ifftc(torch.where(mask > 0, lines, average), axes=(-2,)).abs()


def view_sharing(aliased: Tensor, mask: Tensor) -> Tensor:
    """Each missing line is taken from the nearest frame that measured it, in cyclic time (a cine
    is one heartbeat); from both neighbours, averaged, at a tie; zero where no frame measured it."""
    lines = fftc(aliased, axes=(-2,))
    shared, known = lines, mask
    for distance in range(1, mask.shape[-3] // 2 + 1):
        before, after = ((lines.roll(s, -3), mask.roll(s, -3)) for s in (distance, -distance))
        count = before[1] + after[1]
        neighbours = (before[0] + after[0]) / count.clamp(min=1)
        shared = torch.where(known > 0, shared, neighbours)
        known = known + count
    return ifftc(shared, axes=(-2,)).abs()


BASELINES = {
    "zero_filled": zero_filled,
    "time_average": time_average,
    "view_sharing": view_sharing,
}
