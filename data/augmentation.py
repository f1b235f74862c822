"""Augmentation of fully sampled training images, before they are undersampled.

Images are (T, Y, X), or coil images (T, C, Y, X), one sample at a time, with a
`numpy.random.Generator` for each sample, whose state decides what is drawn, whatever the device.
torchvision is imported where it is used, because that takes a second and a half.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from CS_mask import hermitian_mirror

AUGMENTATIONS = ("flips", "time", "shift", "horizontal_flip", "jitter", "blur", "affine")
MOVES = ("flips", "time", "shift", "horizontal_flip")  # which commute with undersampling
SHIFT = 4  # pixels, at most
JITTER = 0.2  # relative change of brightness and contrast; gray images have no saturation or hue
BLUR_WIDTH, BLUR_SIGMA = 5, (0.1, 2.0)  # pixels
TURN, SHEAR = 10.0, 5.0  # degrees
MOVE, SCALE = 0.1, 0.1  # fractions of an axis and of the size


class Moves(NamedTuple):
    """Flips and shifts of a series. They only rearrange its pixels, so they commute with
    undersampling, if its lines are moved too: a flip along Y mirrors them about the centre, a
    cyclic shift along Y leaves them where they are."""

    flipped: tuple[int, ...] = ()  # axes, from the end
    reversed: bool = False  # in time
    frames: int = 0  # to shift by
    lines: int = 0  # to shift by, along Y

    @classmethod
    def draw(cls, kinds: Collection[str], n_frames: int, generator: np.random.Generator) -> "Moves":
        """Random moves of these `MOVES`; see `augment`."""
        reversed_, flipped_y, flipped_x = (bool(one) for one in generator.random(3) < 0.5)
        frames, lines = int(generator.integers(n_frames)), 0
        if "shift" in kinds:
            lines = int(generator.integers(-SHIFT, SHIFT + 1))
        flips, time = "flips" in kinds, "time" in kinds
        axes = [-2] * (flips and flipped_y) + [-1] * (flips and flipped_x)
        if "horizontal_flip" in kinds and generator.random() < 0.5:
            axes = [-2] * (-2 in axes) + [-1] * (-1 not in axes)
        return cls(tuple(axes), time and reversed_, frames * time, lines)

    def of_maps(self, maps: Tensor) -> Tensor:
        """Sensitivity maps (C, Y, X), moved."""
        return maps.flip(self.flipped).roll(self.lines, dims=-2)

    def of_images(self, images: Tensor) -> Tensor:
        """Images (T, Y, X), or coil images (T, C, Y, X), moved."""
        return self.of_maps(self._in_time(images))

    def of_lines(self, lines: Tensor) -> Tensor:
        """Centred lines (T, Y, 1), moved; a mask, or values of each line."""
        return self._in_time(hermitian_mirror(lines) if -2 in self.flipped else lines)

    def _in_time(self, frames: Tensor) -> Tensor:
        return (frames.flip(0) if self.reversed else frames).roll(self.frames, dims=0)


def augment(images: Tensor, kinds: Sequence[str], generator: np.random.Generator) -> Tensor:
    """Random changes of images (T, Y, X) in [0, 1], or complex ones of such magnitude; the same
    change for all frames.

    Args:
        kinds: names from `AUGMENTATIONS`, applied in this order:
            "flips": along Y and along X, with probability 1/2 each;
            "time": reversed with probability 1/2, and shifted by any number of frames;
            "shift": cyclically along Y, by up to 4 pixels either way;
            "horizontal_flip": along X, with probability 1/2;
            "jitter": brightness and contrast each by a factor of 0.8 to 1.2;
            "blur": with probability 1/2 by a Gaussian of 0.1 to 2 pixels, 5 wide;
            "affine": rotated by up to 10 degrees, translated by up to a tenth of each axis, scaled
            by 0.9 to 1.1, sheared by up to 5 degrees, black outside the original image.
    """
    images = Moves.draw(kinds, len(images), generator).of_images(images)
    if "jitter" in kinds:
        images = _jitter(images, *generator.uniform(1 - JITTER, 1 + JITTER, 2))
    if "blur" in kinds and generator.random() < 0.5:
        images = _blur(images, float(generator.uniform(*BLUR_SIGMA)))
    if "affine" in kinds:
        images = _affine(images, generator)
    return images


def _jitter(images: Tensor, brightness: float, contrast: float) -> Tensor:
    """Brightness, then contrast about the mean of all frames, clamped to [0, 1]; same phase."""
    from torchvision.transforms.v2 import functional as transforms

    size = images.abs()[None].flatten(1, 2)  # (1, T Y, X): all frames share a mean
    size = transforms.adjust_brightness(size, float(brightness))
    size = transforms.adjust_contrast(size, float(contrast)).view(images.shape)
    return size * images.sgn() if images.is_complex() else size


def _blur(images: Tensor, sigma: float) -> Tensor:
    from torchvision.transforms.v2 import functional as transforms

    size = [BLUR_WIDTH] * 2
    return _on_parts(images, lambda part: transforms.gaussian_blur(part, size, [sigma] * 2))


def _affine(images: Tensor, generator: np.random.Generator) -> Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    ny, nx = images.shape[-2:]
    angle, shear = (float(generator.uniform(-limit, limit)) for limit in (TURN, SHEAR))
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
