"""Layers that several networks have, and helpers for all of them."""

import contextlib
import functools
import math
from collections.abc import Iterator
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
    the last frame are neighbours. With `cyclic` the first and the last row along Y are neighbours
    too, else there are zeros beyond them.
    """

    def __init__(self, features: int, batch_norm: bool = False, cyclic: bool = False):
        super().__init__()
        self.shifted = features // SHIFTED
        self.rows = 2 if cyclic else 0  # wrapped around at once for both convolutions
        padding = (0, 1) if cyclic else 1
        self.first = nn.Conv2d(features, features, 3, padding=padding, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.second = nn.Conv2d(features, features, kernel_size=3, padding=padding)
        set_zero(self.second)

    def forward(self, x: Tensor, n_frames: int) -> Tensor:
        # channels last, as in memory: any other order would copy the tensor before and after
        frames = x.unflatten(0, (-1, n_frames)).permute(0, 1, 3, 4, 2)  # (B, T, Y, X, C)
        mixed = ShiftInTime.apply(frames, self.shifted, self.rows)
        mixed = mixed.permute(0, 1, 4, 2, 3).flatten(0, 1)  # (B T, C, Y, X)
        return x + self.second(F.relu(self.norm(self.first(mixed)), inplace=True))


class ShiftInTime(torch.autograd.Function):
    """Frames (B, T, Y, X, C) whose first `n` channels come from the frame before, and the next `n`
    from the frame after, with `rows` more rows on either side along Y, wrapped around. Time is
    cyclic. Every value is written once."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, n: int, rows: int) -> Tensor:
        ctx.shift = n, rows
        n_batch, n_frames, ny, nx, features = frames.shape
        shifted = frames.new_empty(n_batch, n_frames, ny + 2 * rows, nx, features)
        for target, source in _moves(shifted[:, :, rows : rows + ny], frames, n):
            target.copy_(source)
        if rows:
            shifted[:, :, :rows] = shifted[:, :, ny : ny + rows]
            shifted[:, :, ny + rows :] = shifted[:, :, rows : 2 * rows]
        return shifted

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (n, rows), (gradient,) = ctx.shift, gradients
        ny = gradient.shape[2] - 2 * rows
        of_frames = gradient.new_empty(gradient[:, :, rows : rows + ny].shape)
        for source, target in _moves(gradient[:, :, rows : rows + ny], of_frames, n):
            target.copy_(source)
        if rows:  # what was wrapped around adds to the rows that it came from
            for inside, outside in (
                (slice(ny - rows, ny), slice(rows)),
                (slice(rows), slice(-rows, None)),
            ):
                for source, target in _moves(gradient[:, :, outside], of_frames[:, :, inside], n):
                    target.add_(source)
        return of_frames, None, None


def _moves(shifted: Tensor, frames: Tensor, n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Where everything in `frames` (B, T, Y, X, C) is in the `shifted` ones: pairs of views of
    both."""
    after, before, same = slice(n), slice(n, 2 * n), slice(2 * n, None)
    yield shifted[:, 1:, ..., after], frames[:, :-1, ..., after]
    yield shifted[:, :1, ..., after], frames[:, -1:, ..., after]
    yield shifted[:, :-1, ..., before], frames[:, 1:, ..., before]
    yield shifted[:, -1:, ..., before], frames[:, :1, ..., before]
    yield shifted[..., same], frames[..., same]


def set_zero(layer: nn.Module) -> None:
    """Make a layer's output zero, whatever its input, until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def run_block(block: nn.Module, *inputs: Any, recompute: bool) -> Any:
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


@functools.cache  # a copy to a GPU waits for it, and captured steps keep its address
def temporal_bands(n_frames: int, device: torch.device) -> Tensor:
    """Projections of a cyclic series onto the bands of temporal frequency in `BANDS`, (N, T, T)."""
    time = torch.arange(n_frames)
    angle = 2 * math.pi * (time[:, None] - time) / n_frames
    bands = torch.zeros(len(BANDS), n_frames, n_frames)
    for band, harmonics in zip(bands, BANDS, strict=True):
        for harmonic in harmonics:
            if 2 * harmonic <= n_frames:
                twice = 1 if 2 * harmonic in (0, n_frames) else 2  # with the negative frequency
                band += twice * (harmonic * angle).cos() / n_frames
    return bands.to(device)


def temporal_views(images: Tensor) -> list[Tensor]:
    """What shows all motion of the series (B, T, ...) at once, each of their shape: the difference
    of their temporal mean to them, and their projections onto the faster bands in `BANDS`."""
    bands = temporal_bands(images.shape[1], images.device)
    with in_float32(images.device):  # rounding would look like motion
        mean, *faster = torch.einsum("nst,bt...->nbs...", bands, images)
    return [mean - images, *faster]
