"""Images of a scan as a sample of a training file:

- one size: a crop around the median place of the moving region (`metrics.moving_region`), or zeros
  around the image;
- `n_frames` frames: cyclic cubic interpolation over the heartbeat (Catmull-Rom), which keeps frames
  that are there and is local, so that a heartbeat that was not recorded to its end spoils no more
  than its ends;
- one scale a sample: values are divided by the smaller of the maximum and 1.25 times the 99.9 %
  quantile, and magnitudes above 1, such as of a few hot pixels, are set to 1.

E. Catmull and R. Rom, "A class of local interpolating splines", in Computer Aided Geometric Design,
Academic Press, 1974.
"""

import numpy as np
import torch

from metrics import moving_region
from util.errors import InputError

HEADROOM, QUANTILE = 1.25, 0.999  # of the scale
FEWEST = 0.5  # frames of a series, as a share of n_frames


def sample_of(
    images: np.ndarray, shape: tuple[int, int, int], may_pad: bool
) -> tuple[np.ndarray, str]:
    """A sample of `shape` (T, Y, X) in [0, 1] (of such magnitude) from images, and what was done.

    Raises:
        InputError: there are too few frames, or the images are smaller and `may_pad` is False:
            zeros around images are easy to reconstruct, and raise every score.
    """
    n_frames, ny, nx = shape
    before = images.shape
    if len(images) < FEWEST * n_frames:
        raise InputError(
            f"{len(images)} frames, fewer than half of {n_frames} (--n-frames asks for fewer)"
        )
    if not may_pad and (before[1] < ny or before[2] < nx):
        raise InputError(
            f"{before[1]} x {before[2]} pixels, smaller than {ny} x {nx}: --size {before[1]}"
            f" {before[2]} makes all samples as small, and --size {ny} {nx} puts zeros around it"
        )
    images = resized(images, (ny, nx))
    images = with_frames(images, n_frames)
    if images.dtype.kind != "c":
        images = np.maximum(images, 0)
    size = np.abs(images)
    peak = float(size.max())
    if peak == 0:
        raise InputError("the part that is kept is all zero")
    scale = min(peak, HEADROOM * float(np.quantile(size, QUANTILE))) or peak
    over = size > scale
    images = images / np.where(over, size, scale).astype(np.float32)
    images = np.minimum(images, 1) if images.dtype.kind != "c" else images
    clipped = f", {over.sum()} of {over.size} values set to 1" if over.any() else ""
    changes = "".join(
        f", {verb} from {' x '.join(map(str, old))} to {' x '.join(map(str, new))}"
        for verb, old, new in (
            ("frames interpolated", before[:1], shape[:1]),
            ("padded with zeros", before[1:], tuple(map(max, before[1:], shape[1:]))),
            ("cropped", before[1:], tuple(map(min, before[1:], shape[1:]))),
        )
        if old != new
    )
    return np.ascontiguousarray(images), f"divided by {scale:.6g}{clipped}{changes}"


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images (T, *size): a crop around the moving region, or the images with zeros around them."""
    region = moving_region(torch.from_numpy(np.abs(images))[None])[0].numpy()  # (Y, X)
    for axis, n in enumerate(size, start=1):
        length = images.shape[axis]
        if length > n:
            middle = int(np.median(np.nonzero(region)[axis - 1]))
            first = min(max(0, middle - n // 2), length - n)
            images = images.take(range(first, first + n), axis)
        elif length < n:
            before = n // 2 - length // 2  # the middle of the field of view stays in the middle
            widths = [(0, 0)] * 3
            widths[axis] = (before, n - length - before)
            images = np.pad(images, widths)
    return images


def with_frames(images: np.ndarray, n_frames: int) -> np.ndarray:
    """Images (T, Y, X) at `n_frames` times over the heartbeat, whose first is that of frame 0, by
    cyclic cubic (Catmull-Rom) interpolation."""
    n = len(images)
    if n == n_frames:
        return images
    at = np.arange(n_frames) * n / n_frames
    first = np.floor(at).astype(int)
    u = (at - first)[:, None]  # of the way from frame `first` to the next
    weights = np.hstack(
        (
            -u / 2 + u**2 - u**3 / 2,
            1 - 2.5 * u**2 + 1.5 * u**3,
            u / 2 + 2 * u**2 - 1.5 * u**3,
            -(u**2) / 2 + u**3 / 2,
        )
    ).astype(np.float32)  # (n_frames, 4), of the frames from first - 1 on
    new = np.zeros((n_frames, *images.shape[1:]), images.dtype)
    for k in range(4):
        new += weights[:, k, None, None] * images[(first - 1 + k) % n]
    return new
