"""A patient: the anatomy of the chest around a heart, painted in mm.

Tissues are smooth-edged shapes with random textures, painted over one another from the skin inwards
on a grid finer than the final image. The picture shows end-diastole. What varies over the heartbeat
without moving in the plane is collected in separate layers: flow-related signal, and what a slice
nearby has in place of this one.

Conventions: positions are in mm from the centre of the field of view, x to the right (axis X), y
down (axis Y). In coordinates centred on the heart, y points to the patient's back. A `depth` is the
distance in mm to the edge of a shape, positive inside. Signals are relative to blood.

References: anatomy and signals are textbook ones of short-axis balanced steady-state free
precession. Cubic interpolation: R. Keys, "Cubic convolution interpolation for digital image
processing", IEEE Trans Acoust Speech Signal Process 29:1153-1160, 1981.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phantom.heart import Heart, rotate

Pair = Sequence[float] | np.ndarray  # of an x and a y

FIELD_OF_VIEW = 245.0, 390.0  # mm along the longer side of the image, from patient to patient
TIGHT = 0.15  # share of patients whose images are cut around the heart, to this part of the field:
TIGHT_PART = 0.5, 0.8
EDGE = 0.5  # mm, softness of the edge between two tissues
RIM = 1.1  # mm, half-width of the dark line where fat and water cancel within a voxel
SIGNAL = {  # of steady-state free precession, relative to blood; air: the level of ghosts
    "spinal fluid": 1.2,
    "blood": 1.0,
    "fat": 0.95,
    "kidney": 0.6,
    "spinal cord": 0.5,
    "marrow": 0.45,
    "spleen": 0.42,
    "myocardium": 0.37,
    "liver": 0.36,
    "muscle": 0.28,
    "lung": 0.09,
    "air": 0.022,
}
CONTRAST_SPREAD = 0.18  # relative spread of each signal over the patients, and of the two darkest:
DARK_SPREAD = 0.5
ROUGHNESS = 0.35  # relative spread of the strength of all textures, and half of it of their scale


class Canvas:
    """The picture of one patient while it is painted, (Y, X) of the finer grid."""

    def __init__(self, rng: np.random.Generator, ny: int, nx: int):
        self.rng = rng
        part = rng.uniform(*TIGHT_PART) if rng.random() < TIGHT else 1.0
        self.pixel = part * rng.uniform(*FIELD_OF_VIEW) / max(ny, nx)  # mm
        self.image = torch.zeros(ny, nx)
        self.x, self.y = self.positions()
        self.signal = {
            tissue: value
            * rng.lognormal(0, DARK_SPREAD if tissue in ("lung", "air") else CONTRAST_SPREAD)
            for tissue, value in SIGNAL.items()
        }
        self.flow: list[Tensor] = []  # layers of flow-related signal, (Y, X) each
        self.nearby = torch.zeros_like(self.image)  # what a slice nearby has, minus the picture

        rough, size = rng.lognormal(0, ROUGHNESS), rng.lognormal(0, ROUGHNESS / 2)
        # three textures that all tissues share
        self.grain = rough * (0.6 * self.field(3 * size) + self.field(8 * size))
        self.cloud = rough * self.field(30 * size)
        self.strands = _ridge(self.field(14 * size))
        self.image += self.signal["air"] * (1 + 0.3 * self.cloud)

    def positions(self, coarser: int = 1) -> tuple[Tensor, Tensor]:
        """(x, y) in mm of a grid over the whole canvas, with n // `coarser` points per axis."""
        y, x = (
            torch.linspace(-0.5, 0.5, n // coarser) * (n - 1) * self.pixel for n in self.image.shape
        )
        return x.expand(len(y), -1), y[:, None].expand(-1, len(x))

    def field(self, scale: float) -> Tensor:
        """Random texture of mean 0, standard deviation about 1, and details of `scale` mm."""
        y, x = (_cubic_weights(n, self.pixel / scale) for n in self.image.shape)
        knots = self.rng.standard_normal((y.shape[1], x.shape[1]), dtype=np.float32)
        return 1.25 * (y @ torch.from_numpy(knots) @ x.T)  # averaging lowers the spread by a fifth

    def paint(self, depth: Tensor, signal: Tensor | float, rim: float = 0.0) -> None:
        """Paint `signal` inside the shape; darken its edge by the fraction `rim`."""
        self.image += torch.sigmoid(depth / EDGE) * (signal - self.image)
        if rim:
            self.image *= 1 - rim / (1 + (depth / RIM).square().square())

    def sample(self, image: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """`image` at the positions (x, y), which may be given on a coarser grid of `positions`."""
        grid = torch.stack([x / self.x[0, -1], y / self.y[-1, 0]])[None]  # (1, 2, y, x)
        grid = F.interpolate(grid, image.shape, mode="bilinear", align_corners=True)
        grid = grid.permute(0, 2, 3, 1)  # (1, Y, X, 2)
        return F.grid_sample(
            image[None, None], grid, mode="bicubic", padding_mode="border", align_corners=True
        )[0, 0]


def paint_anatomy(canvas: Canvas, heart: Heart) -> Tensor:
    """Paint all tissues, from the skin inwards. Returns the depth in the part of the rib cage that
    is free to move."""
    turn = canvas.rng.normal(0, 0.3) - (1.3 if canvas.rng.random() < 0.15 else 0)
    x, y = rotate(canvas.x - heart.centre[0], canvas.y - heart.centre[1], turn)
    x, y = x + 5 * canvas.field(70), y + 5 * canvas.field(70)
    cage = _paint_chest(canvas, x, y)
    x, y = x + 1.5 * canvas.field(20), y + 1.5 * canvas.field(20)
    organs = _paint_abdomen(canvas, x, y, cage)
    spine = _paint_spine(canvas, heart, x, y, cage)
    sac = _paint_hearts(canvas, heart, cage)
    free = torch.minimum(cage, -spine)
    _paint_lung_vessels(canvas, heart, torch.minimum(free, -torch.maximum(organs, sac)))
    return free


def _paint_chest(canvas: Canvas, x: Tensor, y: Tensor) -> Tensor:
    """Paint arm, skin, muscle, ribs and lung around the heart at (0, 0). Returns the depth in the
    rib cage."""
    rng, signal = canvas.rng, canvas.signal
    top, bottom = rng.uniform(75, 110), rng.uniform(150, 195)
    left, right = rng.uniform(125, 195), rng.uniform(190, 260)
    if rng.random() < 0.35:
        at = -left - rng.uniform(0, 20), rng.uniform(20, 110)
        arm = _ellipse(x, y, at, rng.uniform(30, 50, 2))
        canvas.paint(arm, signal["fat"], rim=0.3)
        canvas.paint(arm - rng.uniform(5, 12), signal["muscle"] * (1 + 0.15 * canvas.grain), 0.6)

    middle = (right - left) / 2, (bottom - top) / 2
    half = (right + left) / 2, (bottom + top) / 2
    skin = _ellipse(x, y, middle, half, power=rng.uniform(2.2, 3.2))
    fat = 1 + 0.04 * canvas.grain + 0.08 * canvas.cloud - 0.15 * canvas.strands
    canvas.paint(skin, signal["fat"] * fat, rim=0.3)
    muscle = skin - (rng.uniform(4, 22) + 6 * canvas.field(90)).clamp(min=2)
    canvas.paint(muscle, signal["muscle"] * (1 + 0.15 * canvas.grain), rim=0.6)
    cage = muscle - (rng.uniform(8, 18) + 4 * canvas.field(60)).clamp(min=4)
    ribs = torch.minimum(5 - (cage + 4).abs(), 7 * (canvas.field(13) - 0.2))
    canvas.paint(ribs, signal["fat"] * rng.uniform(0.3, 0.8), rim=0.7)
    canvas.paint(cage, signal["lung"] * (1 + 0.2 * canvas.grain + 0.3 * canvas.cloud), rim=0.4)
    return cage


def _paint_abdomen(canvas: Canvas, x: Tensor, y: Tensor, cage: Tensor) -> Tensor:
    """Paint visceral fat, liver, spleen, kidney and other organs. Returns the depth in fat, liver
    and spleen."""
    rng, signal, grain = canvas.rng, canvas.signal, canvas.grain
    edge = rng.uniform(-20, 40)  # of the fat, below the heart
    at, axes = rng.uniform((edge + 120, 60), (edge + 120, 90)), rng.uniform((120, 70), (120, 100))
    belly = torch.minimum(cage, _ellipse(x, y, at, axes))
    fat = 1 + 0.1 * grain + 0.2 * canvas.cloud - 0.4 * canvas.strands
    canvas.paint(belly, signal["fat"] * rng.uniform(0.4, 0.9) * fat, rim=0.6)

    at, axes = rng.uniform((105, -50), (140, -10)), rng.uniform((80, 45), (110, 65))
    liver = torch.minimum(cage, _ellipse(x, y, at, axes, tilt=-0.3))
    veins = _ridge(canvas.field(22)) * torch.sigmoid(4 * canvas.cloud)
    canvas.paint(liver, signal["liver"] * (1 + 0.06 * grain + 0.7 * veins), rim=0.7)

    for _ in range(rng.integers(5, 10)):  # stomach, bowel and vessels, in any order
        at, axes = rng.uniform((edge + 10, 35), (edge + 150, 140)), rng.uniform(9, 38, 2)
        organ = torch.minimum(cage, _ellipse(x, y, at, axes, tilt=rng.uniform(0, math.pi)))
        shell, core = rng.uniform(0.15, 0.7, 2)
        canvas.paint(organ, shell * (1 + rng.uniform(0, 0.25) * grain), rim=0.7)
        canvas.paint(organ - rng.uniform(4, 40), core * (1 + 0.1 * grain), rim=0.3)

    at, axes = rng.uniform((edge, 85), (edge + 40, 115)), rng.uniform((35, 16), (55, 24))
    spleen = torch.minimum(cage - 2, _ellipse(x, y, at, axes, tilt=rng.uniform(-0.4, 0.4)))
    canvas.paint(spleen, signal["spleen"] * (1 + 0.06 * grain), rim=0.7)
    _paint_kidney(canvas, x, y, rng.uniform((edge + 80, 70), (edge + 110, 110)), cage)
    return torch.maximum(torch.maximum(belly, liver), spleen)


def _paint_kidney(canvas: Canvas, x: Tensor, y: Tensor, at: Pair, cage: Tensor) -> None:
    """Paint a bean of cortex with a ring of darker pyramids, and the fat of the renal pelvis."""
    rng, signal = canvas.rng, canvas.signal
    x, y = rotate(x - at[0], y - at[1], rng.uniform(0, 2 * math.pi))
    bean = _ellipse(x, y, (0, 0), rng.uniform((16, 26), (20, 32)))
    pelvis = _ellipse(x, y, (-10, 0), (10, 14))
    bean = torch.minimum(torch.minimum(bean, cage - 3), -_ellipse(x, y, (-22, 0), (8, 9)))
    pyramids = torch.minimum(bean - 5, 5 * torch.cos(9 * torch.atan2(y, x + 8)) + 1)
    canvas.paint(bean, signal["kidney"] * (1 + 0.05 * canvas.grain), rim=0.7)
    canvas.paint(torch.minimum(pyramids, -pelvis), 0.6 * signal["kidney"])
    canvas.paint(torch.minimum(bean + 1, pelvis), signal["fat"] * rng.uniform(0.6, 0.9), rim=0.3)


def _paint_spine(canvas: Canvas, heart: Heart, x: Tensor, y: Tensor, cage: Tensor) -> Tensor:
    """Paint the aorta behind the heart at (0, 0), and the spine. Returns the depth in the spine and
    the muscle around it."""
    rng, signal, grain = canvas.rng, canvas.signal, canvas.grain
    radius, (half_width, half_depth) = rng.uniform(8, 12), rng.uniform((17.5, 14), (22.5, 16))
    at = rng.uniform(0, 60), heart.radii(0)[1] + radius + rng.uniform(4, 16)
    aorta = _ellipse(x, y, at, (radius, radius))

    # Coordinates of the vertebra: across, and towards the back. The aorta is at its left front.
    angle, apart = rng.uniform(0.5, 1.1), radius + half_depth + rng.uniform(2, 5)
    x, y = x - at[0] - 1.15 * apart * math.cos(angle), y - at[1] - apart * math.sin(angle)
    x, y = rotate(x, y, rng.normal(0, 0.15))
    width, depth = rng.uniform((7.5, 6.5), (9, 8))  # half of the canal's
    back = half_depth + depth + 1
    body = _ellipse(x, y, (0, 0), (half_width, half_depth), power=2.5)
    canal = _ellipse(x, y, (0, back), (width, depth))
    spinous = _ellipse(x, y, (0, back + 24), (4, 18))
    transverse = _ellipse(x, y + 0.25 * x.abs(), (0, back + 3), (32, 4.5))
    bone = torch.stack([body, canal + rng.uniform(5, 7), spinous, transverse]).amax(0)
    muscle = _ellipse(x, y, (0, back + 18), (rng.uniform(40, 55), 27), power=2.5)
    bone, muscle = torch.minimum(bone, cage + 14), torch.minimum(muscle, cage + 16)  # not the skin

    fat = rng.uniform(0.4, 0.9) * (1 + 0.1 * grain)
    canvas.paint(torch.maximum(aorta, body) + rng.uniform(2, 5), signal["fat"] * fat, rim=0.6)
    canvas.paint(muscle, signal["muscle"] * (1 + 0.15 * grain - 0.5 * canvas.strands), rim=0.6)
    canvas.paint(bone, signal["marrow"] * (1 + 0.12 * grain), rim=0.9)
    canvas.paint(canal, signal["spinal fluid"], rim=0.5)
    canvas.paint(_ellipse(x, y, (0, back), (5.5, 4)), signal["spinal cord"])
    canvas.paint(aorta, signal["blood"] * rng.uniform(0.5, 1), rim=0.6)
    canvas.flow.append(0.15 * torch.sigmoid(aorta + 1))
    return torch.maximum(bone, muscle)


def _paint_hearts(canvas: Canvas, heart: Heart, cage: Tensor) -> Tensor:
    """Paint the heart in a slice nearby, with the same shape but its own textures, and in this one.
    Returns the depth in the pericardial sac."""
    around, shape_seed = canvas.image.clone(), canvas.rng.integers(2**32)
    other = heart.nearby(canvas.rng)
    _paint_heart(canvas, other, cage, np.random.default_rng(shape_seed))
    nearby, canvas.image = canvas.image, around
    pools = _paint_heart(canvas, heart, cage, np.random.default_rng(shape_seed))
    canvas.nearby = nearby - canvas.image
    _add_flow(canvas, pools)
    return pools.sac


class _Pools(NamedTuple):
    """Depths in mm, (Y, X), in parts of the heart."""

    sac: Tensor  # the pericardial one
    left: Tensor  # cavity of the left ventricle
    right: Tensor  # and of the right one


def _paint_heart(canvas: Canvas, heart: Heart, cage: Tensor, rng: np.random.Generator) -> _Pools:
    """Paint pericardial fat, both ventricles and papillary muscles, whose shapes `rng` draws."""
    signal, grain = canvas.signal, canvas.grain
    u, v = heart.local(canvas.x, canvas.y)
    u, v = u + canvas.field(18), v + canvas.field(18)
    r = torch.hypot(u, v)
    inner, outer = heart.radii(0)
    cavity = inner - r  # depth in the left ventricle
    left = outer - r
    at = outer - rng.uniform(0, 6), rng.normal(0, 5)
    axes = rng.uniform(24, 34), rng.uniform(0.9, 1.2) * outer
    right = torch.minimum(cage - 5, _ellipse(u, v, at, axes, power=2.3))
    sac = torch.maximum(left, right) + 3 + 4 * canvas.cloud
    trabeculae = 0.4 * canvas.field(2.5) + canvas.field(4.5) + 0.7 * canvas.field(9)
    muscle = signal["myocardium"] * (1 + 0.1 * grain)
    blood = signal["blood"] * (1 + 0.05 * grain + 0.05 * canvas.cloud)

    fat = rng.uniform(0.3, 0.9) * (1 + 0.1 * grain - 0.4 * canvas.strands)
    canvas.paint(sac, signal["fat"] * fat, rim=0.6)
    canvas.paint(right + rng.uniform(2, 4), muscle, rim=0.6)
    canvas.paint(right + 1.2 * trabeculae, blood * rng.uniform(0.75, 1))
    canvas.paint(left, muscle, rim=0.5)
    canvas.paint(cavity + rng.uniform(0.3, 1.6) * trabeculae, blood)
    for side in (-1, 1):
        angle, distance = math.pi + side * rng.uniform(0.7, 1.1), rng.uniform(0.6, 0.8) * inner
        at = distance * math.cos(angle), distance * math.sin(angle)
        canvas.paint(_ellipse(u, v, at, rng.uniform(2.5, 6, 2), angle) + trabeculae, muscle)

    return _Pools(sac, cavity, torch.minimum(right, -left))


def _add_flow(canvas: Canvas, pools: _Pools) -> None:
    """Layers of signal that varies with the flow of blood, and with muscle that moves through the
    slice."""
    strength = canvas.rng.lognormal(-1.6, 0.8)
    for pool in (pools.left, pools.right):
        for scale in (12, 20):
            eddies = 0.5 + canvas.field(scale)
            canvas.flow.append(strength * torch.sigmoid(pool / 2) * eddies)
    for scale in canvas.rng.uniform(4, 10, 3):
        canvas.flow.append(0.2 * strength * torch.sigmoid(pools.sac / 2) * canvas.field(scale))
    lining = 1 / (1 + ((pools.left - 2) / 4).square().square())
    canvas.flow.append(0.3 * canvas.field(6) * lining)


def _paint_lung_vessels(canvas: Canvas, heart: Heart, lung: Tensor) -> None:
    """Paint specks of blood in the lung near the heart."""
    u, v = heart.local(canvas.x, canvas.y)
    near = 1 / (1 + (torch.hypot(u, v) / canvas.rng.uniform(55, 80)) ** 6)
    room = torch.sigmoid(lung / 3) * near
    for _ in range(2):
        specks = torch.sigmoid((canvas.field(5.5) - 2.1) * 5) * room
        canvas.image += 0.8 * specks
        canvas.flow.append(0.6 * specks)


# Geometry.


def _ellipse(
    x: Tensor, y: Tensor, centre: Pair, axes: Pair, tilt: float = 0.0, power: float = 2.0
) -> Tensor:
    """Depth in a (super)ellipse; exact along its shorter axis, approximate elsewhere."""
    x, y = rotate(x - centre[0], y - centre[1], -tilt)
    radius = ((x / axes[0]).abs() ** power + (y / axes[1]).abs() ** power) ** (1 / power)
    return (1 - radius) * float(min(axes))


def _ridge(field: Tensor) -> Tensor:
    """Thin bright lines where a field crosses zero, in [0, 1]."""
    return 1 / (1 + (field / 0.1).square())


def _cubic_weights(n: int, step: float) -> Tensor:
    """(n, knots) weights of cubic interpolation, from knots 1 apart to n points `step` apart."""
    points = 1 + step * torch.arange(n)  # so that each has two knots on either side
    t = (points[:, None] - torch.arange(math.ceil(step * (n - 1)) + 3)).abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t < 1, near, torch.where(t < 2, far, 0.0))
