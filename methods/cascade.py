"""The unrolled network: a training-free start, then stages of a small network and data consistency.

    x = start; for every stage: x = project(x + stage(x))

A stage combines every frame with its neighbours (the first and the last frame are neighbours too)
and treats all frames alike: the number of frames and the image size are free, and a shift of the
input in time shifts the output. Data consistency is exact on a strip of columns, so training may
use strips (see `physics/consistency.py`).

The layers are fast on CPUs as well as on GPUs. Pixels are rearranged into channels, whose number is
a multiple of 16 by default. A part of the channels is shifted to the neighbouring frames, which
mixes time without arithmetic. Most layers work at reduced resolution.

References: J. Schlemper et al., "A deep cascade of convolutional neural networks for dynamic MR
image reconstruction", IEEE Trans Med Imaging 37:491-503, 2018; W. Shi et al. (sub-pixels), CVPR
2016.
"""

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.baselines import Measured, view_sharing, zero_filled
from methods.layers import BANDS, ShiftBlock, as_convolved, run_block, set_zero, temporal_views
from methods.start import PATCH
from methods.unrolled import Unrolled
from physics.fourier import join_complex, split_complex
from physics.noise import noise_level

USUAL_NOISE, LEAST_NOISE = 0.005, 0.0005  # of the peak; with less, lines are kept nearly exactly
SUBPIXEL = 2  # blocks of 2 x 2 pixels become channels
LEVELS = 3  # resolutions of a stage


class Stage(nn.Module):
    """Small residual U-Net in space and time: images (B, T, channels, Y, X) to a correction
    (B, T, parts, Y, X), and its last features.

    It has three resolutions, the highest that of sub-pixels, with 1, 2 and 4 times `features`
    channels. Its output starts at zero. The image continues cyclically along Y, as it does for the
    physics; exactly so if Y is a multiple of 8. All but the `first` stage add the features of the
    stage before to their own; these start at zero.
    """

    def __init__(self, channels: int, parts: int, features: int, first: bool):
        super().__init__()
        widths = [features * 2**level for level in range(LEVELS)]
        self.lift = nn.Conv2d(channels * SUBPIXEL**2, features, kernel_size=3, padding=(0, 1))
        self.encoder = nn.ModuleList(ShiftBlock(width, cyclic=True) for width in widths[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(width, 2 * width, kernel_size=2, stride=2) for width in widths[:-1]
        )
        self.bottom = nn.ModuleList(ShiftBlock(widths[-1], cyclic=True) for _ in range(2))
        self.up = nn.ModuleList(  # like a transposed convolution, but fast on CPUs too
            nn.Sequential(nn.Conv2d(2 * width, 4 * width, kernel_size=1), nn.PixelShuffle(2))
            for width in widths[:-1]
        )
        self.decoder = nn.ModuleList(ShiftBlock(width, cyclic=True) for width in widths[:-1])
        self.project = nn.Conv2d(features, parts * SUBPIXEL**2, kernel_size=1)
        set_zero(self.project)
        if not first:
            self.recall = nn.Conv2d(features, features, kernel_size=1)
            set_zero(self.recall)

    def forward(self, images: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`before`: the features that the stage before returned, (B T, features, Y/2, X/2)."""
        n_frames, _, ny, nx = images.shape[1:]
        x = self.padded(as_convolved(images.flatten(0, 1)))  # (B T, C, Y, X)
        x = F.pixel_unshuffle(x, SUBPIXEL).contiguous(memory_format=torch.channels_last)
        x = self.lift(x)
        if before is not None:
            x = x + self.recall(before)
        skips = []
        for block, down in zip(self.encoder, self.down, strict=True):
            x = block(x, n_frames)
            skips.append(x)
            x = down(x)
        for block in self.bottom:
            x = block(x, n_frames)
        for up, block in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = block(up(x) + skips.pop(), n_frames)
        correction = F.pixel_shuffle(self.project(x), SUBPIXEL)[..., :ny, :nx]  # (B T, C, Y, X)
        return correction.float().unflatten(0, (-1, n_frames)), x

    def padded(self, x: Tensor) -> Tensor:
        """Frames (B T, C, Y, X) of a size that all resolutions divide; cyclically along Y, with a
        row of sub-pixels more on either side for the first convolution."""
        ny, nx = x.shape[-2:]
        multiple = SUBPIXEL * 2 ** (LEVELS - 1)
        if ny < 2 * multiple:  # at least two rows at the lowest resolution
            x = x.repeat(1, 1, math.ceil(2 * multiple / ny), 1)
            ny = x.shape[-2]
        x = F.pad(x, (0, 0, SUBPIXEL, -ny % multiple + SUBPIXEL), mode="circular")
        return F.pad(x, (0, -nx % multiple))


class Memory(NamedTuple):
    """What a stage gets besides the images."""

    shared: Tensor  # (B, T, parts, Y, X): the view-shared images minus the start
    changed: Tensor  # (B, T, Y, X): by the last data consistency
    precision: Tensor | float  # of `Cascade.precision_of`
    features: Tensor | None = None  # of the stage before


class Cascade(Unrolled):
    """Unrolled network of `stages` stages; called like all networks (see `model.py`).

    A stage gets the images and, as further channels: the difference of the view-shared images to
    the start, the difference of the images to their temporal mean, and their projections
    onto the other bands of temporal frequency. The temporal mean covers all frames, so the
    difference to it shows all motion at once.

    A stage also gets the features of the stage before, and the change that the last data
    consistency made, with its steps (the first stage: the difference of the zero-filled images to
    the start).

    With `real_image` the images are real throughout, and the output is real and signed. Otherwise
    real and imaginary part are two channels of every frame, and the output is complex64.

    It takes one coil or any number of them: stages see the combined images, and the coils are in
    the data consistency alone (`physics/sense.py`).
    """

    OWN: ClassVar = {
        "start": PATCH,
        "strip": 32,
        "clip_gradient": 0.001,
        "ema": 0.999,
        "stage_loss": 0.1,
        "cuda_graph": True,  # a step is thousands of short kernels
    }

    def __init__(
        self,
        stages: int,
        features: int,
        real_image: bool,
        dc_weight: float | None,
        learn_dc_weight: bool,
        start: str,
    ):
        """`start`: a name in `STARTS`, but "zero_filled". `dc_weight`: v of
        `DataConsistency.enforce` at a noise of `USUAL_NOISE`, of images without the real-image
        prior; it falls with the square of the measured noise. None: infinite. `learn_dc_weight`:
        train v from that value, separately in each stage."""
        super().__init__(stages, real_image, start)
        views = 3 + len(BANDS)
        self.stages = nn.ModuleList(
            Stage(views * self.parts, self.parts, features, first=i == 0) for i in range(stages)
        )
        log_weight = None if dc_weight is None else torch.full((stages,), dc_weight).log()
        if learn_dc_weight and log_weight is not None:
            self.log_weight = nn.Parameter(log_weight)
        else:
            self.register_buffer("log_weight", log_weight)

    def prepared(self, measured: Measured, start: Tensor) -> Memory:
        shared = self.parts_of(view_sharing(measured) - start)
        changed = zero_filled(measured) - start
        return Memory(shared, changed, self.precision_of(measured))

    def stage(
        self, number: int, images: Tensor, measured: Measured, memory: Memory
    ) -> tuple[Tensor, Memory]:
        channels = self.views(images, memory.shared, memory.changed)
        correction, features = run_block(
            self.stages[number], channels, memory.features, recompute=self.gradient_checkpointing
        )
        parts = correction.unbind(dim=2)
        corrected = images + (parts[0] if self.real_image else join_complex(*parts))
        weight = None
        if self.log_weight is not None:
            weight = self.log_weight[number].exp() * memory.precision
        images = measured.enforce(corrected, weight)
        return images, memory._replace(changed=images - corrected, features=features)

    def precision_of(self, measured: Measured) -> Tensor | float:
        """How much more precise the measured lines are than in `USUAL_NOISE`, (B, 1, 1, 1)."""
        if self.log_weight is None or self.real_image:
            return 1.0
        noise = noise_level(measured).clamp(min=LEAST_NOISE)
        return (USUAL_NOISE / noise).square()[:, None, None, None]

    def views(self, images: Tensor, shared: Tensor, changed: Tensor) -> Tensor:
        """The input of a stage, (B, T, channels, Y, X)."""
        parts = self.parts_of(images)  # (B, T, parts, Y, X)
        return torch.cat((parts, shared, *temporal_views(parts), self.parts_of(changed)), dim=2)

    def parts_of(self, images: Tensor) -> Tensor:
        """Real images, or the two parts of complex ones, as channels: (B, T, parts, Y, X)."""
        parts = (images,) if self.real_image else split_complex(images)
        return torch.stack(parts, dim=2)
