"""The area of the left ventricle's blood pool in each frame, without a trained segmentation.

A simple region measure for comparing reconstructions of one slice: does the motion survive? It is
not a clinical measurement. A reference series (the truth, where it is known) gives the place and
the signal of the pool: the bright, even disc that is dark all around and changes most. In each
frame, rays from the centre are then cut where the region inside has the most blood and the least
wall: signal above the middle of both counts for the region, signal below it against. The contour
is closed and smooth, so that papillary muscles belong to the pool, as in the clinic. All
reconstructions are measured with the centres and the signals of the reference.

Series are (T, Y, X) real magnitude images; the last frame is followed by the first. Lengths are in
pixels.
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
SMALLEST, LARGEST = 5.0, 1 / 3  # radius of the disc: pixels, and a fraction of the view
WALL = (1.0, 4.0)  # pixels outside the disc that are its wall
AROUND = 0.95  # share of the directions in which the wall must be darker than the disc
GROWTH = 1.3  # largest radius of the pool over that of the disc
CORE = 0.5  # of the disc's radius, where the signal of blood is taken
FULL = 0.9  # quantile over the frames of this signal
LOWEST_CONTRAST = 0.25  # of disc and wall, relative to the disc
LOWEST_FILL = 0.5  # of the mean region, where wall is -1 and blood 1
LARGEST_LEAK = 0.1  # share of the rays that meet no wall


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
    if not reference.isfinite().all() or view.size < 4 * SMALLEST or len(reference) < 2:
        return None
    extremes = view.end_diastole, view.end_systole  # flow may have exchanged them
    disc = max((_find_disc(reference, view, frame) for frame in extremes), key=lambda d: d.merit)
    if disc.contrast < LOWEST_CONTRAST:
        return None
    blood = _blood(reference, disc)
    reach = GROWTH * disc.radius + WALL[0]
    n_frames, centre = len(reference), disc.centre
    centres = centre.repeat(n_frames, 1)
    for frame in [(disc.frame + i) % n_frames for i in range(n_frames)]:
        for _ in range(2):  # to the centre of the region that is found
            signal, rho = rays(reference[frame], centre[None], reach)
            radii = _contour(_likeness(signal[0], blood, disc.wall), rho)
            centre = centre + _centroid(radii)
        centres[frame] = centre
    pool = Pool(centres, blood, disc.wall, reach)
    return pool if _plausible(reference, pool) else None


def _blood(series: Tensor, disc: "_Disc") -> float:
    """The signal in the core of a disc: its median in each frame, and of these a high quantile,
    because the pool can be small for half a heartbeat, but not the highest, which a jet has."""
    core = [rays(image, disc.centre[None], CORE * disc.radius)[0].median() for image in series]
    return torch.stack(core).quantile(FULL).item()


def areas(series: Tensor, pool: Pool) -> Tensor:
    """The area of the blood pool in each frame of a series, (T,), in pixels.

    `pool`: of the reference, which may be the series itself.
    """
    return torch.stack([_area(radii) for radii, _ in _regions(series, pool)])


def ejection_fraction(area: Tensor) -> float:
    """(largest - smallest) / largest area (T,) of one slice, 0 to 1: a fractional area change.

    It is not the ejection fraction of the ventricle, which is one of volumes. A single frame does
    not decide: each area is first replaced by the median of three neighbouring frames.
    """
    if len(area) >= 3:
        area = torch.stack([area.roll(1), area, area.roll(-1)]).median(dim=0).values
    largest = area.max().item()
    return (largest - area.min().item()) / largest if largest > 0 else math.nan


def rays(image: Tensor, centres: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """The image (Y, X) along rays from centres (N, 2): (N, N_RAYS, S), and the S radii."""
    angles = torch.arange(N_RAYS) * (2 * math.pi / N_RAYS)
    rho = STEP * (torch.arange(math.ceil(reach / STEP)) + 0.5)
    directions = torch.stack([angles.sin(), angles.cos()], dim=-1)  # (N_RAYS, 2)
    points = centres[:, None, None] + directions[:, None] * rho[:, None]  # (N, N_RAYS, S, 2)
    size = torch.tensor(image.shape)
    grid = (2 * points / (size - 1).clamp(min=1) - 1).flip(-1)  # x before y
    values = F.grid_sample(
        image[None, None].float(),
        grid.flatten(1, 2)[None],  # (1, N, N_RAYS S, 2)
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return values[0, 0].unflatten(1, (N_RAYS, len(rho))), rho


@dataclass(frozen=True)
class _Disc:
    """A bright disc in a frame."""

    frame: int
    centre: Tensor  # (2,)
    radius: float
    wall: float  # signal around it
    contrast: float  # (disc - wall) / disc
    merit: float  # how much it looks like the pool at its largest


def _find_disc(series: Tensor, view: HeartView, frame: int) -> _Disc:
    """The disc in a frame that is brightest relative to its wall, most even, largest, and changes
    most."""
    image = series[frame].clamp(max=view.window[1])
    low, high = int(MARGIN * view.size), view.size - int(MARGIN * view.size)
    steps = torch.arange(low, high, 2.0)
    centres = torch.cartesian_prod(view.top + steps, view.left + steps)
    signal, rho = rays(image, centres, LARGEST * view.size + WALL[1])
    change, _ = rays(series.std(dim=0), centres, LARGEST * view.size + WALL[1])

    def inside(values: Tensor) -> Tensor:
        """The mean over the discs of every radius, (N, S)."""
        return (values.mean(dim=1) * rho).cumsum(dim=-1) / rho.cumsum(dim=0)

    mean = inside(signal)
    spread = (inside(signal.square()) - mean.square()).clamp(min=0).sqrt()
    near, far = (round(width / STEP) for width in WALL)
    first, last = math.ceil(SMALLEST / STEP), len(rho) - far
    outside = torch.stack(
        [
            signal[:, :, i + near : i + far].mean(dim=-1).quantile(AROUND, dim=1)
            for i in range(first, last)
        ],
        dim=1,
    )
    mean, spread, moves = (x[:, first:last] for x in (mean, spread, inside(change)))
    per_signal = 1 / mean.clamp(min=1e-6)
    merit = (mean - spread - outside) * per_signal * rho[first:last] * (moves * per_signal).sqrt()
    best = int(merit.argmax())
    which, i = divmod(best, last - first)
    wall = signal[which, :, first + i + near : first + i + far].median().item()
    contrast = (1 - wall * per_signal[which, i]).item()
    highest = merit[which, i].item()
    return _Disc(frame, centres[which], rho[first + i].item(), wall, contrast, highest)


def _likeness(signal: Tensor, blood: float, wall: float) -> Tensor:
    """Signal on a scale on which wall and darker is -1, blood and brighter 1."""
    return (2 * (signal - wall) / max(blood - wall, 1e-6) - 1).clamp(-1, 1)


def _contour(likeness: Tensor, rho: Tensor) -> Tensor:
    """The radii (N_RAYS,) of the closed contour around the region of the highest sum of likeness.

    Neighbouring rays differ by at most a step. Found by dynamic programming, with the first ray
    held at the radius that the ring had when it was run through once.
    """
    gain = (likeness * rho).cumsum(dim=-1)  # (N_RAYS, S) of a ray that is cut after each sample
    order = [i % N_RAYS for i in range(2 * N_RAYS)]  # twice around: the first round closes it
    best = gain[0]
    origins = []
    for ray in order[1:]:
        padded = F.pad(best, (1, 1), value=-math.inf)
        options = torch.stack([padded[:-2], padded[1:-1], padded[2:]])
        highest, which = options.max(dim=0)
        origins.append(which - 1)
        best = highest + gain[ray]
    place = int(best.argmax())
    path = [place]
    for origin in reversed(origins):
        place += int(origin[place])
        path.append(place)
    half = N_RAYS // 2  # the middle of the two rounds, away from both free ends
    middle = path[::-1][half : half + N_RAYS]
    return rho[middle].roll(half) + STEP / 2


def _centroid(radii: Tensor) -> Tensor:
    """Row and column of the region's centre of mass, from the origin of the rays."""
    angles = torch.arange(N_RAYS) * (2 * math.pi / N_RAYS)
    directions = torch.stack([angles.sin(), angles.cos()], dim=-1)
    moments = (radii[:, None] ** 3 * directions).sum(dim=0) / 3
    return moments / (radii.square().sum() / 2)


def _area(radii: Tensor) -> Tensor:
    """The area inside a contour."""
    return radii.square().sum() * (math.pi / N_RAYS)


def _regions(series: Tensor, pool: Pool) -> list[tuple[Tensor, Tensor]]:
    """The radii (N_RAYS,) of the region in each frame, and the likeness (N_RAYS, S) it is from."""
    found = []
    for frame, image in enumerate(series):
        signal, rho = rays(image, pool.centres[frame][None], pool.reach)
        likeness = _likeness(signal[0], pool.blood, pool.wall)
        found.append((_contour(likeness, rho), likeness))
    return found


def _plausible(series: Tensor, pool: Pool) -> bool:
    """Whether the region is filled with blood and closed by wall, over all frames."""
    fill, leak = [], []
    for radii, likeness in _regions(series, pool):
        rho = STEP * (torch.arange(likeness.shape[1]) + 0.5)
        inside = (rho < radii[:, None]) * rho
        fill.append((likeness * inside).sum() / inside.sum().clamp(min=1e-6))
        leak.append((radii >= rho[-1]).float().mean())
    filled = torch.stack(fill).mean().item() >= LOWEST_FILL
    return filled and torch.stack(leak).mean().item() <= LARGEST_LEAK
