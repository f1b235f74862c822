"""What training lowers, how fast, and the moving average of the weights."""

import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from batches import Batch


def learning_rate(position: float, s: SimpleNamespace) -> float:
    """The learning rate at `position` epochs from the start, 0 to `num_epochs`.

    "cosine": linear from 0 over min(warmup_epochs, num_epochs // 10) epochs, then half a cosine
    down to 0. "constant": the same throughout.
    """
    if s.lr_schedule == "constant":
        return s.initial_lr
    warmup = min(s.warmup_epochs, s.num_epochs // 10)
    if position < warmup:
        return s.initial_lr * position / warmup
    progress = (position - warmup) / (s.num_epochs - warmup)
    return s.initial_lr * 0.5 * (1 + math.cos(math.pi * progress))


def training_loss(reconstruction: Tensor, batch: Batch, loss: str) -> Tensor:
    """What training lowers, (B,): the mean squared or absolute error.

    A reconstruction that is complex, or real and signed, is compared with the truth as it is; a
    magnitude, of a truth with a phase, with the magnitude.
    """
    truth = batch.image if reconstruction.is_complex() else batch.target
    error = (reconstruction - truth).abs()
    return (error.square() if loss == "mse" else error).mean(dim=(-3, -2, -1))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the network after step number `step`, faster in the beginning, when
    little has been learnt that is worth keeping."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for averaged, parameter in zip(average.parameters(), network.parameters(), strict=True):
        averaged.lerp_(parameter, share)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
