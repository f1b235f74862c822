"""How far to trust a network: the share of its correction that predicts held-out lines best.

A network adds a correction to its start. On images unlike those that it was trained on, the
correction points the right way but goes too far. With a tenth of the measured lines held out, the
start x and the reconstruction z are computed again. The share s of the correction is the one that
predicts the held-out lines y best, by weighted least squares:

    s = <P (z - x), y - P x> / |P (z - x)|^2

P takes the held-out lines of an image. Few lines tell s badly: so its standard error over the lines
is subtracted, and what is left is limited to 0 and 1. The images of all lines are then
x + s (z - x). They keep the measured lines as the network does. The middle columns tell the share
well enough, so that it costs less than half of the reconstruction.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from methods.arguments import require_measured
from methods.baselines import Method
from methods.held_out import hold_out, line_weights, of_coils
from methods.start import ZERO_FILLED, initial_images
from physics.fourier import in_single
from physics.sense import as_measured, measurement_of, seen_by
from util.random_streams import Stream, generator

COLUMNS = 64  # in the middle of the image, that the share is taken from
FEWEST, DRAWS = 5, 20  # held-out lines that tell a share, and draws of which one must have them


def calibrated_name(method: str) -> str:
    """The name of a network's calibrated images."""
    return f"{method}_calibrated"


def can_be_calibrated(architecture: Mapping[str, Any]) -> bool:
    """Whether a network of these settings corrects a training-free start and puts the measured
    lines back."""
    corrects = architecture.get("start", ZERO_FILLED) != ZERO_FILLED
    return corrects and architecture.get("data_consistency", True)


def calibrated(method: Method, start: str, real_image: bool) -> Method:
    """The start plus the share of the correction that predicts held-out lines best.

    Args:
        method: of `(aliased, mask)` or `(aliased, mask, maps)`, which takes its start as `start`.
        start: its name, one of `STARTS` but "zero_filled".
        real_image: whether the network assumes real-valued images.
    """

    @torch.no_grad()
    def reconstruct(aliased: Tensor, mask: Tensor, maps: Tensor | None = None) -> Tensor:
        require_measured(aliased, mask, maps)
        from_start = initial_images(start, measurement_of(aliased, mask, maps, real_image))
        images = method(*as_measured(aliased, mask, maps), start=from_start)
        shares = torch.stack(
            [
                share(method, start, real_image, aliased[i : i + 1], mask[i : i + 1],
                      None if maps is None else maps[i : i + 1])
                for i in range(len(aliased))
            ]
        )  # fmt: skip
        return from_start + shares[:, None, None, None] * (images - from_start)

    return reconstruct


def share(
    method: Method,
    start: str,
    real_image: bool,
    aliased: Tensor,
    mask: Tensor,
    maps: Tensor | None,
) -> Tensor:
    """The share of the correction for one series, (1, T, Y, X) or of coils (1, T, C, Y, X); 1 if
    there are too few lines to hold some out."""
    first = max(0, aliased.shape[-1] - COLUMNS) // 2
    aliased = aliased[..., first : first + COLUMNS]
    maps = None if maps is None else maps[..., first : first + COLUMNS]
    rng = generator(Stream.HELD_OUT, 0)
    draws = (hold_out(aliased, mask, maps, real_image, rng) for _ in range(DRAWS))
    held = next((one for one in draws if one.lines.sum() >= FEWEST), None)
    if held is None:
        return torch.ones((), device=aliased.device)
    measured = as_measured(held.given, held.seen, maps)
    before = initial_images(start, measurement_of(held.given, held.seen, maps, real_image))
    after = method(*measured, start=before)
    weight = torch.fft.ifftshift(of_coils(held.lines * line_weights(held.often), maps), dim=-2)
    correction, error = (
        torch.fft.fft(in_single(seen_by(images, maps)), dim=-2)
        for images in (after - before, before)
    )
    error = torch.fft.fft(in_single(aliased), dim=-2) - error
    agreement = by_line(weight * (correction.conj() * error).real)
    energy = by_line(weight * correction.abs().square())
    best = agreement.sum() / energy.sum().clamp(min=1e-12)
    deviation = (agreement - best * energy).square().sum().sqrt() / energy.sum().clamp(min=1e-12)
    return (best - deviation).clamp(0, 1)


def by_line(values: Tensor) -> Tensor:
    """Sums over columns and coils of values (1, T, Y, X) or (1, T, C, Y, X): (T, Y)."""
    lines = values.sum(dim=-1)[0]
    return lines.sum(dim=1) if lines.dim() == 3 else lines
