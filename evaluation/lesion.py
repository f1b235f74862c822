"""A small lesion in the moving heart wall: is it kept, erased, or smeared along its path?

A smooth disc of known contrast is added to a fully sampled series at a point of the heart and moves
with the tissue there. The series is reconstructed with and without it, with the same masks; the
difference of the two shows how the method treats the lesion.

Series are (T, Y, X) real magnitude images; a path is (T, 2), the row and column of the lesion's
centre in every frame, in fractions of a pixel. Time is cyclic.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics import moving_region

DIAMETERS = (3.0, 4.0, 6.0, 8.0)  # pixels
CONTRASTS = (0.2, -0.2)  # bright and dark, of the range of the images
EDGE = 0.5  # pixels over which the disc falls off
PATCH = 8  # tracked patches are 2 PATCH + 1 pixels wide
SEARCH = 3  # pixels that a patch may move from a frame to the next
CANDIDATES = 256  # points of the moving region that are tracked
HEART_RADIUS = 10  # pixels around a pixel in which change over time is averaged
HEART_SHARE = 0.5  # of the highest change: the heart is where there is more
SMALLEST_EXCURSION = 2.0  # pixels between the farthest points of a path that counts as moving
WALL = (0.15, 0.7)  # range of the heart wall's signal, relative to that of blood


def find_path(series: Tensor) -> Tensor:
    """The path of the point of the moving heart wall that can be followed best.

    Points of the moving region are followed through the heartbeat and back to the first frame. Of
    the points that move, look like heart wall and return to where they started, the one whose patch
    changes least is taken; if there are none, the one that comes nearest to that.
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
    """The mean change (Y, X) around each pixel: highest in the heart, most of which moves."""
    width = 2 * HEART_RADIUS + 1
    total = change[None, None]
    for _ in range(2):  # twice a box is a smooth hill
        total = F.avg_pool2d(total, width, stride=1, padding=HEART_RADIUS)
    return total[0, 0]


def track(series: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Follow points (N, 2) of frame 0 from frame to frame, by the smallest squared difference of
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
    position = points.to(torch.float32)
    visited, mismatch = [position], torch.zeros(len(points), device=series.device)
    for frame in range(n_frames):
        here = patches_at(series[frame], position[:, None])  # (N, 1, P)
        there = (position[:, None] + moves).clamp(low, high)  # (N, M, 2)
        cost = (patches_at(series[(frame + 1) % n_frames], there) - here).square().mean(dim=-1)
        least, best = cost.min(dim=1)
        position = there[torch.arange(len(there)), best] + subpixel(cost, best)
        position = position.clamp(low, high)
        mismatch += least / n_frames
        visited.append(position)
    gap = visited[-1] - visited[0]  # (N, 2)
    share = torch.arange(n_frames, device=series.device)[:, None] / n_frames
    return torch.stack(visited[:-1], dim=1) - gap[:, None] * share, mismatch, gap.norm(dim=-1)


def subpixel(cost: Tensor, best: Tensor) -> Tensor:
    """The position between pixels of the minimum of (N, M) costs, (N, 2): a parabola per axis."""
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
    """The values (T,) of the frames along a path, between pixels by linear interpolation."""
    return torch.stack(
        [_interpolate(image, point[None]) for image, point in zip(series, path, strict=True)]
    ).squeeze(1)


def patches_at(image: Tensor, centres: Tensor) -> Tensor:
    """Patches (N, M, P) of an image (Y, X) around centres (N, M, 2), linearly interpolated."""
    reach = torch.arange(-PATCH, PATCH + 1, device=image.device, dtype=torch.float32)
    offsets = torch.cartesian_prod(reach, reach)  # (P, 2)
    points = centres[:, :, None] + offsets  # (N, M, P, 2)
    return _interpolate(image, points.flatten(0, 2)).view(points.shape[:-1])


def _interpolate(image: Tensor, points: Tensor) -> Tensor:
    """Values (N,) of an image (Y, X) at points (N, 2)."""
    size = torch.tensor(image.shape, device=image.device)
    grid = (2 * points / (size - 1).clamp(min=1) - 1).flip(-1)[None, None]  # x before y
    return F.grid_sample(
        image[None, None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )[0, 0, 0]


def lesion(series: Tensor, path: Tensor, diameter: float, contrast: float) -> Tensor:
    """The change of a series by a lesion, (T, Y, X): `contrast` inside the disc, limited so that
    the sum stays in [0, 1]."""
    axes = [torch.arange(n, device=series.device) for n in series.shape[1:]]
    y, x = torch.meshgrid(*axes, indexing="ij")
    centre = path[:, :, None, None]  # (T, 2, 1, 1)
    distance = ((y - centre[:, 0]).square() + (x - centre[:, 1]).square()).sqrt()
    disc = torch.sigmoid((diameter / 2 - distance) / (EDGE / 2))
    return (series + contrast * disc).clamp(0, 1) - series


def kept_contrast(difference: Tensor, added: Tensor) -> Tensor:
    """The fraction of the lesion's contrast that a method keeps in every frame, (T,): 1 all, 0
    none. NaN if nothing could be added, such as a dark lesion to black. `difference` of the
    reconstructions and `added` to the series are (T, Y, X)."""
    size = added.square().sum(dim=(-2, -1))
    kept = (difference * added).sum(dim=(-2, -1)) / size.clamp(min=1e-12)
    return torch.where(size > 1e-6, kept, torch.nan)


def ghost_contrast(difference: Tensor, added: Tensor) -> Tensor:
    """The fraction of the lesion's contrast that appears where the lesion is half a heartbeat later
    and is not now, (T,): 0 none. NaN if the two places overlap."""
    later = added.roll(-(len(added) // 2), dims=0)
    elsewhere = torch.where(added.abs() < 0.05 * added.abs().max(), later, 0)
    size = elsewhere.square().sum(dim=(-2, -1))
    seen = size > 0.2 * later.square().sum(dim=(-2, -1))
    return torch.where(seen, (difference * elsewhere).sum(dim=(-2, -1)) / size, torch.nan)
