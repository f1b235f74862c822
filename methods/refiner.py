"""The residual refiner, and the network `unet_resnet`: `unet` followed by the refiner.

References:
  K. He et al., "Deep residual learning for image recognition", CVPR 2016.
  D. Tran et al., "A closer look at spatiotemporal convolutions for action recognition", CVPR 2018
    (the (2+1)-D convolution).
  W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", CVPR 2016.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers import run_block, set_zero
from methods.unet import DualUNet
from physics.consistency import DataConsistency
from physics.fourier import join_complex, split_complex

BLOCKS = 4
SUBPIXEL = 2  # every 2 x 2 block of pixels becomes four channels, and back


class ResidualBlock(nn.Module):
    """x + (2+1)-D convolution of x, (B, T, C, Y, X): 3x3 in space, ReLU, then 3 in time.

    The convolution over (cyclic) time is one 1x1 convolution that computes what every frame
    contributes to the next, the same and the previous one; the contributions are then shifted into
    place. The sum is that of a `Conv3d` with kernel (3, 1, 1), many times faster on CPUs, and no
    further activations are stored for the backward pass.
    """

    def __init__(self, features: int):
        super().__init__()
        self.space = nn.Conv2d(features, features, kernel_size=3, padding=1)
        self.time = nn.Conv2d(features, 3 * features, kernel_size=1)
        set_zero(self.time)  # every block starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        frames = F.relu(self.space(x.flatten(0, 1)), inplace=True)  # (B T, C, Y, X)
        # channels last, as in memory: any other order would copy every sum twice
        mixed = self.time(frames).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])  # (B, T, Y, X, 3 C)
        before, same, after = mixed.chunk(3, dim=-1)
        x = x.permute(0, 1, 3, 4, 2) + same + before.roll(1, dims=1) + after.roll(-1, dims=1)
        return x.permute(0, 1, 4, 2, 3)


class Refiner(nn.Module):
    """Residual network on a real image series: (B, T, Y, X) to the same, any Y and X.

    It starts as the identity. There is no pooling and no stride: pixels are rearranged into
    channels (Shi et al.), which halves the memory of the activations and doubles the receptive
    field of a convolution. The correction has full resolution.
    """

    gradient_checkpointing = False

    def __init__(self, init_features: int):
        super().__init__()
        features = max(16, init_features // 2)
        phases = SUBPIXEL**2
        self.lift = nn.Conv2d(phases, features, kernel_size=3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(features) for _ in range(BLOCKS)))
        self.project = nn.Conv2d(features, phases, kernel_size=3, padding=1)
        set_zero(self.project)

    def forward(self, image: Tensor) -> Tensor:
        n_frames, ny, nx = image.shape[1:]
        padded = F.pad(image, (0, -nx % SUBPIXEL, 0, -ny % SUBPIXEL))
        frames = F.pixel_unshuffle(
            padded.flatten(0, 1).unsqueeze(1), SUBPIXEL
        )  # (B T, 4, Y/2, X/2)
        frames = self.lift(frames).unflatten(0, (-1, n_frames))  # (B, T, C, Y/2, X/2)
        for block in self.blocks:
            frames = run_block(block, frames, recompute=self.gradient_checkpointing)
        correction = F.pixel_shuffle(self.project(frames.flatten(0, 1)), SUBPIXEL)  # (B T, 1, Y, X)
        return image + correction.squeeze(1).unflatten(0, (-1, n_frames))[..., :ny, :nx]


class UNetResNet(nn.Module):
    """`unet_resnet`: the U-Nets of `unet` (same arguments) and a refiner of their magnitude image.

    With `data_consistency` the same refiner corrects the real and the imaginary part of the U-Nets'
    image, and the measured lines are put back again.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        init_features: int,
        dropout: float,
        batch_norm: bool,
        data_consistency: bool,
        branches: str,
        attention: bool,
    ):
        super().__init__()
        self.data_consistency = data_consistency
        self.unet = DualUNet(
            in_channels, out_channels, init_features, dropout, batch_norm, data_consistency,
            branches, attention,
        )  # fmt: skip
        self.refiner = Refiner(init_features)

    def forward(self, aliased: Tensor, mask: Tensor) -> Tensor:
        image = self.unet(aliased, mask)
        if not self.data_consistency:
            return self.refiner(image)
        parts = self.refiner(torch.cat(split_complex(image))).chunk(2)
        return DataConsistency(aliased, mask, real_image=False).project(join_complex(*parts))
