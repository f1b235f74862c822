"""Scores of a reconstruction against its target.

A score takes `(reconstruction, target)` as real (B, T, Y, X) tensors on any device and returns (B,)
float32, one score per sample. Nothing is clamped or rescaled first. The peak is 1.0 by convention
of the data, never the maximum of the reconstruction. The first paragraph of each docstring is
printed in every report as the definition of the score. To add a score, add it to `SCORES`.

References: Z. Wang et al., "Image quality assessment: from error visibility to structural
similarity", IEEE Trans Image Process 13:600-612, 2004; scikit-image's `structural_similarity`,
with which both SSIMs agree.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MSE_FLOOR = 1e-12  # caps the PSNR of identical images at 120 dB
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # Gaussian window, cut at 3.5 sigma
SSIM_K1, SSIM_K2 = 0.01, 0.03
SSIM_CROP_3D, SSIM_CROP_2D = 3, 5  # win_size // 2 for win_size 7 (the reference's) and 11
MOVING_QUANTILE = 0.95
LEAST_MOTION = 1e-6  # temporal standard deviation, for a peak of 1.0, that may be rounding


def mse(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all frames and pixels of a sample."""
    return (reconstruction - target).square().mean(dim=(-3, -2, -1))


def psnr(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / MSE), with the MSE over all frames and pixels
    of a sample and a peak of 1.0. It is limited to 120 dB, the value for identical images."""
    return _decibel(mse(reconstruction, target))


def nmse(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Normalised mean squared error, ||reconstruction - target||^2 / ||target||^2, over all frames
    and pixels of a sample.

    The MSE if the target is all zero.
    """
    energy = target.square().mean(dim=(-3, -2, -1))
    return mse(reconstruction, target) / torch.where(energy > 0, energy, 1.0)


def moving_region(target: Tensor) -> Tensor:
    """(B, Y, X) bool: the pixels whose temporal standard deviation in the target is at or above its
    95th percentile over the image.

    Only pixels that change at all, if these are fewer; all pixels of a sample that does not move.
    """
    deviation = target.std(dim=-3, correction=0)  # (B, Y, X)
    threshold = deviation.flatten(-2).quantile(MOVING_QUANTILE, dim=-1)[..., None, None]
    moves = deviation > LEAST_MOTION
    still = ~moves.flatten(-2).any(dim=-1)[..., None, None]
    return ((deviation >= threshold) & moves) | still


def moving_psnr(reconstruction: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB, with a peak of 1.0, in all frames of the moving region: the pixels whose temporal
    standard deviation in the target is above 0 and at or above its 95th percentile over the image.

    All pixels of a sample that does not move.
    """
    region = moving_region(target)
    error = (reconstruction - target).square().mean(dim=-3)  # (B, Y, X)
    return _decibel((error * region).sum(dim=(-2, -1)) / region.sum(dim=(-2, -1)))


def ssim(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of the (t, y, x) volume with a 3-D Gaussian window (sigma 1.5) and the
    target's range (maximum - minimum of the sample), averaged over the volume without the outermost
    3 frames and pixels on each side. It is not comparable with the 2-D SSIM.

    This is the reference system's definition: scikit-image with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, win_size=7, data_range=target.max() - target.min()` on the
    (T, Y, X) volume. NaN if an axis is shorter than the window of 7. A constant target has no
    range; 1.0 is used instead.
    """
    return _ssim(reconstruction, target, axes=(-3, -2, -1), crop=SSIM_CROP_3D)


def ssim_2d(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each frame, as in most of the literature: with a 2-D Gaussian window
    (sigma 1.5) and the target's range (maximum - minimum of the sample), averaged over each frame
    without the outermost 5 pixels on each side, and over frames.

    scikit-image with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False` on every
    frame. NaN if Y or X is shorter than the window of 11. A constant target has no range; 1.0 is
    used instead.
    """
    return _ssim(reconstruction, target, axes=(-2, -1), crop=SSIM_CROP_2D)


@dataclass(frozen=True)
class Score:
    """A score, and how it is shown: all tables, pages, logs and files follow from this."""

    function: Callable[..., Any]  # of (reconstruction, target); its docstring is the definition
    title: str  # with its unit
    digits: int  # after the decimal point
    higher_is_better: bool = True
    shown: bool = True  # in the tables of pages and papers; those of `output.txt` have all
    compared: bool = False  # network minus the best training-free method
    logged: bool = False  # after every validation, as `validation/name`
    with_spread: bool = True  # "mean ± standard deviation" in `output.txt`, else the mean

    @property
    def definition(self) -> str:
        """Its definition in words: the first paragraph of the function's docstring."""
        return " ".join((self.function.__doc__ or "").split("\n\n")[0].split())


SCORES = {
    # named after its column in the tables, whatever the training loss is
    "loss": Score(mse, "MSE", 5, False, shown=False, logged=True, with_spread=False),
    "psnr": Score(psnr, "PSNR (dB)", 2, compared=True, logged=True),
    "ssim": Score(ssim, "SSIM (3-D)", 3, compared=True, logged=True),
    "ssim_2d": Score(ssim_2d, "SSIM (2-D)", 3),
    "nmse": Score(nmse, "NMSE", 4, False, shown=False, with_spread=False),
    "moving_psnr": Score(moving_psnr, "moving PSNR", 2, compared=True),
}


def scores_of(
    reconstruction: Tensor, target: Tensor, names: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """The scores of `names` (None: all), each (B,)."""
    wanted = SCORES if names is None else names
    return {name: SCORES[name].function(reconstruction, target) for name in wanted}


def definitions(scores: Mapping[str, Score] = SCORES) -> list[str]:
    """The definition of each score, one per line."""
    return [f"{one.title} ({name}): {one.definition}" for name, one in scores.items()]


def _decibel(error: Tensor) -> Tensor:
    return -10 * error.clamp(min=MSE_FLOOR).log10()


def _ssim(reconstruction: Tensor, target: Tensor, axes: tuple[int, ...], crop: int) -> Tensor:
    if min(target.shape[axis] for axis in axes) < 2 * crop + 1:
        return target.new_full(target.shape[:1], torch.nan)
    span = target.amax(dim=(-3, -2, -1)) - target.amin(dim=(-3, -2, -1))
    span = torch.where(span > 0, span, 1.0)[:, None, None, None]
    level = target.mean(dim=(-3, -2, -1), keepdim=True)
    # With a range of 1 around the target's mean, differences of squares stay accurate in float32.
    reconstruction, target = (reconstruction - level) / span, (target - level) / span
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, device=target.device)
    weights = torch.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    weights = weights / weights.sum()
    windows = [(axis, window_matrix(weights, target.shape[axis], crop).to(target)) for axis in axes]

    def window_mean(image: Tensor) -> Tensor:
        for axis, window in windows:
            image = torch.tensordot(image, window, dims=([axis], [1])).movedim(-1, axis)
        return image

    mean_r, mean_t = window_mean(reconstruction), window_mean(target)
    variance_r = window_mean(reconstruction.square()) - mean_r.square()
    variance_t = window_mean(target.square()) - mean_t.square()
    covariance = window_mean(reconstruction * target) - mean_r * mean_t
    mean_r, mean_t = mean_r + level / span, mean_t + level / span
    similarity = ((2 * mean_r * mean_t + c1) * (2 * covariance + c2)) / (
        (mean_r.square() + mean_t.square() + c1) * (variance_r + variance_t + c2)
    )
    return similarity.mean(dim=(-3, -2, -1))


def window_matrix(weights: Tensor, size: int, crop: int = 0) -> Tensor:
    """(size - 2 crop, size): the weights of a centred window, an odd number, for every position
    inside the crop, reflected at the borders with the edge repeated (scipy's `reflect`)."""
    offsets = torch.arange(len(weights), device=weights.device) - len(weights) // 2
    places = torch.arange(crop, size - crop, device=weights.device)
    index = (places[:, None] + offsets) % (2 * size)
    index = torch.where(index < size, index, 2 * size - 1 - index)  # (size - 2 crop, window)
    window = torch.zeros(size - 2 * crop, size, device=weights.device)
    return window.scatter_add_(1, index, weights.expand_as(index).contiguous())
