"""`varnet`: gradient steps with a learnt length, and a U-Net as regulariser of each.

    x = x + step * A^H (y - A x) - scale * UNet(x / scale)

Every cascade has its own step and its own U-Net, and both terms are of the same x, as in the
end-to-end variational network. It is in the image and not in k-space, which is the same for maps of
norm 1, and takes the maps that all methods get instead of a network of its own for them. U-Nets are
of series, as in CineVN: 3 x 3 convolutions of frames, each followed by one over three frames, which
wrap around. Pooling is in space only, and by the maximum; instance norm and leaky ReLU are those of
Sriram et al. `scale` is the deviation of each part of x, over the sample; the mean is left in. For
one coil A^H (y - A x) is the change to the measured lines; at a step of 1 they are kept before the
U-Net's part.

Twelve U-Nets of 18 features and four poolings have 29.5 million parameters in Sriram et al., with
the network for the maps 30 million; the convolutions over frames make them 39.4 million here.

References:
  K. Hammernik et al., "Learning a variational network for reconstruction of accelerated MRI data",
    Magn Reson Med 79:3055-3071, 2018.
  A. Sriram et al., "End-to-end variational networks for accelerated MRI reconstruction", MICCAI
    2020.
  M. Vornehm et al., "CineVN: variational network reconstruction for rapid functional cardiac cine
    MRI", Magn Reson Med 93:138-150, 2025.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.baselines import Measured
from methods.layers import set_zero
from methods.unet import UNet
from methods.unrolled import Unrolled

SLOPE = 0.2  # of leaky ReLU
LEAST_SCALE = 1e-3  # of the peak


class OverFrames(nn.Conv3d):
    """A convolution over the frames of (B, C, T, Y, X), which wrap around; computed in two
    dimensions, where it is several times as fast on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        wrapped = torch.cat((x[:, :, -1:], x, x[:, :, :1]), dim=2)  # (B, C, T + 2, Y, X)
        y = F.conv2d(wrapped.flatten(3), self.weight.squeeze(-1))  # (B, C, T, Y X)
        return y.unflatten(3, x.shape[3:])


class SeriesBlock(nn.Sequential):
    """Twice: a convolution of frames, one over frames, instance norm and leaky ReLU; in place of a
    `ConvBlock`."""

    def __init__(
        self, in_channels: int, out_channels: int, dropout: float, batch_norm: bool, dims: int
    ):
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv3d(channels, out_channels, (1, 3, 3), padding=(0, 1, 1), bias=False),
                OverFrames(out_channels, out_channels, (3, 1, 1), bias=False),
                nn.InstanceNorm3d(out_channels),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
        super().__init__(*layers)


class VarNet(Unrolled):
    """Gradient steps and U-Nets."""

    OWN: ClassVar = {"stages": 12, "features": 18}
    WEIGHS_LINES: ClassVar = True

    def __init__(self, stages: int, features: int, real_image: bool, start: str):
        super().__init__(stages, real_image, start)
        self.unets = nn.ModuleList(
            UNet(self.parts, self.parts, features, 0.0, False, dims=3, block=SeriesBlock)
            for _ in range(stages)
        )
        for unet in self.unets:
            set_zero(unet.head)  # type: ignore[arg-type]
        self.step = nn.Parameter(torch.ones(stages))

    def stage(
        self, number: int, images: Tensor, measured: Measured, memory: None
    ) -> tuple[Tensor, None]:
        towards = measured.enforce(images) - images
        channels = self.as_channels(images)  # (B, parts, T, Y, X)
        scale = channels.float().std(dim=(2, 3, 4), correction=0, keepdim=True)
        scale = scale.clamp(min=LEAST_SCALE)
        correction = self.unets[number](channels / scale.to(channels)).float() * scale
        return images + self.step[number] * towards - self.as_images(correction), None
