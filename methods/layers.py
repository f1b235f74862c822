"""Layers that several networks have, and helpers for all of them."""

import contextlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

BANDS = ((0,), (1,), (2, 3))  # harmonics of the heartbeat in each band; the first is the mean
SHIFTED = 4  # 1/4 of the channels is shifted to the next frame, 1/4 to the previous one


class ShiftBlock(nn.Module):
    """Residual block on frames (B T, C, Y, X): temporal shift, 3x3 convolution, batch norm if asked
    for, ReLU, 3x3 convolution. It starts as the identity.

    Channels are shifted to the neighbouring frames, which mixes time without arithmetic (J. Lin et
    al., "TSM: temporal shift module for efficient video understanding", ICCV 2019). The first and
    the last frame are neighbours.
    """

    def __init__(self, features: int, batch_norm: bool = False):
        super().__init__()
        self.shifted = features // SHIFTED
        self.first = nn.Conv2d(features, features, kernel_size=3, padding=1, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.second = nn.Conv2d(features, features, kernel_size=3, padding=1)
        set_zero(self.second)

    def forward(self, x: Tensor, n_frames: int) -> Tensor:
        n, features = self.shifted, x.shape[1]
        # channels last, as in memory: any other order would copy the tensor before and after
        frames = x.unflatten(0, (-1, n_frames)).permute(0, 1, 3, 4, 2)  # (B, T, Y, X, C)
        after, before, same = frames.split((n, n, features - 2 * n), dim=-1)
        mixed = torch.cat((after.roll(1, 1), before.roll(-1, 1), same), dim=-1)
        mixed = mixed.permute(0, 1, 4, 2, 3).flatten(0, 1)  # (B T, C, Y, X)
        return x + self.second(F.relu(self.norm(self.first(mixed)), inplace=True))


def set_zero(layer: nn.Module) -> None:
    """Make a layer's output zero, whatever its input, until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def run_block(block: nn.Module, *inputs: Any, recompute: bool) -> Tensor:
    """The output of a block; with `recompute`, only its inputs are stored, and its activations are
    recomputed in the backward pass."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)


def as_convolved(x: Tensor) -> Tensor:
    """`x` in the type in which autocast runs convolutions: converting early moves less memory."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def in_float32(device: torch.device) -> contextlib.AbstractContextManager:
    """A context in which nothing is computed in bfloat16, whatever the precision of the network."""
    if device.type == "meta":  # costs are being counted
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def temporal_bands(n_frames: int) -> Tensor:
    """Projections of a cyclic series onto the bands of temporal frequency in `BANDS`, (N, T, T)."""
    time = torch.arange(n_frames)
    angle = 2 * math.pi * (time[:, None] - time) / n_frames
    bands = torch.zeros(len(BANDS), n_frames, n_frames)
    for band, harmonics in zip(bands, BANDS, strict=True):
        for harmonic in harmonics:
            if 2 * harmonic <= n_frames:
                twice = 1 if 2 * harmonic in (0, n_frames) else 2  # with the negative frequency
                band += twice * (harmonic * angle).cos() / n_frames
    return bands


def temporal_views(images: Tensor) -> list[Tensor]:
    """What shows all motion of the series (B, T, ...) at once, each of their shape: the difference
    of their temporal mean to them, and their projections onto the faster bands in `BANDS`."""
    bands = temporal_bands(images.shape[1]).to(images.device)
    with in_float32(images.device):  # rounding would look like motion
        mean, *faster = torch.einsum("nst,bt...->nbs...", bands, images)
    return [mean - images, *faster]
