"""Synthetic phase and noise, which turn magnitude images into more realistic measurements.

Random numbers come from the `numpy.random.Generator` of a sample: the same generator state gives
the same result on every device.
"""

import math

import numpy as np
import torch
from torch import Tensor

PHASE_ORDER = 3  # a phase has cosines of 0, 1 and 2 half periods along each axis
PHASE_SPREAD = 1.0  # standard deviation of a phase over the image, in radians


def smooth_phase(shape: tuple[int, int], generator: np.random.Generator) -> Tensor:
    """A random phase factor exp(i phi), (Y, X) complex64, the same for all frames.

    phi is a constant, uniform in [0, 2 pi), plus a sum of low-order cosines along Y and X with
    normal coefficients, weighted by 1 / order, of standard deviation `PHASE_SPREAD` over the image.
    It is smooth, like the phase of receive coils and of an imperfect shim.
    """
    orders = np.arange(PHASE_ORDER)
    weight = 1 / np.maximum(1, orders[:, None] + orders)
    weight[0, 0] = 0
    coefficients = weight * generator.standard_normal(weight.shape)
    waves = [np.cos(np.pi * orders * (np.arange(n)[:, None] + 0.5) / n) for n in shape]  # (n, P)
    phase = waves[0] @ coefficients @ waves[1].T  # (Y, X)
    phase *= PHASE_SPREAD / max(phase.std(), 1e-12)
    phase += generator.uniform(0, 2 * math.pi)
    return torch.from_numpy(np.exp(1j * phase).astype(np.complex64))


def white_noise(shape: tuple[int, ...], deviation: float, generator: np.random.Generator) -> Tensor:
    """Complex Gaussian noise of `shape`, complex64.

    `deviation` is the standard deviation of the real and of the imaginary part, each. As the
    transform is orthonormal, white noise in the image is white noise of the same deviation in
    k-space.
    """
    noise = generator.standard_normal((*shape, 2), dtype=np.float32)
    return torch.view_as_complex(torch.from_numpy(deviation * noise))
