"""The training loss, the learning rate, and the moving average of the weights."""

import math

import torch
from torch import Tensor, nn

SCHEDULES = ("cosine", "constant")
LOSSES = ("mse", "l1")


def learning_rate(
    position: float, peak: float, schedule: str, warmup_epochs: int, num_epochs: int
) -> float:
    """The learning rate at `position` epochs from the start, 0 to `num_epochs`.

    "cosine": linear from 0 to `peak` over min(warmup_epochs, num_epochs // 10) epochs, then half a
    cosine down to 0. "constant": `peak` throughout.
    """
    if schedule == "constant":
        return peak
    warmup = min(warmup_epochs, num_epochs // 10)
    if position < warmup:
        return peak * position / warmup
    progress = (position - warmup) / (num_epochs - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def training_loss(reconstruction: Tensor, image: Tensor, loss: str) -> Tensor:
    """The loss of each sample, (B,): the mean squared ("mse") or absolute ("l1") error.

    A complex reconstruction is compared with the true `image` itself; a real one with its
    magnitude.
    """
    if image.is_complex() and not reconstruction.is_complex():
        image = image.abs()
    error = (reconstruction - image).abs()
    return (error.square() if loss == "mse" else error).mean(dim=(-3, -2, -1))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average of the weights towards the network after step number `step`.

    The decay rises to `decay` over the first steps, because early weights are not worth keeping.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    for averaged, parameter in zip(average.parameters(), network.parameters(), strict=True):
        averaged.lerp_(parameter, share)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
