"""The training losses: each a function of a reconstruction and the truth, one value per sample.

Both are (B, T, Y, X), whole images or strips of columns; magnitudes, real or complex. Images have a
peak of 1, so that errors need no scale; what is divided by a scale of the sample's own says so. All
are 0 at equality, and have finite gradients everywhere. To add a loss, add it to `LOSSES`.
"""

import math
from collections.abc import Callable
from itertools import zip_longest

import torch
from torch import Tensor

from metrics import LEAST_MOTION, SSIM_CROP_2D, SSIM_CROP_3D, ssim, ssim_2d, window_matrix
from util.errors import InputError

SMALL_ERROR = 1e-3  # below it `charbonnier` is quadratic, above it absolute
LOG_SIGMA, LOG_RADIUS = 1.5, 7  # pixels: the filter of 15 x 15 of the HFEN's paper
SMALL_MAGNITUDE = 1e-2  # below it the phase counts less and less: it is that of noise
VOLUME = (-3, -2, -1)  # T, Y, X


def mse(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error."""
    return (reconstruction - truth).abs().square().mean(dim=VOLUME)


def l1(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error."""
    return (reconstruction - truth).abs().mean(dim=VOLUME)


def charbonnier(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Mean of sqrt(|error|^2 + c^2) - c with c = 0.001: absolute error, smooth at 0.

    W.-S. Lai et al., CVPR 2017, section 3.3; P. Charbonnier et al., ICIP 1994.
    """
    squares = (reconstruction - truth).abs().square()
    # the same without a difference of nearly equal numbers
    return (squares / ((squares + SMALL_ERROR**2).sqrt() + SMALL_ERROR)).mean(dim=VOLUME)


def ssim_error(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """One minus the structural similarity of magnitudes in (t, y, x), as `metrics.ssim` has it; it
    is divided by the range of the truth, of a strip its own.

    H. Zhao et al., IEEE Trans Comput Imaging 2017.
    """
    return 1 - ssim(reconstruction.abs(), truth.abs())


def ssim_2d_error(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """One minus the structural similarity of the magnitude of each frame (`metrics.ssim_2d`)."""
    return 1 - ssim_2d(reconstruction.abs(), truth.abs())


def hfen(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """High-frequency error: the mean squared difference of the images after a Laplacian of Gaussian
    of 1.5 pixels on each frame, whose greatest gain is 1, at stripes of 7 pixels.

    The filter is linear: it is that of the error, mirrored at the borders; at most `mse`.

    S. Ravishankar and Y. Bresler, IEEE Trans Med Imaging 30:1028-1041, 2011, who give its root.
    """
    error = reconstruction - truth
    offsets = torch.arange(-LOG_RADIUS, LOG_RADIUS + 1, device=error.device)
    gaussian = torch.exp(-0.5 * (offsets / LOG_SIGMA) ** 2)
    gaussian = gaussian / gaussian.sum()
    curvature = (offsets.square() / LOG_SIGMA**2 - 1) * gaussian * (math.e / 2)  # gain of 1
    curvature = curvature - curvature.mean()  # nothing of a constant
    (smooth_y, bend_y), (smooth_x, bend_x) = (
        [window_matrix(weights, size).to(error) for weights in (gaussian, curvature)]
        for size in error.shape[-2:]
    )
    filtered = smooth_y @ error @ bend_x.mT + bend_y @ error @ smooth_x.mT
    return filtered.abs().square().mean(dim=VOLUME)


def perpendicular(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """The part of the truth that is perpendicular to the reconstruction in the complex plane, and
    the squared error of the magnitude; of complex images.

    With an angle a between them the first part is |truth| |sin a|, or |truth| (2 - |sin a|) beyond
    a right angle. It falls to 0 where the reconstruction has a magnitude below 0.01.

    M. L. Terpstra et al., Med Image Anal 80:102509, 2022.
    """
    if not truth.is_complex():  # it has no phase
        truth = torch.complex(truth, torch.zeros_like(truth))
    product = reconstruction.conj() * truth  # |reconstruction| |truth| e^ia
    size, across = product.abs(), product.imag.abs()
    opposite = product.real < 0
    magnitude = reconstruction.abs()
    floor = (magnitude.square() + SMALL_MAGNITUDE**2).sqrt()
    phase = torch.where(opposite, 2 * size - across, across) / floor
    return (phase + (magnitude - truth.abs()).square()).mean(dim=VOLUME)


def kspace(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of the lines in (ky, x), weighted with 1 + |ky|, divided by the mean of
    these weights; ky in lines from the centre.

    The transform is along Y alone, which is whole in strips of columns too. An error without
    structure has the value of `mse`; with a weight of 1 it would be `mse` (Parseval).
    """
    error = torch.fft.fft(reconstruction - truth, dim=-2, norm="ortho")
    ny = error.shape[-2]
    weights = 1 + torch.fft.fftfreq(ny, 1 / ny, device=error.device).abs()
    weights = (weights / weights.mean())[:, None]  # (Y, 1)
    return (weights * error.abs().square()).mean(dim=VOLUME)


def moving(reconstruction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error, weighted with the standard deviation over time of each pixel's true
    magnitude, divided by its mean; `mse` if nothing moves.

    What stands still has next to no weight: add `mse`.
    """
    deviation = truth.abs().std(dim=-3, correction=0, keepdim=True)  # (B, 1, Y, X)
    mean = deviation.mean(dim=VOLUME, keepdim=True)
    weights = torch.where(mean > LEAST_MOTION, deviation / mean, 1.0)
    return (weights * (reconstruction - truth).abs().square()).mean(dim=VOLUME)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "l1": l1,
    "charbonnier": charbonnier,
    "ssim": ssim_error,
    "ssim_2d": ssim_2d_error,
    "hfen": hfen,
    "perpendicular": perpendicular,
    "kspace": kspace,
    "moving": moving,
}
OF_COMPLEX = ("perpendicular",)
LEAST_SIZE = {  # (T, Y, X)
    "ssim": 3 * (2 * SSIM_CROP_3D + 1,),
    "ssim_2d": (1, 2 * SSIM_CROP_2D + 1, 2 * SSIM_CROP_2D + 1),
}

Loss = str | tuple[str | float, ...]  # a name, or names, each with its weight behind it


def training_loss(reconstruction: Tensor, truth: Tensor, loss: Loss) -> Tensor:
    """The loss of each sample, (B,): one of `LOSSES`, or the weighted sum of several.

    A complex reconstruction is compared with the truth itself; a real one with its magnitude.
    """
    if truth.is_complex() and not reconstruction.is_complex():
        truth = truth.abs()
    terms = [
        weight * LOSSES[name](reconstruction, truth) for name, weight in loss_terms(loss).items()
    ]
    return torch.stack(terms).sum(dim=0)


def loss_terms(loss: Loss) -> dict[str, float]:
    """The weight of each loss in the sum; 1 if none is given.

    Raises:
        InputError: these are not names with weights behind them.
    """
    words = loss if isinstance(loss, tuple) else (loss,)
    terms: dict[str, float] = {}
    for word, following in zip_longest(words, words[1:]):
        if isinstance(word, str):
            if word in terms:
                raise InputError(f"--loss has {word} twice: give it one weight")
            terms[word] = 1.0 if following is None or isinstance(following, str) else following
        elif following is not None and not isinstance(following, str):
            raise InputError(f"--loss has {word} and {following} without a name between them")
    if not terms or not isinstance(words[0], str):
        raise InputError(f"--loss is {loss_text(loss)!r}, expected names, such as mse 1 ssim 0.01")
    if bad := [name for name, weight in terms.items() if not weight > 0]:
        raise InputError(f"--loss gives {bad[0]} a weight of {terms[bad[0]]}, expected more than 0")
    return terms


def loss_text(loss: Loss) -> str:
    """The loss in words: "mse", or "mse 1 ssim 0.01"."""
    words = loss if isinstance(loss, tuple) else (loss,)
    return " ".join(word if isinstance(word, str) else f"{word:g}" for word in words)
