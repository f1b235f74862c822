"""What is measured in one series for looking at it: the heart, and errors by frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from evaluation.error_map import ErrorMap, curves, error_line
from evaluation.heart_view import HeartView, find_heart
from metrics import moving_region, psnr


@dataclass(frozen=True)
class SeriesView:
    """One series as reconstructed by several methods, with what is measured in it.

    Images are magnitudes (T, Y, X) with a peak near 1, by name, in the order in which they are
    shown. The heart is found in the reference: the truth or, if that is unknown, the last.
    """

    title: str
    images: Mapping[str, np.ndarray]  # float32; the truth first, if it is known
    truth: str | None  # its name; None: unknown
    roles: Mapping[str, str]  # what each is, in a few words, such as "network"
    heart: HeartView
    psnr: Mapping[str, np.ndarray] = field(default_factory=dict)  # (T,) dB; empty without truth
    errors: "ErrorView | None" = None  # of the last images; None: unknown

    @property
    def n_frames(self) -> int:
        return len(next(iter(self.images.values())))


@dataclass(frozen=True)
class ErrorView:
    """The expected error of the last images of a series, in their scale."""

    expected: np.ndarray  # (T, Y, X) float32
    by_frame: Mapping[str, np.ndarray]  # means over the moving region, (T,)
    line: str  # what it says


def view_series(
    title: str,
    images: Mapping[str, np.ndarray],
    roles: Mapping[str, str],
    truth: str | None,
    heart: HeartView | None = None,
    errors: ErrorView | None = None,
) -> SeriesView:
    """Measure a series; see `SeriesView`.

    Args:
        heart: of the reference, if it is known already.
        errors: expected errors of the last images, if they are known.
    """
    reference = torch.from_numpy(images[list(images)[-1] if truth is None else truth])
    heart = heart or find_heart(reference)
    by_frame = {}
    if truth is not None:
        for name, series in images.items():
            if name != truth:
                frames = torch.from_numpy(series)[:, None]  # (T, 1, Y, X)
                by_frame[name] = psnr(frames, reference[:, None]).numpy()
    return SeriesView(title, images, truth, roles, heart, psnr=by_frame, errors=errors)


def view_errors(found: ErrorMap, images: Tensor, truth: Tensor | None) -> ErrorView:
    """The error map of images (T, Y, X), as shares of the maximum of the truth or, if that is not
    known, of the images."""
    reference = (images if truth is None else truth).abs()
    peak, moving = reference.max(), moving_region(reference[None])[0]
    by_frame = curves(found, moving)
    if truth is not None:
        true = (images.abs() - reference).abs()[:, moving].mean(dim=1)
        by_frame = {**by_frame, "true error": true.numpy()}
    scaled = {name: values / peak.item() for name, values in by_frame.items()}
    return ErrorView((found.expected / peak).numpy(), scaled, error_line(found, images, truth))
