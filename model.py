"""The networks by name: building one, and counting what it costs.

Every network is called `network(aliased, mask)`, with the aliased image (B, T, Y, X) complex64 and
its centred mask (B, T, Y, 1), and returns the reconstruction (B, T, Y, X), not clamped: complex64,
or float32 if it is a magnitude or a real image. Its magnitude is scored. B sample, T frame, Y
phase-encoding line, X readout, C channel.
"""

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from methods.cascade import Cascade
from methods.refiner import UNetResNet
from methods.unet import DualUNet, UNet3D

# A new network is a class and a line here. The arguments of its class are settings of train().
MODELS: dict[str, type[nn.Module]] = {
    "unet": DualUNet,
    "unet_resnet": UNetResNet,
    "cnn3d": UNet3D,
    "cascade": Cascade,
}


def architecture_settings(model: str) -> tuple[str, ...]:
    """Names of the settings that build the network `model`: the arguments of its class."""
    return tuple(inspect.signature(MODELS[model]).parameters)


def build_model(model: str, **architecture) -> nn.Module:
    """The network `model`, with the settings named by `architecture_settings`."""
    return MODELS[model](**architecture)


def run_network(network: nn.Module, aliased: Tensor, mask: Tensor, precision: str) -> Tensor:
    """The reconstruction of a batch, computed in "float32" or "bfloat16"; the physics always in
    float32."""
    with torch.autocast(aliased.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return network(aliased, mask)


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
