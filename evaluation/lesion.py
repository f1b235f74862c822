"""A small lesion in the moving heart wall: does a method keep it, erase it, or smear it?

A smooth disc of known contrast is added to a fully sampled series at a point of the heart and moves
with the tissue there. The series is reconstructed with and without the lesion, with the same masks.
The difference of the two reconstructions shows how the method treats the lesion.

Series are (T, Y, X) real magnitude images. A path is (T, 2): row and column of the lesion's centre
in every frame, in pixels with sub-pixel precision. The last frame is followed by the first.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics import moving_region

DIAMETERS = (3.0, 4.0, 6.0, 8.0)  # pixels
CONTRASTS = (0.2, -0.2)  # bright and dark, in units of the image range [0, 1]
EDGE = 0.5  # pixels, width of the disc's smooth edge
PATCH = 8  # tracked patches are 2 PATCH + 1 pixels wide
SEARCH = 3  # pixels that a patch may move from a frame to the next
CANDIDATES = 256  # points of the moving region that are tracked
HEART_RADIUS = 10  # pixels around a pixel in which change over time is averaged
HEART_SHARE = 0.5  # fraction of the highest change; the heart changes more than this
SMALLEST_EXCURSION = 2.0  # pixels between the two farthest points of a moving path
WALL = (0.15, 0.7)  # range of the heart wall's signal, relative to that of blood


def find_path(series: Tensor) -> Tensor:
    """The path of the point of the moving heart wall that can be tracked best.

    Points of the moving region are tracked through the heartbeat and back to the first frame. Of
    the points that move, look like heart wall and return to where they started, the one whose patch
    changes least is taken. If there are none, the one that comes closest to this is taken.
    """
    region = moving_region(series[None])[0]
    heart = density(series.var(dim=0, correction=0) * region)
    heart = heart > HEART_SHARE * heart.max()
    inside = torch.zeros_like(region)
    inside[PATCH:-PATCH, PATCH:-PATCH] = True
    points = (region & heart & inside).nonzero()
    if not len(points):
        points = torch.tensor([[n // 2 for n in series.shape[1:]]], device=series.device)
    points = points[:: math.ceil(len(points) / CANDIDATES)]
    paths, mismatch, drift = track(series, points)
    excursion = (paths[:, :, None] - paths[:, None]).norm(dim=-1).amax(dim=(1, 2))
    signal = torch.stack([sample_at(series, path) for path in paths])  # (N, T)
    blood = series[0].flatten().quantile(0.98)
    wall = ((signal > WALL[0] * blood) & (signal < WALL[1] * blood)).float().mean(dim=1)
    penalty = (
        mismatch / mismatch.mean().clamp(min=1e-12)
        + drift
        + 10 * (excursion < SMALLEST_EXCURSION)
        + 10 * (1 - wall)
    )
    return paths[penalty.argmin()]


def density(change: Tensor) -> Tensor:
    """The change (Y, X), smoothed: highest in the heart, because most of the heart moves."""
    width = 2 * HEART_RADIUS + 1
    total = change[None, None]
    for _ in range(2):  # two box filters in a row make a smooth one
        total = F.avg_pool2d(total, width, stride=1, padding=HEART_RADIUS)
    return total[0, 0]


def track(series: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Track points (N, 2) of frame 0 from frame to frame, by the smallest squared difference of
    patches.

    Returns:
        paths (N, T, 2); the mean squared difference of patches between frames (N,); and the drift
        (N,), the pixels between a point and its position after the whole heartbeat, which is
        removed from the path evenly over time.
    """
    n_frames, ny, nx = series.shape
    size = torch.tensor([ny - 1, nx - 1], device=series.device)
    low = (size // 2).clamp(max=PATCH)  # in small images patches reach beyond the border
    high = size - low
    steps = torch.arange(-SEARCH, SEARCH + 1, device=series.device)
    moves = torch.cartesian_prod(steps, steps)  # (M, 2)
    inner = slice(SEARCH, -SEARCH)
    position = points.to(torch.float32)
    visited, mismatch = [position], torch.zeros(len(points), device=series.device)
    for frame in range(n_frames):
        here = windows_at(series[frame], position, PATCH + SEARCH)[:, inner, inner]
        there = windows_at(series[(frame + 1) % n_frames], position, PATCH + SEARCH)
        cost = torch.stack(  # (N, M)
            [
                (there[:, row : row + here.shape[1], column : column + here.shape[2]] - here)
                .square()
                .mean(dim=(-2, -1))
                for row, column in (moves + SEARCH).tolist()
            ],
            dim=1,
        )
        lowest, best = cost.min(dim=1)
        position = (position + moves[best] + subpixel(cost, best)).clamp(low, high)
        mismatch += lowest / n_frames
        visited.append(position)
    gap = visited[-1] - visited[0]  # (N, 2)
    share = torch.arange(n_frames, device=series.device)[:, None] / n_frames
    return torch.stack(visited[:-1], dim=1) - gap[:, None] * share, mismatch, gap.norm(dim=-1)


def subpixel(cost: Tensor, best: Tensor) -> Tensor:
    """Sub-pixel offset (N, 2) of the minimum of (N, M) costs, by a parabola along each axis."""
    n = 2 * SEARCH + 1
    grid = cost.unflatten(1, (n, n))
    row, column = best // n, best % n
    here = torch.arange(len(cost))
    shifts = []
    for axis, index in ((0, row), (1, column)):
        at = index.clamp(1, n - 2)  # a minimum at the border stays there
        other = column if axis == 0 else row
        values = [
            grid[here, at + step, other] if axis == 0 else grid[here, other, at + step]
            for step in (-1, 0, 1)
        ]
        curvature = values[0] - 2 * values[1] + values[2]
        shift = 0.5 * (values[0] - values[2]) / curvature.clamp(min=1e-12)
        shifts.append(torch.where(at == index, shift.clamp(-0.5, 0.5), 0.0))
    return torch.stack(shifts, dim=-1)


def sample_at(series: Tensor, path: Tensor) -> Tensor:
    """The values (T,) of a series along a path (T, 2), linearly interpolated between pixels."""
    return torch.stack(
        [_interpolate(image, point[None]) for image, point in zip(series, path, strict=True)]
    ).squeeze(1)


def windows_at(image: Tensor, centres: Tensor, reach: int) -> Tensor:
    """The values (N, W, W), W = 2 reach + 1, of an image (Y, X) around centres (N, 2), linearly
    interpolated; beyond its border the image goes on with its last values."""
    steps = torch.arange(-reach, reach + 1, device=image.device, dtype=torch.float32)
    offsets = torch.cartesian_prod(steps, steps)  # (W W, 2)
    points = centres[:, None] + offsets
    return _interpolate(image, points.flatten(0, 1)).view(len(centres), len(steps), len(steps))


def _interpolate(image: Tensor, points: Tensor) -> Tensor:
    """Values (N,) of an image (Y, X) at points (N, 2)."""
    size = torch.tensor(image.shape, device=image.device)
    grid = (2 * points / (size - 1).clamp(min=1) - 1).flip(-1)[None, None]  # x before y
    return F.grid_sample(
        image[None, None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )[0, 0, 0]


def lesion(series: Tensor, path: Tensor, diameter: float, contrast: float) -> Tensor:
    """The change that a lesion makes to a series, (T, Y, X): `contrast` inside a disc of `diameter`
    pixels, limited so that the sum stays in [0, 1]."""
    axes = [torch.arange(n, device=series.device) for n in series.shape[1:]]
    y, x = torch.meshgrid(*axes, indexing="ij")
    centre = path[:, :, None, None]  # (T, 2, 1, 1)
    distance = ((y - centre[:, 0]).square() + (x - centre[:, 1]).square()).sqrt()
    disc = torch.sigmoid((diameter / 2 - distance) / (EDGE / 2))
    return (series + contrast * disc).clamp(0, 1) - series


def kept_contrast(difference: Tensor, added: Tensor) -> Tensor:
    """The fraction of the lesion's contrast that a method keeps in every frame, (T,): 1 for all, 0
    for none; NaN if nothing could be added, such as a dark lesion to a black pixel.

    Args:
        difference: (T, Y, X), of the reconstructions with and without the lesion.
        added: (T, Y, X), the change that the lesion makes to the series.
    """
    size = added.square().sum(dim=(-2, -1))
    fraction = (difference * added).sum(dim=(-2, -1)) / size.clamp(min=1e-12)
    return torch.where(size > 1e-6, fraction, torch.nan)


def ghost_contrast(difference: Tensor, added: Tensor) -> Tensor:
    """The fraction of the lesion's contrast that appears in a wrong place in every frame, (T,): in
    the pixels of the lesion half a heartbeat later that are not pixels of it now. 0 for none; NaN
    if the two places overlap."""
    later = added.roll(-(len(added) // 2), dims=0)
    elsewhere = torch.where(added.abs() < 0.05 * added.abs().max(), later, 0)
    size = elsewhere.square().sum(dim=(-2, -1))
    seen = size > 0.2 * later.square().sum(dim=(-2, -1))
    return torch.where(seen, (difference * elsewhere).sum(dim=(-2, -1)) / size, torch.nan)
