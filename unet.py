"""The U-Net, in two and in three dimensions, that networks are made of (see `model.py`).

Reference: O. Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation",
MICCAI 2015.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layers import run_block

LEVELS = 4  # poolings of a U-Net; sizes are padded to a multiple of 2**LEVELS
SMALLEST = 32  # and to at least this: 2 x 2 pixels at the bottom, enough for batch norm at batch 1
ATTENTION_REDUCTION, ATTENTION_WINDOW = 16, 7


class ConvBlock(nn.Sequential):
    """Twice 3x3 (or 3x3x3) convolution, batch norm (if wanted), ReLU; then dropout."""

    def __init__(
        self, in_channels: int, out_channels: int, dropout: float, batch_norm: bool, dims: int
    ):
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        norm = nn.BatchNorm3d if dims == 3 else nn.BatchNorm2d
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(
                conv(channels, out_channels, kernel_size=3, padding=1, bias=not batch_norm)
            )
            if batch_norm:
                layers.append(norm(out_channels))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers, nn.Dropout(dropout))


class Attention(nn.Module):
    """Channel, then spatial attention on (B, C, Y, X): each weighs by a sigmoid of means and maxima
    (S. Woo et al., "CBAM: convolutional block attention module", ECCV 2018)."""

    def __init__(self, features: int):
        super().__init__()
        hidden = max(1, features // ATTENTION_REDUCTION)
        self.channel = nn.Sequential(
            nn.Conv2d(features, hidden, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, features, kernel_size=1),
        )
        self.spatial = nn.Conv2d(2, 1, kernel_size=ATTENTION_WINDOW, padding=ATTENTION_WINDOW // 2)

    def forward(self, x: Tensor) -> Tensor:
        mean, most = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * (self.channel(mean) + self.channel(most)).sigmoid()
        views = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * self.spatial(views).sigmoid()


class UNet(nn.Module):
    """U-Net of four levels: (B, in_channels, Y, X) to (B, out_channels, Y, X), any Y and X.

    `init_features` channels at full resolution, doubled at each of the four 2x2 poolings. With
    `dims` 3, (B, in_channels, T, Y, X) to the same with out_channels: convolutions over frames
    too, pooling in space only.
    """

    gradient_checkpointing = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        init_features: int,
        dropout: float,
        batch_norm: bool,
        attention: bool = False,
        dims: int = 2,
    ):
        super().__init__()
        widths = [init_features * 2**level for level in range(LEVELS + 1)]  # 64, ..., 1024
        conv, transposed = (
            (nn.Conv3d, nn.ConvTranspose3d) if dims == 3 else (nn.Conv2d, nn.ConvTranspose2d)
        )
        pool: Any = (1, 2, 2)[3 - dims :]
        self.pool = (nn.MaxPool3d if dims == 3 else nn.MaxPool2d)(pool)
        self.encoder = nn.ModuleList(
            ConvBlock(before, after, dropout, batch_norm, dims)
            for before, after in zip([in_channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottom = ConvBlock(widths[-2], widths[-1], dropout, batch_norm, dims)
        self.attention = Attention(widths[-1]) if attention else nn.Identity()
        self.up = nn.ModuleList(
            transposed(2 * width, width, kernel_size=pool, stride=pool)
            for width in reversed(widths[:-1])
        )
        self.decoder = nn.ModuleList(
            ConvBlock(2 * width, width, dropout, batch_norm, dims)
            for width in reversed(widths[:-1])
        )
        self.head = conv(init_features, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        ny, nx = x.shape[-2:]
        below, right = (padding(size) for size in (ny, nx))
        x = F.pad(x, (0, right, 0, below))
        skips = []
        for block in self.encoder:
            x = run_block(block, x, self.gradient_checkpointing)
            skips.append(x)
            x = self.pool(x)
        x = self.attention(run_block(self.bottom, x, self.gradient_checkpointing))
        for up, block in zip(self.up, self.decoder, strict=True):
            x = torch.cat((up(x), skips.pop()), dim=1)
            x = run_block(block, x, self.gradient_checkpointing)
        return self.head(x)[..., :ny, :nx]


def padding(size: int) -> int:
    """Zeros that a U-Net appends to an axis of `size` pixels."""
    multiple = 2**LEVELS
    return max(SMALLEST, -(-size // multiple) * multiple) - size
