"""Helpers of the layers of all networks."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def set_zero(layer: nn.Module) -> None:
    """Make a layer's output zero, whatever its input, until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def run_block(block: nn.Module, x: Tensor, recompute: bool) -> Tensor:
    """The output of a block; with `recompute`, only its input is stored, and its activations are
    recomputed in the backward pass."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, x, use_reentrant=False)
    return block(x)
