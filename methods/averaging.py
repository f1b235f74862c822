"""Averaging at test time: the mean of the reconstructions of mirrored series, mirrored back.

A network that was trained on flipped and reversed series treats them alike, but not exactly so; the
mean is closer to the truth than each of them. Costs as many reconstructions. Known in image
restoration as geometric self-ensemble: B. Lim et al., "Enhanced deep residual networks for single
image super-resolution", CVPR workshops 2017.
"""

import itertools

from torch import Tensor

from CS_mask import hermitian_mirror
from methods.arguments import require_measured
from methods.baselines import Method

Y, X, TIME = -2, -1, 1  # axes of (B, T, Y, X), or of (B, T, C, Y, X)
FLIPPED = (Y, X, TIME)  # in this order: 2 variants need the first, 4 the first two
AVERAGES = tuple(2**n for n in range(len(FLIPPED) + 1))


def average_name(method: str, n: int) -> str:
    """The name of a method's mean over `n` mirrored series."""
    return f"{method}_average{n}"


def averaged(method: Method, n: int) -> Method:
    """A method that averages the images of `n` mirrored series, one of `AVERAGES`.

    A mirrored series was measured in mirrored lines, so each variant keeps the measured lines if
    the method does, and so does the mean. Of magnitudes, the magnitudes are averaged.
    """
    axes = FLIPPED[: AVERAGES.index(n)]
    variants = [
        [axis for axis, chosen in zip(axes, choice, strict=True) if chosen]
        for choice in itertools.product((False, True), repeat=len(axes))
    ]

    def mean(aliased: Tensor, mask: Tensor, *maps: Tensor) -> Tensor:
        require_measured(aliased, mask, *maps)
        images = []
        for flipped in variants:
            space = [axis for axis in flipped if axis != TIME]
            turned = (each.flip(space) for each in maps)
            variant = method(aliased.flip(flipped), mirrored(mask, flipped), *turned)
            images.append(variant.flip(flipped))
        return sum(images[1:], start=images[0]) / n

    return mean


def mirrored(mask: Tensor, flipped: list[int]) -> Tensor:
    """The mask (B, T, Y, 1) of a series that is flipped along some axes: the lines of an image that
    is flipped along Y are those of the opposite frequencies."""
    if TIME in flipped:
        mask = mask.flip(TIME)
    return hermitian_mirror(mask) if Y in flipped else mask
