"""A beating heart: the shape of a left ventricle at end-diastole, and the motion of the tissue.

The heart moves by a coordinate map that is smooth in time: the cavity shrinks, the wall thickens
(its area grows a little, because the long axis shortens too), and the surrounding tissue follows.

Conventions: positions are in mm from the centre of the field of view, x to the right (axis X), y
down (axis Y). `squeeze` is 0 at end-diastole and 1 at end-systole. A phase is a fraction of the RR
interval, from end-diastole on.
"""

import copy
import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

END_SYSTOLE, RELAXATION, END_FILLING = 0.36, 0.41, 0.58  # fractions of the RR interval
ATRIAL_KICK, END_DIASTOLE = 0.84, 0.97
EARLY_FILLING = 0.8  # share of the stroke that returns before the atrial kick


def contraction(phase: np.ndarray) -> np.ndarray:
    """Squeeze at a phase in [0, 1] of RR: systole, early filling, diastasis, atrial kick."""

    def rise(start: float, end: float) -> np.ndarray:
        t = np.clip((phase - start) / (end - start), 0, 1)
        return t * t * (3 - 2 * t)

    early = EARLY_FILLING * rise(RELAXATION, END_FILLING)
    late = (1 - EARLY_FILLING) * rise(ATRIAL_KICK, END_DIASTOLE)
    return rise(0, END_SYSTOLE) - early - late


class Heart:
    """Shape at end-diastole and motion of one patient's heart; lengths in mm, angles in radians."""

    def __init__(self, rng: np.random.Generator):
        self.centre = rng.normal(0, 14, 2).tolist()  # (x, y) of the left ventricle
        self.septum = rng.normal(-0.9, 0.35)  # direction from the left to the right ventricle
        self.roundness = rng.uniform(0.92, 1.08)  # stretches the left ventricle along one axis
        self.endocardium = rng.uniform(15, 33)  # inner radius
        self.wall = rng.uniform(6, 15)  # thickness
        self.shortening = rng.uniform(0.16, 0.44)  # of the inner radius, a fraction
        self.thickening = rng.uniform(0, 0.3)  # of the wall's area: the long axis shortens too
        self.reach = rng.uniform(10, 22)  # over which the motion fades outside the heart
        self.right_stroke = rng.uniform(4, 11)  # of the right ventricle's free wall
        self.twist = rng.normal(0, 0.08)
        self.shift = rng.normal(0, 1.5, 2).tolist()  # of the whole heart, along (u, v)

    def nearby(self, rng: np.random.Generator) -> "Heart":
        """The same heart in a slice a few mm away."""
        other = copy.copy(self)
        other.endocardium *= rng.uniform(0.85, 1.05)
        other.wall *= rng.uniform(0.9, 1.1)
        return other

    def radii(self, squeeze: float) -> tuple[float, float]:
        """Inner and outer radius of the left ventricle's wall."""
        inner = self.endocardium * (1 - self.shortening * squeeze)
        wall_area = (self.endocardium + self.wall) ** 2 - self.endocardium**2  # over pi
        return inner, math.sqrt(inner**2 + wall_area * (1 + self.thickening * squeeze))

    def local(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Heart coordinates, in which the left ventricle is round; u points to the right one."""
        u, v = rotate(x - self.centre[0], y - self.centre[1], -self.septum)
        return u * self.roundness, v / self.roundness

    def surroundings(self, x: Tensor, y: Tensor) -> Tensor:
        """1 in the heart, falling to 0 within about the width of its left ventricle."""
        u, v = self.local(x, y)
        outer = self.radii(0)[1]
        return 1 / (1 + (torch.hypot(u - outer / 2, v) / (2 * outer)) ** 6)

    def origins(
        self, x: Tensor, y: Tensor, squeezes: Iterable[float]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each squeeze, the end-diastolic position of the tissue that is now at (x, y)."""
        u, v = self.local(x, y)
        outer = self.radii(0)[1]
        fade = self._fade(torch.hypot(u, v), outer)
        right = torch.exp(-(((u - 1.5 * outer) / 20).square() + (v / 32).square())) * (1 - fade)
        along = self.right_stroke * right - self.shift[0] * fade
        across = -self.shift[1] * fade
        for squeeze in squeezes:
            yield self._released(u + squeeze * along, v + squeeze * across, squeeze)

    def _released(self, u: Tensor, v: Tensor, squeeze: float) -> tuple[Tensor, Tensor]:
        """End-diastolic position (x, y) of the tissue at heart coordinates (u, v).

        Areas (squared radii) are mapped: the cavity is scaled, a point of the wall keeps its share
        of the wall's area, and the displacement fades outside.
        """
        (inner_0, outer_0), (inner, outer) = self.radii(0), self.radii(squeeze)
        area = (u.square() + v.square()).clamp(min=1e-6)
        r = area.sqrt()
        share = ((area - inner**2) / (outer**2 - inner**2)).clamp(0, 1)
        within = (inner_0**2 + share * (outer_0**2 - inner_0**2)) * (area / inner**2).clamp(max=1)
        fade = self._fade(r, outer)
        beyond = area + (outer_0**2 - outer**2) * fade
        stretch = torch.where(r < outer, within, beyond).sqrt() / r
        u, v = rotate(stretch * u, stretch * v, squeeze * self.twist * fade)
        x, y = rotate(u / self.roundness, v * self.roundness, self.septum)
        return x + self.centre[0], y + self.centre[1]

    def _fade(self, r: Tensor, radius: float) -> Tensor:
        return 1 / (1 + ((r - radius).clamp(min=0) / self.reach).square()).square()


def rotate(x: Tensor, y: Tensor, angle: float | Tensor) -> tuple[Tensor, Tensor]:
    """(x, y) rotated by `angle`, in radians, from x towards y."""
    angle = torch.as_tensor(angle, dtype=torch.float32)
    c, s = torch.cos(angle), torch.sin(angle)
    return c * x - s * y, s * x + c * y
