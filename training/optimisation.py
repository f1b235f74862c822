"""The optimiser, the learning rate, and the moving average of the weights."""

import math

import torch
from torch import nn

SCHEDULES = ("cosine", "constant")
NO_DECAY = ("log_weight", "step")  # names of parameters without L2 penalty


def make_optimizer(network: nn.Module, peak: float, weight_decay: float) -> torch.optim.Adam:
    """Adam with this learning rate and L2 penalty; the weight of the data consistency, whose
    logarithm is trained, and the length of its step have no penalty, which would pull the one
    towards 1 and the other towards 0."""
    weights = [value for name, value in network.named_parameters() if name not in NO_DECAY]
    others = [value for name, value in network.named_parameters() if name in NO_DECAY]
    groups: list[dict] = [{"params": weights}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    fused = weights[0].device.type in ("cpu", "cuda")  # one pass over the weights, not ten
    return torch.optim.Adam(groups, lr=peak, weight_decay=weight_decay, fused=fused)


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


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average of the weights towards the network after step number `step`, and with them
    the statistics of batch norm, which would otherwise be those of other weights.

    The decay rises to `decay` over the first steps, because early weights are not worth keeping.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), share)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        if buffer.is_floating_point():
            kept.lerp_(buffer, share)
        else:
            kept.copy_(buffer)
