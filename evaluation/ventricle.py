"""The area of the left ventricle's blood pool in each frame, without a trained segmentation.

A simple region measure for comparing reconstructions of one slice: does the motion survive? It is
not a clinical measurement. A reference series (the truth, where it is known) gives the place and
the signal of the pool: the bright, even disc that is dark all around and changes most. In each
frame, rays from the centre are then cut where the region inside has the most blood and the least
wall: signal above a threshold between both counts for the region, signal below it against. The
contour is closed and smooth, so that papillary muscles belong to the pool, as in the clinic. All
reconstructions are measured with the centres and the signals of the reference. Finding none is
better than a wrong one: a pool is refused if it is faint, leaks, or its area jumps.

Series are (T, Y, X) real magnitude images; the last frame is followed by the first. Lengths are in
pixels. Rays are (N, R, S): S samples on each of R rays from each of N centres.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.heart_view import HeartView

N_RAYS = 48
STEP = 0.5  # pixels between the samples of a ray
MARGIN = 0.2  # of the view on every side, where the centre is not searched
GRID = 2.0  # pixels between the centres that are tried
SMALLEST, LARGEST = 5.0, 1 / 3  # radius of the disc: pixels, and a fraction of the view
WALL = (1.0, 4.0)  # pixels outside the disc that are its wall
AROUND = 0.95  # share of the directions in which the wall must be darker than the disc
GROWTH = 1.3  # largest radius of the pool over that of the disc
CORE = 0.5  # of the disc's radius, where the signal of blood is taken
FULL = 0.6  # quantile over the frames of this signal
LOWEST_CONTRAST = 0.25  # of disc and wall, relative to the disc
LOWEST_MERIT = 0.05  # of the disc
THRESHOLD = 0.45  # between wall (0) and blood (1): flow darkens blood, and hardly changes the wall
LOWEST_FILL = 0.45  # of the mean region, where wall is -1 and blood 1
LARGEST_LEAK = 0.1  # share of the rays that meet no wall
LARGEST_JUMPS = 0.15  # rise of the area in excess of one filling, relative to the mean area


@dataclass(frozen=True)
class Pool:
    """Where the blood pool of a reference series is, and how bright."""

    centres: Tensor  # (T, 2) row and column
    blood: float  # signal
    wall: float  # signal
    reach: float  # largest radius


def find_pool(reference: Tensor, view: HeartView) -> Pool | None:
    """The blood pool of the left ventricle; None if there is no plausible one.

    `view`: of the reference, from `find_heart`.
    """
    if len(reference) < 2 or view.size < 4 * SMALLEST or not reference.isfinite().all():
        return None
    extremes = view.end_diastole, view.end_systole  # flow may have exchanged them
    disc = max((_find_disc(reference, view, frame) for frame in extremes), key=lambda d: d.merit)
    blood = _blood(reference, disc)
    if disc.merit < LOWEST_MERIT or blood - disc.wall < LOWEST_CONTRAST * blood:
        return None
    reach = GROWTH * disc.radius + WALL[0]
    n_frames, centre = len(reference), disc.centre
    centres = centre.repeat(n_frames, 1)
    for frame in [(disc.frame + i) % n_frames for i in range(n_frames)]:
        for _ in range(2):  # to the centre of the region that is found
            signal = _rays(reference[frame], centre[None], reach)
            centre = centre + _centroids(_contours(_likeness(signal, blood, disc.wall)))[0]
        centres[frame] = centre
    pool = Pool(centres, blood, disc.wall, reach)
    return pool if _is_plausible(reference, pool) else None


def areas(series: Tensor, pool: Pool) -> Tensor:
    """The area of the blood pool in each frame of a series, (T,), in pixels.

    `pool`: of the reference, which may be the series itself.
    """
    return contours(series, pool).square().sum(dim=1) * (math.pi / N_RAYS)


def contours(series: Tensor, pool: Pool) -> Tensor:
    """The radius of the blood pool in each frame and direction, (T, N_RAYS), from the centres of
    `pool`; the first direction is to the right, the next ones are further down."""
    return _contours(_likeness_of(series, pool))


def ejection_fraction(area: Tensor) -> float:
    """(largest - smallest) / largest area (T,) of one slice, 0 to 1: a fractional area change.

    It is not the ejection fraction of the ventricle, which is one of volumes. A single frame does
    not decide: each area is first replaced by the median of three neighbouring frames.
    """
    if len(area) >= 3:
        area = torch.stack([area.roll(1), area, area.roll(-1)]).median(dim=0).values
    largest = area.max().item()
    return (largest - area.min().item()) / largest if largest > 0 else math.nan


@dataclass(frozen=True)
class _Disc:
    """A bright disc in a frame."""

    frame: int
    centre: Tensor  # (2,)
    radius: float
    wall: float  # signal around it
    merit: float  # how much it looks like the pool at its largest


def _find_disc(series: Tensor, view: HeartView, frame: int) -> _Disc:
    """The disc in a frame that is brightest relative to its wall, most even, largest, and changes
    most."""
    steps = torch.arange(int(MARGIN * view.size), int((1 - MARGIN) * view.size), GRID)
    centres = torch.cartesian_prod(view.top + steps, view.left + steps)
    reach = LARGEST * view.size + WALL[1]
    signal = _rays(series[frame].clamp(max=view.window[1]), centres, reach)
    change = _rays(series.std(dim=0), centres, reach)
    rho = _radii(signal)

    def inside(values: Tensor) -> Tensor:
        """The mean over the discs of every radius, (N, S)."""
        return (values.mean(dim=1) * rho).cumsum(dim=-1) / rho.cumsum(dim=0)

    near, far = (round(width / STEP) for width in WALL)
    first, last = math.ceil(SMALLEST / STEP), len(rho) - far
    walls = [signal[:, :, i + near : i + far].mean(dim=-1) for i in range(first, last)]
    outside = torch.stack(walls).quantile(AROUND, dim=-1).T  # (N, radii)
    mean, square, moves = (
        inside(values)[:, first:last] for values in (signal, signal.square(), change)
    )
    spread = (square - mean.square()).clamp(min=0).sqrt()
    contrast = (mean - spread - outside) / mean.clamp(min=1e-6)
    merit = contrast * rho[first:last] * (moves / mean.clamp(min=1e-6)).sqrt()
    which, i = divmod(int(merit.argmax()), last - first)
    wall = walls[i][which].median().item()
    return _Disc(frame, centres[which], rho[first + i].item(), wall, merit[which, i].item())


def _blood(series: Tensor, disc: _Disc) -> float:
    """The signal in the core of a disc: its median in each frame, and of these a high quantile,
    because the pool can be small for half a heartbeat, but not the highest, which a jet has."""
    core = [_rays(image, disc.centre[None], CORE * disc.radius).median() for image in series]
    return torch.stack(core).quantile(FULL).item()


def _rays(image: Tensor, centres: Tensor, reach: float) -> Tensor:
    """The image (Y, X) along rays from centres (N, 2), as far as `reach`."""
    angles = torch.arange(N_RAYS) * (2 * math.pi / N_RAYS)
    rho = STEP * (torch.arange(math.ceil(reach / STEP)) + 0.5)
    directions = torch.stack([angles.sin(), angles.cos()], dim=-1)  # (R, 2)
    points = centres[:, None, None] + directions[:, None] * rho[:, None]  # (N, R, S, 2)
    size = torch.tensor(image.shape)
    grid = (2 * points / (size - 1).clamp(min=1) - 1).flip(-1)  # x before y
    values = F.grid_sample(
        image[None, None].float(),
        grid.flatten(1, 2)[None],  # (1, N, R S, 2)
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return values[0, 0].unflatten(1, (N_RAYS, len(rho)))


def _radii(rays: Tensor) -> Tensor:
    """The radius (S,) of each sample of rays."""
    return STEP * (torch.arange(rays.shape[-1]) + 0.5)


def _likeness(rays: Tensor, blood: float, wall: float) -> Tensor:
    """Rays on a scale on which wall and darker is -1, the threshold 0, and bright blood 1."""
    return ((rays - wall) / (blood - wall) / THRESHOLD - 1).clamp(-1, 1)


def _likeness_of(series: Tensor, pool: Pool) -> Tensor:
    """The likeness (T, R, S) along the rays of a pool."""
    rays = [_rays(image, pool.centres[t][None], pool.reach) for t, image in enumerate(series)]
    return _likeness(torch.cat(rays), pool.blood, pool.wall)


def _contours(likeness: Tensor) -> Tensor:
    """The radii (N, R) of the contours around the regions of the highest sum of likeness.

    Neighbouring rays differ by at most a step. Found by dynamic programming, twice around, of which
    the middle is taken: so the contour is closed.
    """
    n, n_samples = len(likeness), likeness.shape[-1]
    gain = (likeness * _radii(likeness)).cumsum(dim=-1)  # of a ray that is cut after each sample
    best = gain[:, 0]
    origins = []
    for ray in range(1, 2 * N_RAYS):
        padded = F.pad(best, (1, 1), value=-math.inf)
        highest, step = padded.unfold(1, 3, 1).max(dim=-1)  # of the ray before, (N, S)
        origins.append(step - 1)
        best = highest + gain[:, ray % N_RAYS]
    place = best.argmax(dim=-1, keepdim=True)  # (N, 1)
    path = [place]
    for origin in reversed(origins):
        place = (place + origin.gather(1, place)).clamp(0, n_samples - 1)
        path.append(place)
    half = N_RAYS // 2
    middle = torch.cat(path[::-1], dim=1)[:, half : half + N_RAYS].roll(half, dims=1)
    return STEP * (middle.view(n, N_RAYS) + 1)


def _centroids(radii: Tensor) -> Tensor:
    """Row and column of the centres of mass (N, 2) inside contours, from the origin of the rays."""
    angles = torch.arange(N_RAYS) * (2 * math.pi / N_RAYS)
    directions = torch.stack([angles.sin(), angles.cos()], dim=-1)
    return (radii**3 @ directions) / 3 / (radii.square().sum(dim=1, keepdim=True) / 2)


def _is_plausible(series: Tensor, pool: Pool) -> bool:
    """Whether the region is filled with blood and closed by wall, in the mean over frames, and its
    area grows and shrinks about once in a heartbeat."""
    likeness = _likeness_of(series, pool)
    radii, rho = _contours(likeness), _radii(likeness)
    inside = (rho < radii[..., None]) * rho
    fill = (likeness * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2))
    leak = (radii >= rho[-1]).float().mean()
    area = radii.square().sum(dim=1)
    rise = (area - area.roll(1)).clamp(min=0).sum()  # over a cycle, as much as it falls
    jumps = (rise - (area.max() - area.min())) / area.mean()
    return bool(fill.mean() >= LOWEST_FILL and leak <= LARGEST_LEAK and jumps <= LARGEST_JUMPS)
