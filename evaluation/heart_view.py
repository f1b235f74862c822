"""Where the heart is in a series, which frames differ most there, and which grays show it.

Found from motion alone, without a segmentation: for pictures, not for measurements. Series are
(T, Y, X) real magnitude images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.lesion import density
from metrics import MOVING_QUANTILE

BORDER = 1 / 32  # of the image on every side, where motion does not count
TYPICAL = (0.1, 0.9)  # quantiles over time, between which a pixel changes: no single frame decides
BRIGHTEST = 0.99  # quantile that caps the change of a pixel: no single spot decides
REACH = 1 / 4  # of the image: the largest half width of the box
SMALLEST = 16  # pixels: the smallest half width
MOSTLY = 0.5  # share of the motion that the box must hold; else the heart fills the image
SPREADS = 2.5  # half width of the box over the spread of the moving pixels
WINDOW = (0.01, 0.995)  # quantiles of the box that are black and white


@dataclass(frozen=True)
class HeartView:
    """A square around the heart and what to show of it."""

    top: int
    left: int
    size: int  # pixels
    farthest: int  # frame that differs most from the first one
    window: tuple[float, float]  # gray values that are black and white
    aspect: float = 1.0  # the height of a pixel over its width
    pixel_width: float | None = None  # mm; None: not known
    frame_time: float | None = None  # ms from frame to frame; None: not known

    def moment(self, frame: int) -> str:
        """A frame in words: its time or, if that is not known, its number, which counts from 1."""
        if self.frame_time is None:
            return f"frame {frame + 1}"
        return f"{frame * self.frame_time:.0f} ms"

    @property
    def frames(self) -> dict[str, int]:
        """The two frames that pictures show, by their names."""
        first = self.moment(0)
        second = f"{self.moment(self.farthest)}, farthest from {first.removeprefix('frame ')}"
        return {first: 0, second: self.farthest}

    def crop(self, images):
        """The square of images (..., Y, X)."""
        rows = slice(self.top, self.top + self.size)
        return images[..., rows, self.left : self.left + self.size]


def find_heart(series: Tensor, aspect: float = 1.0) -> HeartView:
    """The main part of the moving region: the square around it, and the frame that differs most
    from the first one there, by the mean squared difference. The square is as large as the image
    if much of the motion is outside, as in images that were cut around the heart. `aspect`: of a
    pixel."""
    ny, nx = series.shape[1:]
    low, high = series.quantile(torch.tensor(TYPICAL, device=series.device), dim=0)
    change = high - low  # (Y, X)
    change = change.clamp(max=change.flatten().quantile(BRIGHTEST).item())
    change = change * (change >= change.flatten().quantile(MOVING_QUANTILE))
    inside = torch.zeros_like(change)
    by, bx = (max(1, int(BORDER * n)) for n in (ny, nx))
    inside[by : ny - by, bx : nx - bx] = 1
    change = change * inside
    row, column = divmod(int(density(change).argmax()), nx)
    reach = int(REACH * min(ny, nx))
    y, x = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
    for _ in range(2):  # to the centre of what moves near the maximum
        near = change * (((y - row).abs() <= reach) & ((x - column).abs() <= reach))
        total = near.sum().clamp(min=1e-12)
        row, column = (int((near * place).sum() / total) for place in (y, x))
    variance = (near * ((y - row).square() + (x - column).square())).sum() / total / 2
    spread = variance.sqrt().item()
    half = min(max(int(SPREADS * spread), SMALLEST), reach, min(ny, nx) // 2)
    top, left = placed(row, column, half, ny, nx)
    held = change[top : top + 2 * half, left : left + 2 * half].sum()
    if held < MOSTLY * change.sum():
        half = min(ny, nx) // 2
        top, left = placed(row, column, half, ny, nx)
    box = series[:, top : top + 2 * half, left : left + 2 * half].flatten(1)  # (T, pixels)
    farthest = int((box - box[0]).square().mean(dim=1).argmax())
    low, high = (box.flatten().quantile(q).item() for q in WINDOW)
    if high <= low:
        low, high = 0.0, 1.0
    return HeartView(top, left, 2 * half, farthest, (low, high), aspect)


def placed(row: int, column: int, half: int, ny: int, nx: int) -> tuple[int, int]:
    """Top and left of a square of half width `half` around a pixel, within the image."""
    return min(max(row - half, 0), ny - 2 * half), min(max(column - half, 0), nx - 2 * half)
