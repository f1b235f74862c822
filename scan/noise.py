"""The noise of a scan, measured in the corners of its k-space, and what it does to scores.

Scores compare magnitudes with a truth that has noise, too. They reward a method that keeps the
noise, and no method can know that of the lines which were not measured.
"""

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from data.acquisition import Noise
from data.coils import CORNER, FLAT, corners
from physics.fourier import fftc
from scan.measurement import Measurement

FEWEST = 200  # samples in the corners that make a standard deviation
LEAST = 1e-5  # of the peak of an image, below which the corners hold rounding alone
SIMILAR = 2.0  # times more or less noise than in training is still alike


def measured_noise(measurement: Measurement) -> float | None:
    """Standard deviation of the noise, in real and imaginary part each, of complex images in the
    scale that networks get, whose peak is about 1.

    None for real-valued images, whose noise is not white, and if the corners of k-space hold too
    few measured values, or signal, or nothing.
    """
    if measurement.is_real:
        return None
    images, mask = measurement.aliased[0].cpu(), measurement.mask[0].cpu()  # (T, Y, X), (T, Y, 1)
    if images.ndim == 3:
        images = images[:, None]
    kspace = (fftc(images) * mask[:, None]).numpy()  # (T, C, Y, X)
    outer, inner = (
        np.square(np.abs(corners(kspace, *limits)))
        for limits in ((CORNER, 1), (CORNER - 0.1, CORNER))
    )
    if outer.size < FEWEST or inner.size == 0 or inner.mean() > FLAT * outer.mean():
        return None
    deviation = math.sqrt(outer.mean() / 2)
    return deviation if deviation > LEAST else None


def outside_noise(noise: float, trained: Noise) -> list[str]:
    """A line if the noise differs much from that which the weights were trained with."""
    if trained.lowest / SIMILAR <= noise <= trained.highest * SIMILAR:
        return []
    return [
        f"outside of the training: noise of {noise:.2g} of the peak, by the corners of k-space; the"
        f" weights were trained with {trained}"
    ]


def noise_in_scores(
    noise: float, measurement: Measurement, images: Mapping[str, Tensor], truth: Tensor
) -> list[str]:
    """What the noise of complex images means for scores, one per line.

    Args:
        images: reconstructions (T, Y, X) by method.
        truth: (T, Y, X) complex, in the units of the images.
    """
    peak = truth.abs().max().item() / measurement.scale
    unknown = (noise / peak) ** 2 * (1 - 1 / measurement.acceleration)
    energy = truth.abs().square().sum()
    errors = {
        name: ((image - truth).abs().square().sum() / energy).item()
        for name, image in images.items()
        if image.is_complex()
    }
    return [
        f"the ground truth has noise of {noise / peak:.2g} of its peak: that of the lines which"
        " were not measured keeps the PSNR of every method below about"
        f" {-10 * math.log10(unknown):.1f} dB, and a method that removes noise gains nothing by it",
        "normalised squared error of the complex images, to which all noise counts: "
        + ", ".join(f"{name} {error:.4f}" for name, error in errors.items()),
    ]
