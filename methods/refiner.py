"""The residual refiner, and the network `unet_resnet`: `unet` followed by the refiner.

References:
  K. He et al., "Deep residual learning for image recognition", CVPR 2016.
  W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", CVPR 2016.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers import BANDS, ShiftBlock, as_convolved, run_block, set_zero, temporal_views
from methods.unet import DualUNet
from physics.fourier import join_complex, split_complex

BLOCKS = 1  # of a refiner
STEPS = 3  # refiners in a row, where the measured lines are put back after each
SUBPIXEL = 4  # every 4 x 4 block of pixels becomes 16 channels, and back


class Refiner(nn.Module):
    """Residual network on a real image series: (B, T, Y, X) to the same, any Y and X.

    It starts as the identity. With `views` its input are the images and their temporal views (see
    `methods/layers.py`). There is no pooling and no stride: pixels are rearranged into channels
    (Shi et al.), which makes tensors small, moving which limits such networks on CPUs and GPUs, and
    convolutions wide. The correction has full resolution.
    """

    gradient_checkpointing = False
    can_compile = True

    def __init__(self, init_features: int, batch_norm: bool, views: bool):
        super().__init__()
        self.views = views
        features = max(32, init_features // 2)
        phases, inputs = SUBPIXEL**2, 1 + len(BANDS) if views else 1
        self.lift = nn.Conv2d(inputs * phases, features, 3, padding=1, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.blocks = nn.ModuleList(ShiftBlock(features, batch_norm) for _ in range(BLOCKS))
        self.project = nn.Conv2d(features, phases, kernel_size=1)
        set_zero(self.project)

    def forward(self, image: Tensor) -> Tensor:
        n_frames, ny, nx = image.shape[1:]
        views = temporal_views(image) if self.views else ()
        x = as_convolved(torch.stack((image, *views), dim=2).flatten(0, 1))  # (B T, C, Y, X)
        x = F.pixel_unshuffle(F.pad(x, (0, -nx % SUBPIXEL, 0, -ny % SUBPIXEL)), SUBPIXEL)
        x = self.lift(x.contiguous(memory_format=torch.channels_last))
        x = F.relu(self.norm(x), inplace=True)  # (B T, C, Y/4, X/4)
        for block in self.blocks:
            x = run_block(block, x, n_frames, recompute=self.gradient_checkpointing)
        correction = F.pixel_shuffle(self.project(x), SUBPIXEL)[..., :ny, :nx]  # (B T, 1, Y, X)
        return image + correction.squeeze(1).unflatten(0, (-1, n_frames))


class UNetResNet(nn.Module):
    """`unet_resnet`: the U-Nets of `unet` (same arguments) and a refiner of their images.

    With `data_consistency` there are three refiners in a row, which also see the temporal views of
    the images, and after each of which the measured lines are put back. A refiner of complex images
    corrects real and imaginary part alike.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        init_features: int,
        dropout: float,
        batch_norm: bool,
        data_consistency: bool,
        start: str,
        real_image: bool,
        branches: str,
        attention: bool,
    ):
        super().__init__()
        self.unet = DualUNet(
            in_channels, out_channels, init_features, dropout, batch_norm, data_consistency,
            start, real_image, branches, attention,
        )  # fmt: skip
        steps = STEPS if data_consistency else 1
        self.refiners = nn.ModuleList(
            Refiner(init_features, batch_norm, views=data_consistency) for _ in range(steps)
        )

    def forward(
        self, aliased: Tensor, mask: Tensor, maps: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor:
        initial = self.unet.initial_image(aliased, mask, maps, start)
        images = self.unet.correct(initial)
        for refiner in self.refiners:
            if images.is_complex():
                images = join_complex(*refiner(torch.cat(split_complex(images))).chunk(2))
            else:
                images = refiner(images)
            images = initial.enforce(images)
        return images
