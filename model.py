"""The networks by name: building one, and counting what it costs.

Every network is called `network(aliased, mask)`, with the aliased image (B, T, Y, X) complex64 and
its centred mask (B, T, Y, 1); or, of several coils, `network(aliased, mask, maps)`, with aliased
coil images (B, T, C, Y, X) and sensitivity maps (B, C, Y, X). `start`, if given, is the image that
it corrects (see `methods/start.py`), which it makes itself otherwise. It returns the reconstruction
(B, T, Y, X), not clamped: complex64, or float32 if it is a magnitude or a real image. Its magnitude
is scored. B sample, T frame, C coil (of layers: channel), Y phase-encoding line, X readout.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from methods.cascade import Cascade
from methods.crnn import CRNN
from methods.dc_cnn import DCCNN
from methods.modl import MoDL
from methods.refiner import UNetResNet
from methods.start import ZERO_FILLED
from methods.unet import DualUNet, UNet3D
from methods.varnet import VarNet

# To add a network, add its class here. The arguments of the class must be settings of train(). A
# class may have OWN, its own values of the settings in NEUTRAL; LEAST_FRAMES, if one is too few;
# WEIGHS_LINES, if measured lines are weighted and not kept exactly, whatever the settings;
# `by_stage`, a method that returns the images after each of its stages; and parts with
# `gradient_checkpointing` or `can_compile`, real-valued modules that torch.compile may take.
MODELS: dict[str, type[nn.Module]] = {
    "unet": DualUNet,
    "unet_resnet": UNetResNet,
    "cnn3d": UNet3D,
    "cascade": Cascade,
    "dc_cnn": DCCNN,
    "crnn": CRNN,
    "varnet": VarNet,
    "modl": MoDL,
}


# values of settings that are not given, unless the network has its own
NEUTRAL: dict[str, Any] = {
    "start": ZERO_FILLED, "strip": 0, "clip_gradient": 0.0, "ema": 0.0, "stage_loss": 0.0,
    "stages": 4, "features": 16, "cuda_graph": False,
}  # fmt: skip


def own_settings(model: str) -> dict[str, Any]:
    """The network's own values of the settings in `NEUTRAL`."""
    return NEUTRAL | getattr(MODELS[model], "OWN", {})


def about_models(setting: str) -> str:
    """The networks that a setting is for, for its help: "unet, cnn3d: "; "" if it is for all."""
    models = [model for model in MODELS if setting in architecture_settings(model)]
    return f"{', '.join(models)}: " if 0 < len(models) < len(MODELS) else ""


def architecture_settings(model: str) -> tuple[str, ...]:
    """Names of the settings that build the network `model`: the arguments of its class."""
    return tuple(inspect.signature(MODELS[model]).parameters)


def build_model(model: str, **architecture) -> nn.Module:
    """The network `model`, with the settings named by `architecture_settings`."""
    return MODELS[model](**architecture)


def run_network(
    network: nn.Module, *measured: Tensor, precision: str, start: Tensor | None = None
) -> Tensor:
    """The reconstruction of a batch, `(aliased, mask)` or `(aliased, mask, maps)`, computed in
    "float32" or "bfloat16"; the physics always in float32. `start`: made before, or None."""
    given = {} if start is None else {"start": start}
    with torch.autocast(measured[0].device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return network(*measured, **given)


def run_stages(
    network: nn.Module, *measured: Tensor, precision: str, start: Tensor | None = None
) -> list[Tensor]:
    """The reconstructions after each stage, the last one as of `run_network`; of a network without
    stages that one alone."""
    by_stage = getattr(network, "by_stage", None)
    if by_stage is None:
        return [run_network(network, *measured, precision=precision, start=start)]
    with torch.autocast(measured[0].device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return by_stage(*measured, start=start)


def channels_last(network: nn.Module) -> None:
    """Convert the weights to channels-last layout, which is fastest on CPUs and GPUs; not on mps,
    where the gradients of batch norm are wrong in it (pytorch issue 175189)."""
    if any(parameter.device.type == "mps" for parameter in network.parameters()):
        return
    three = any(parameter.dim() == 5 for parameter in network.parameters())
    network.to(memory_format=torch.channels_last_3d if three else torch.channels_last)


def set_checkpointing(network: nn.Module, enabled: bool) -> None:
    """Recompute the activations of blocks in the backward pass, instead of storing them.

    The running statistics of batch norm are then updated twice per step.
    """
    for module in network.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = enabled  # type: ignore[assignment]


def compile_parts(network: nn.Module, backend: str = "inductor") -> None:
    """Have torch compile the parts of a network that it can compile when they are first called; a
    copy of the network is not compiled."""
    for module in network.modules():
        if getattr(module, "can_compile", False):
            module.compile(backend=backend)


@dataclass
class Cost:
    """Size, arithmetic and memory of a network."""

    parameters: int
    macs: int  # multiply-accumulates of one forward pass of one sample
    activation_bytes: int  # stored for the backward pass of a training step on the whole batch


def count_cost(
    model: str,
    batch_size: int,
    shape: tuple[int, int, int],
    n_coils: int | None = None,
    **architecture,
) -> Cost:
    """Cost of `model` on images of `shape` = (T, Y, X), counted without computing anything.

    `n_coils`: None: a single one, without maps.
    """
    n_frames, ny, nx = shape
    with torch.device("meta"):
        network = build_model(model, **architecture)
        coils = () if n_coils is None else (n_coils,)
        measured = [
            torch.empty(batch_size, n_frames, *coils, ny, nx, dtype=torch.complex64),
            torch.empty(batch_size, n_frames, ny, 1),
        ]
        if n_coils is not None:
            measured.append(torch.empty(batch_size, n_coils, ny, nx, dtype=torch.complex64))
    parameters = {id(parameter) for parameter in network.parameters()}
    saved: dict[int, Tensor] = {}  # one tensor per storage; alive, so that keys stay unique

    def save(tensor: Tensor) -> Tensor:
        if id(tensor) not in parameters:
            saved.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with (
        FlopCounterMode(display=False) as flops,
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
    ):
        network(*measured)
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=flops.get_total_flops() // 2 // batch_size,
        activation_bytes=sum(tensor.untyped_storage().nbytes() for tensor in saved.values()),
    )
