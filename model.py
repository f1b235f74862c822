"""The networks.

Every network is called `network(aliased, mask)`, with the aliased image (B, T, Y, X) complex64 and
its centred mask (B, T, Y, 1), and returns the reconstruction (B, T, Y, X), not clamped: complex64,
or float32 where it is a magnitude or a real image. Its magnitude is scored. B sample, T frame, Y
phase-encoding line, X readout, C channel.

Network 1, `unet`: two U-Nets without shared parameters, one for the real and one for the imaginary
part, with the frames as channels; their outputs are joined by magnitude.
Network 2, `unet_resnet`: network 1, and a residual network that refines every pixel of its output
with convolutions in space and over the frames.
Both may be made to keep the measured lines (`data_consistency`).
`cnn3d`: one U-Net over frames, lines and readout.
`cascade`: see `cascade.py`.

References: K. He et al., "Deep residual learning for
image recognition", CVPR 2016; D. Tran et al., "A closer look at spatiotemporal convolutions for
action recognition", CVPR 2018 (the (2+1)-D convolution).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cascade import Cascade
from fourier import Measured, join_complex, split_complex
from layers import run_block, set_zero
from unet import UNet

REFINER_BLOCKS = 4
SUBPIXEL = 2  # the refiner moves every 2 x 2 block of pixels to four channels, and back
MAGNITUDE_EPSILON = 1e-12  # (1e-6 of the peak)^2: a finite gradient where both parts are zero


def magnitude(real: Tensor, imaginary: Tensor) -> Tensor:
    """sqrt(real^2 + imaginary^2), with a finite gradient at zero."""
    return (real.square() + imaginary.square() + MAGNITUDE_EPSILON).sqrt()


class DualUNet(nn.Module):
    """Network 1: a U-Net for the real part, another for the imaginary part, joined by magnitude.

    Each U-Net tells what to add to its part, and starts at zero: training begins at the
    zero-filled reconstruction and learns to remove the aliasing, instead of learning first to
    copy the image (K. Jin et al., "Deep convolutional neural network for inverse problems in
    imaging", IEEE Trans Image Process 26:4509-4522, 2017).

    `branches`: "separate"; "shared", one U-Net for both parts, each on its own; or "stacked", one
    U-Net that takes and gives both parts as channels. With `data_consistency` the parts are joined
    as a complex image, which the measured lines are then put back into.
    """

    def __init__(self, branches: str, data_consistency: bool, **unet_settings):
        super().__init__()
        self.branches, self.data_consistency = branches, data_consistency
        if branches == "stacked":
            for name in ("in_channels", "out_channels"):
                unet_settings[name] = 2 * unet_settings[name]
        if branches == "separate":
            self.real, self.imaginary = UNet(**unet_settings), UNet(**unet_settings)
        else:
            self.both = UNet(**unet_settings)
        for unet in self.children():
            set_zero(unet.head)  # type: ignore[arg-type]

    def forward(self, aliased: Tensor, mask: Tensor) -> Tensor:
        real, imaginary = split_complex(aliased)
        if self.branches == "separate":
            corrections = self.real(real), self.imaginary(imaginary)
        else:
            axis = 0 if self.branches == "shared" else 1
            corrections = self.both(torch.cat((real, imaginary), dim=axis)).chunk(2, dim=axis)
        real, imaginary = real + corrections[0], imaginary + corrections[1]
        return joined(real, imaginary, aliased, mask, self.data_consistency)


def joined(
    real: Tensor, imaginary: Tensor, aliased: Tensor, mask: Tensor, data_consistency: bool
) -> Tensor:
    """The magnitude of a complex image, or the image with the measured lines put back."""
    if not data_consistency:
        return magnitude(real, imaginary)
    measured = Measured(aliased, mask, real_image=False)
    return measured.consistent(join_complex(real, imaginary))


class UNet3D(nn.Module):
    """A U-Net over t, y and x, with real and imaginary part as two channels; it adds to its input.
    Takes any number of frames (O. Cicek et al., "3D U-Net", MICCAI 2016)."""

    def __init__(self, data_consistency: bool, **unet_settings):
        super().__init__()
        self.data_consistency = data_consistency
        self.unet = UNet(in_channels=2, out_channels=2, dims=3, **unet_settings)
        set_zero(self.unet.head)

    def forward(self, aliased: Tensor, mask: Tensor) -> Tensor:
        parts = torch.stack(split_complex(aliased), dim=1)  # (B, 2, T, Y, X)
        real, imaginary = (parts + self.unet(parts)).unbind(dim=1)
        return joined(real, imaginary, aliased, mask, self.data_consistency)


class ResidualBlock(nn.Module):
    """x + (2+1)-D convolution of x, (B, T, C, Y, X): 3x3 in space, ReLU, then 3 in time.

    Time is cyclic, as a heartbeat is. The convolution over time is one 1x1 convolution that makes
    the contribution of every frame to the previous, the same and the next one, which are then
    shifted into place: the same sum as a `Conv3d` with kernel (3, 1, 1), many times faster on CPUs,
    and nothing more to keep for the gradient.
    """

    def __init__(self, features: int):
        super().__init__()
        self.space = nn.Conv2d(features, features, kernel_size=3, padding=1)
        self.time = nn.Conv2d(features, 3 * features, kernel_size=1)
        set_zero(self.time)  # every block starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        frames = F.relu(self.space(x.flatten(0, 1)), inplace=True)  # (B T, C, Y, X)
        # channels last, as they lie in memory: otherwise every sum would be copied to and fro
        told = self.time(frames).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])  # (B, T, Y, X, 3 C)
        before, same, after = told.chunk(3, dim=-1)
        x = x.permute(0, 1, 3, 4, 2) + same + before.roll(1, dims=1) + after.roll(-1, dims=1)
        return x.permute(0, 1, 4, 2, 3)


class Refiner(nn.Module):
    """Residual network on a real image series: (B, T, Y, X) to the same, any Y and X.

    It starts as the identity. Nothing is pooled or strided away: pixels are rearranged into
    channels (W. Shi et al., "Real-time single image and video super-resolution using an efficient
    sub-pixel convolutional neural network", CVPR 2016), which halves the memory of the activations
    and doubles the reach of a convolution, and the correction is made for every pixel.
    """

    gradient_checkpointing = False

    def __init__(self, init_features: int):
        super().__init__()
        features = max(16, init_features // 2)
        phases = SUBPIXEL**2
        self.lift = nn.Conv2d(phases, features, kernel_size=3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(features) for _ in range(REFINER_BLOCKS)))
        self.project = nn.Conv2d(features, phases, kernel_size=3, padding=1)
        set_zero(self.project)

    def forward(self, image: Tensor) -> Tensor:
        n_frames, ny, nx = image.shape[1:]
        padded = F.pad(image, (0, nx % SUBPIXEL, 0, ny % SUBPIXEL))
        frames = F.pixel_unshuffle(
            padded.flatten(0, 1).unsqueeze(1), SUBPIXEL
        )  # (B T, 4, Y/2, X/2)
        frames = self.lift(frames).unflatten(0, (-1, n_frames))  # (B, T, C, Y/2, X/2)
        for block in self.blocks:
            frames = run_block(block, frames, recompute=self.gradient_checkpointing)
        correction = F.pixel_shuffle(self.project(frames.flatten(0, 1)), SUBPIXEL)  # (B T, 1, Y, X)
        return image + correction.squeeze(1).unflatten(0, (-1, n_frames))[..., :ny, :nx]


class UNetResNet(nn.Module):
    """Network 2: network 1 and a residual refiner of its magnitude image.

    With `data_consistency` the refiner treats the real and the imaginary part of network 1 alike,
    and the measured lines are put back again.
    """

    def __init__(self, data_consistency: bool, **unet_settings):
        super().__init__()
        self.data_consistency = data_consistency
        self.unet = DualUNet(data_consistency=data_consistency, **unet_settings)
        self.refiner = Refiner(unet_settings["init_features"])

    def forward(self, aliased: Tensor, mask: Tensor) -> Tensor:
        image = self.unet(aliased, mask)
        if not self.data_consistency:
            return self.refiner(image)
        parts = self.refiner(torch.cat(split_complex(image))).chunk(2)
        return Measured(aliased, mask, real_image=False).consistent(join_complex(*parts))


UNET3D_SETTINGS = ("init_features", "dropout", "batch_norm", "data_consistency")
UNET_SETTINGS = ("in_channels", "out_channels", *UNET3D_SETTINGS, "branches", "attention")
CASCADE_SETTINGS = ("stages", "features", "real_image", "dc_weight", "learn_dc_weight")
MODELS: dict[str, type[nn.Module]] = {
    "unet": DualUNet,
    "unet_resnet": UNetResNet,
    "cnn3d": UNet3D,
    "cascade": Cascade,
}
ARCHITECTURE = {  # the settings of train() that build each of them
    "unet": UNET_SETTINGS,
    "unet_resnet": UNET_SETTINGS,
    "cnn3d": UNET3D_SETTINGS,
    "cascade": CASCADE_SETTINGS,
}


def build_model(model: str, **architecture) -> nn.Module:
    """The network named `model` in `MODELS`, with the settings named in `ARCHITECTURE`."""
    return MODELS[model](**architecture)


def channels_last(network: nn.Module) -> None:
    """Lay the weights out as convolutions are fastest with, on CPUs and GPUs."""
    three = any(parameter.dim() == 5 for parameter in network.parameters())
    network.to(memory_format=torch.channels_last_3d if three else torch.channels_last)


def set_checkpointing(network: nn.Module, enabled: bool) -> None:
    """Compute blocks again for the gradient, instead of keeping what they computed.

    Where there is batch norm, its running statistics then move twice a step.
    """
    for module in network.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = enabled  # type: ignore[assignment]


@dataclass
class Cost:
    """What a network costs."""

    parameters: int
    macs: int  # multiply-accumulates of one forward pass of one sample
    activation_bytes: int  # kept for the gradient by a training step on the whole batch


def count_cost(model: str, batch_size: int, shape: tuple[int, int, int], **architecture) -> Cost:
    """Count, without computing anything, what `model` costs on `shape` = (T, Y, X)."""
    with torch.device("meta"):
        network = build_model(model, **architecture)
        aliased = torch.empty(batch_size, *shape, dtype=torch.complex64)
        mask = torch.empty(batch_size, shape[0], shape[1], 1)
    own = {id(parameter) for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}  # one tensor for every storage, and alive, so that keys stay apart

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with (
        FlopCounterMode(display=False) as flops,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        network(aliased, mask)
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=flops.get_total_flops() // 2 // batch_size,
        activation_bytes=sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
    )
