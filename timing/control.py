"""The control: a plain network of the reference's shape, which speeds are compared to.

Two U-Nets of four levels with frames as channels, one for the real and one for the imaginary part,
are joined by magnitude; a residual network at half resolution follows. All layers are those of
torch, in the default layout. There is no skip past the residual network.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 4  # poolings, so that sizes are multiples of 2**LEVELS
BLOCKS = 4  # of the residual network
EPSILON = 1e-12  # a finite gradient if both parts are zero


class PlainUNet(nn.Module):
    """(B, frames, Y, X) to the same; Y and X are multiples of 16."""

    def __init__(self, frames: int, init_features: int):
        super().__init__()
        widths = [init_features * 2**level for level in range(LEVELS + 1)]
        levels = list(zip(widths[-2::-1], widths[:0:-1], strict=True))  # (narrow, wide), upwards
        self.encoder = nn.ModuleList(
            _twice_conv(before, after)
            for before, after in zip([frames, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for narrow, wide in levels)
        self.decoder = nn.ModuleList(_twice_conv(2 * narrow, narrow) for narrow, _ in levels)
        self.head = nn.Conv2d(init_features, frames, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.encoder[:-1]:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.encoder[-1](x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat((up(x), skips.pop()), dim=1))
        return self.head(x)


def _twice_conv(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        conv = nn.Conv2d(channels, after, kernel_size=3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class PlainResidual(nn.Module):
    """ReLU(x + two (2+1)-D convolutions of x), for (B, C, 1, Y, X)."""

    def __init__(self, features: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            for kernel, padding in (((1, 3, 3), (0, 1, 1)), ((3, 1, 1), (1, 0, 0))):
                conv = nn.Conv3d(features, features, kernel, padding=padding, bias=False)
                layers += [conv, nn.BatchNorm3d(features), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


class Control(nn.Module):
    """The whole network, called like all others (see `model.py`); it ignores the mask."""

    def __init__(self, frames: int, init_features: int):
        super().__init__()
        self.real = PlainUNet(frames, init_features)
        self.imaginary = PlainUNet(frames, init_features)
        self.refiner = nn.Sequential(
            nn.Conv3d(frames, init_features, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *(PlainResidual(init_features) for _ in range(BLOCKS)),
            nn.Conv3d(init_features, frames, kernel_size=1),
        )

    def forward(self, aliased: Tensor, mask: Tensor) -> Tensor:
        real, imaginary = self.real(aliased.real), self.imaginary(aliased.imag)
        image = (real.square() + imaginary.square() + EPSILON).sqrt()
        refined = self.refiner(image.unsqueeze(2)).squeeze(2)  # (B, T, Y/2, X/2)
        return F.interpolate(refined, scale_factor=2, mode="bilinear")
