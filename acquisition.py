"""What happens to a fully sampled image series before it is reconstructed: augmentation, phase,
noise.

Images are (T, Y, X), one sample at a time, with a `numpy.random.Generator` for each sample: the
same generator state gives the same result, on every device.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

AUGMENTATIONS = ("flips", "time", "horizontal_flip", "jitter", "blur", "affine")
JITTER = 0.2  # brightness and contrast, as a share; saturation and hue mean nothing in gray images
BLUR_WIDTH, BLUR_SIGMA = 5, (0.1, 2.0)  # pixels
TURN, SHEAR = 10.0, 5.0  # degrees
MOVE, SCALE = 0.1, 0.1  # shares
PHASE_ORDER = 3  # cosines along each axis that a phase is made of: half a period each
PHASE_SPREAD = 1.0  # standard deviation of a phase over the image, in radians


def augmented(images: Tensor, kinds: Sequence[str], generator: np.random.Generator) -> Tensor:
    """Images (T, Y, X) in [0, 1], or complex ones of such magnitude, changed at random, all frames
    alike.

    Args:
        kinds: of `AUGMENTATIONS`, done in this order:
            "flips": along Y and along X, with probability 1/2 each;
            "time": reversed with probability 1/2, and shifted by any number of frames;
            "horizontal_flip": along X, with probability 1/2;
            "jitter": brightness and contrast each by a factor of 0.8 to 1.2;
            "blur": with probability 1/2 by a Gaussian of 0.1 to 2 pixels, 5 wide;
            "affine": turned by up to 10 degrees, moved by up to a tenth of each axis, scaled by 0.9
            to 1.1, sheared by up to 5 degrees, black where nothing is known.
    """
    reversed_, flipped_y, flipped_x = generator.random(3) < 0.5
    shift = int(generator.integers(len(images)))
    if "flips" in kinds:
        images = images.flip([axis for axis, turn in ((1, flipped_y), (2, flipped_x)) if turn])
    if "time" in kinds:
        images = (images.flip(0) if reversed_ else images).roll(shift, dims=0)
    if "horizontal_flip" in kinds and generator.random() < 0.5:
        images = images.flip(2)
    if "jitter" in kinds:
        images = _jitter(images, *generator.uniform(1 - JITTER, 1 + JITTER, 2))
    if "blur" in kinds and generator.random() < 0.5:
        sigma = [float(generator.uniform(*BLUR_SIGMA))] * 2
        images = _on_parts(images, lambda x: transforms.gaussian_blur(x, [BLUR_WIDTH] * 2, sigma))
    if "affine" in kinds:
        images = _affine(images, generator)
    return images


def _jitter(images: Tensor, brightness: float, contrast: float) -> Tensor:
    """Brightness, then contrast about the mean of all frames, clamped to [0, 1]; phase is kept."""
    size = images.abs()[None].flatten(1, 2)  # (1, T Y, X), one image, so that all share a mean
    size = transforms.adjust_brightness(size, float(brightness))
    size = transforms.adjust_contrast(size, float(contrast)).view(images.shape)
    return size * images.sgn() if images.is_complex() else size


def _affine(images: Tensor, generator: np.random.Generator) -> Tensor:
    ny, nx = images.shape[1:]
    angle, shear = (float(generator.uniform(-most, most)) for most in (TURN, SHEAR))
    moved = [round(float(generator.uniform(-MOVE, MOVE)) * n) for n in (nx, ny)]
    scale = float(generator.uniform(1 - SCALE, 1 + SCALE))

    def turned(part: Tensor) -> Tensor:
        return transforms.affine(
            part, angle, moved, scale, [shear, 0.0], interpolation=InterpolationMode.BILINEAR
        )

    return _on_parts(images, turned)


def _on_parts(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a linear change of real frames (T, Y, X) to both parts of complex ones."""
    if images.is_complex():
        return torch.complex(change(images.real), change(images.imag))
    return change(images)


def smooth_phase(shape: tuple[int, int], generator: np.random.Generator) -> Tensor:
    """A random phase factor exp(i phi), (Y, X) complex64, the same for all frames.

    phi is a constant, uniform in [0, 2 pi), plus a sum of the lowest cosines along Y and X with
    normal coefficients, weighted by 1 / order, of standard deviation `PHASE_SPREAD` over the image:
    smooth, as that of coils and of an imperfect shim is.
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
    """Complex Gaussian noise of `shape`, complex64, with this standard deviation in the real and in
    the imaginary part. White noise of an image is, by an orthonormal transform, white noise of the
    same deviation in k-space."""
    noise = generator.standard_normal((*shape, 2), dtype=np.float32)
    return torch.view_as_complex(torch.from_numpy(deviation * noise))
