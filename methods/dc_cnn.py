"""`dc_cnn`: a cascade of convolutional networks, each followed by data consistency (D5-C5).

    x = enforce(x + CNN(x and its data-shared versions))

Every cascade has five layers of 3 x 3 x 3 convolutions over (T, Y, X) with weights of its own. Its
input is the current images and, as further channels, the same with lines shared between frames: a
line that the frame did not measure is the mean over the frames at a distance of up to n that did,
for n from 1 to 5; where none of them did, it stays. Frames wrap around in time, as those of a
heartbeat do. Data consistency is exact for one coil; for several it is a gradient step (see
`physics/sense.py`).

Without data sharing a cascade has 338,946 parameters, the paper's D5 with 3-D convolutions; ten
channels more make it 356,226.

Reference: J. Schlemper et al., "A deep cascade of convolutional neural networks for dynamic MR
image reconstruction", IEEE Trans Med Imaging 37:491-503, 2018.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.baselines import Measured
from methods.layers import run_block
from methods.unrolled import Unrolled, convolutions

LAYERS = 5
FARTHEST = 5  # frames between which lines are shared

Shared = list[tuple[Tensor, Tensor]]  # lines, and whether they are known


class DCCNN(Unrolled):
    """Cascades of convolutions and data consistency, with data sharing."""

    OWN: ClassVar = {"stages": 5, "features": 64, "strip": 32}

    def __init__(self, stages: int, features: int, real_image: bool, start: str):
        super().__init__(stages, real_image, start)
        views = 1 + FARTHEST
        self.cascades = nn.ModuleList(
            convolutions(views * self.parts, features, self.parts, LAYERS) for _ in range(stages)
        )

    def prepared(self, measured: Measured, start: Tensor) -> Shared:
        return shared_lines(measured, FARTHEST)

    def stage(
        self, number: int, images: Tensor, measured: Measured, memory: Shared
    ) -> tuple[Tensor, Shared]:
        lines = measured.transform(images)
        views = [measured.inverse(torch.where(known, shared, lines)) for shared, known in memory]
        channels = self.as_channels(images, *views)
        correction = run_block(
            self.cascades[number], channels, recompute=self.gradient_checkpointing
        )
        return measured.enforce(images + self.as_images(correction)), memory


def shared_lines(measured: Measured, farthest: int) -> Shared:
    """The lines of each frame with those of its neighbours, for each distance from 1 on.

    A line that the frame measured is its own; another is the mean over the frames at that distance
    or nearer that measured it. Of a short series each frame counts once.

    Returns:
        the lines, as `measured.lines`, and where they are known, as `measured.known`, in pairs.
    """
    lines, known = measured.lines, measured.known
    total, count = lines, known.float()
    n_frames, seen, shared = lines.shape[1], {0}, []
    for distance in range(1, farthest + 1):
        for shift in sorted({distance % n_frames, -distance % n_frames} - seen):
            seen.add(shift)
            total = total + lines.roll(shift, dims=1)
            count = count + known.float().roll(shift, dims=1)
        shared.append((torch.where(known, lines, total / count.clamp(min=1)), count > 0))
    return shared
