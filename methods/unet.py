"""U-Nets: the building block in two and three dimensions, and the networks `unet` and `cnn3d`.

`unet` has a U-Net for the real part and another for the imaginary part of the image, with the
frames as channels. `cnn3d` has one U-Net over frames, lines and readout. `model.py` describes
how networks are called.

References:
  O. Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation", MICCAI
    2015.
  O. Cicek et al., "3D U-Net: learning dense volumetric segmentation from sparse annotation", MICCAI
    2016.
  K. Jin et al., "Deep convolutional neural network for inverse problems in imaging", IEEE Trans
    Image Process 26:4509-4522, 2017 (a residual U-Net).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers import run_block, set_zero
from methods.start import InitialImage

LEVELS = 4  # poolings of a U-Net; sizes are padded to a multiple of 2**LEVELS
SMALLEST = 32  # smallest padded size: 2 x 2 pixels at the bottom, enough for batch norm at batch 1
ATTENTION_REDUCTION, ATTENTION_WINDOW = 16, 7
BRANCHES = ("separate", "shared", "stacked")  # of DualUNet


class ConvBlock(nn.Sequential):
    """Two 3x3 (or 3x3x3) convolutions, each with optional batch norm and ReLU; then dropout."""

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
    """Channel, then spatial attention on (B, C, Y, X), each with sigmoid weights computed from
    means and maxima (S. Woo et al., "CBAM: convolutional block attention module", ECCV 2018)."""

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
        mean, peak = x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        x = x * (self.channel(mean) + self.channel(peak)).sigmoid()
        views = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * self.spatial(views).sigmoid()


class UNet(nn.Module):
    """U-Net of four levels: (B, in_channels, Y, X) to (B, out_channels, Y, X), any Y and X.

    `init_features` channels at full resolution, doubled at each of the four 2x2 poolings. With
    `dims` 3, (B, in_channels, T, Y, X) to the same with out_channels: convolutions over frames
    too, pooling in space only. `block`: a class with the arguments of `ConvBlock`.
    """

    gradient_checkpointing = False
    can_compile = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        init_features: int,
        dropout: float,
        batch_norm: bool,
        attention: bool = False,
        dims: int = 2,
        block: Callable[..., nn.Module] = ConvBlock,
    ):
        super().__init__()
        widths = [init_features * 2**level for level in range(LEVELS + 1)]  # 64, ..., 1024
        conv, transposed = (
            (nn.Conv3d, nn.ConvTranspose3d) if dims == 3 else (nn.Conv2d, nn.ConvTranspose2d)
        )
        pool: Any = (1, 2, 2)[3 - dims :]
        self.encoder = nn.ModuleList(
            block(before, after, dropout, batch_norm, dims)
            for before, after in zip([in_channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottom = block(widths[-2], widths[-1], dropout, batch_norm, dims)
        self.attention = Attention(widths[-1]) if attention else nn.Identity()
        self.up = nn.ModuleList(
            transposed(2 * width, width, kernel_size=pool, stride=pool)
            for width in reversed(widths[:-1])
        )
        self.decoder = nn.ModuleList(
            block(2 * width, width, dropout, batch_norm, dims) for width in reversed(widths[:-1])
        )
        self.head = conv(init_features, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        ny, nx = x.shape[-2:]
        below, right = (padding(size) for size in (ny, nx))
        x = F.pad(x, (0, right, 0, below))
        skips = []
        for block in self.encoder:
            x = run_block(block, x, recompute=self.gradient_checkpointing)
            skips.append(x)
            x = pooled(x)
        x = self.attention(run_block(self.bottom, x, recompute=self.gradient_checkpointing))
        for up, block in zip(self.up, self.decoder, strict=True):
            x = torch.cat((up(x), skips.pop()), dim=1)
            x = run_block(block, x, recompute=self.gradient_checkpointing)
        return self.head(x)[..., :ny, :nx]


def pooled(x: Tensor) -> Tensor:
    """The maximum of 2 x 2 pixels of (B, C, Y, X) or (B, C, T, Y, X). Frames are pooled one by one,
    because the gradient of three-dimensional pooling is not deterministic on GPUs."""
    if x.dim() == 4:
        return F.max_pool2d(x, 2)
    frames = x.transpose(1, 2).flatten(0, 1)  # (B T, C, Y, X)
    return F.max_pool2d(frames, 2).unflatten(0, (len(x), -1)).transpose(1, 2)


def padding(size: int) -> int:
    """Number of zeros that a U-Net appends to an axis of `size` pixels."""
    multiple = 2**LEVELS
    return max(SMALLEST, -(-size // multiple) * multiple) - size


class DualUNet(nn.Module):
    """`unet`: U-Nets for the two parts of a start (see `methods/start.py`), by default real and
    imaginary part of the aliased image, joined by magnitude.

    Each U-Net predicts a correction of its part and starts at zero: training begins at the start
    and learns to remove its errors, instead of first learning to copy the image (Jin et al.).

    `branches`: "separate", two U-Nets without shared parameters; "shared", one U-Net that takes
    each part in turn; "stacked", one U-Net with both parts as channels. With `data_consistency` the
    image is real, with the real-image prior, or complex, and the measured lines are put back.
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
        self.data_consistency, self.start, self.real_image = data_consistency, start, real_image
        self.branches = branches

        def unet(parts: int) -> UNet:
            return UNet(
                parts * in_channels, parts * out_channels, init_features, dropout, batch_norm,
                attention,
            )  # fmt: skip

        if branches == "separate":
            self.real, self.imaginary = unet(parts=1), unet(parts=1)
        else:
            self.both = unet(parts=2 if branches == "stacked" else 1)
        for child in self.children():
            set_zero(child.head)  # type: ignore[arg-type]

    def forward(
        self, aliased: Tensor, mask: Tensor, maps: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor:
        return self.correct(self.initial_image(aliased, mask, maps, start))

    def initial_image(
        self, aliased: Tensor, mask: Tensor, maps: Tensor | None, start: Tensor | None
    ) -> InitialImage:
        """The image that the U-Nets correct."""
        return InitialImage(
            self.start, aliased, mask, maps, self.real_image, self.data_consistency, start
        )

    def correct(self, start: InitialImage) -> Tensor:
        """The images (B, T, Y, X) that the U-Nets make of a start."""
        if self.branches == "separate":
            first, second = self.real(start.parts[0]), self.imaginary(start.parts[1])
        else:
            axis = 0 if self.branches == "shared" else 1
            first, second = self.both(torch.cat(start.parts, dim=axis)).chunk(2, dim=axis)
        return start.add_corrections(first, second)


class UNet3D(nn.Module):
    """`cnn3d`: a residual U-Net over t, y and x with the two parts of a start as channels. It takes
    any number of frames."""

    def __init__(
        self,
        init_features: int,
        dropout: float,
        batch_norm: bool,
        data_consistency: bool,
        start: str,
        real_image: bool,
    ):
        super().__init__()
        self.data_consistency, self.start, self.real_image = data_consistency, start, real_image
        self.unet = UNet(2, 2, init_features, dropout, batch_norm, dims=3)
        set_zero(self.unet.head)

    def forward(
        self, aliased: Tensor, mask: Tensor, maps: Tensor | None = None, start: Tensor | None = None
    ) -> Tensor:
        initial = InitialImage(
            self.start, aliased, mask, maps, self.real_image, self.data_consistency, start
        )
        parts = torch.stack(initial.parts, dim=1)  # (B, 2, T, Y, X)
        return initial.add_corrections(*self.unet(parts).unbind(dim=1))
