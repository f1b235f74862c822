"""A training step of a network as one CUDA graph.

A step of a small network is thousands of short kernels, and a GPU waits for the CPU to launch each.
A graph of them is launched at once. It has fixed shapes and addresses; a batch of another shape is
computed as usual.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from model import run_stages
from util.progress import say

TOLERANCE, TINY = 0.01, 1e-7  # relative and absolute difference of gradients, of rounding
PERTURBED = 0.05  # standard deviation of the noise of parameters for a comparison
Forward = Callable[..., Sequence[Tensor]]  # (aliased, mask, start=) to images by stage


class _Captured(nn.Module):
    """A module of its own, because capturing replaces its `forward`."""

    def __init__(self, network: nn.Module, precision: str, stages: slice):
        super().__init__()
        self.network, self.precision, self.stages = network, precision, stages

    def forward(self, aliased: Tensor, mask: Tensor, *start: Tensor) -> tuple[Tensor, ...]:
        images = run_stages(
            self.network, aliased, mask, precision=self.precision, start=start[0] if start else None
        )
        return tuple(images[self.stages])


def captured(
    network: nn.Module,
    shape: Sequence[int],
    precision: str,
    device: torch.device,
    start: Tensor | None = None,
    every_stage: bool = False,
    keeps_gradients: bool = False,
    training: bool = True,
) -> Forward:
    """The forward and backward pass of a network in a step, captured for batches of one shape.

    Capturing runs the network a few times on an empty image. Its weights, buffers and gradients
    stay as they are; random numbers are drawn if it has dropout.

    A replayed backward pass leaves its gradients in the same memory every time. With
    `keeps_gradients` they are copied, so that those of several passes can be added.

    Args:
        shape: (B, T, Y, X) of the aliased images.
        start: zeros, as the network is given its start; None: it makes it itself.
        every_stage: give the images after every stage, not only the last ones.
        training: whether layers such as batch normalisation are in training mode.
    """
    network.train(training)
    stages = slice(None) if every_stage else slice(-1, None)
    before = [buffer.clone() for buffer in network.buffers()]
    aliased = torch.zeros(*shape, dtype=torch.complex64, device=device)
    mask = torch.ones(*shape[:3], 1, device=device)
    module = _Captured(network, precision, stages).train(training)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")  # harmless here
        inputs = (aliased, mask) if start is None else (aliased, mask, start.to(device))
        try:
            replayed = torch.cuda.make_graphed_callables(module, inputs)
        finally:
            _restore(list(network.buffers()), before)
    for parameter in network.parameters() if keeps_gradients else ():
        parameter.register_hook(torch.clone)

    def forward(batch: Tensor, lines: Tensor, start: Tensor | None = None) -> Sequence[Tensor]:
        if batch.shape == aliased.shape:
            given = () if start is None else (start,)
            return replayed(batch, lines, *given)  # type: ignore[return-value]
        return run_stages(network, batch, lines, precision=precision, start=start)

    return forward


def recorded(
    network: nn.Module,
    shape: Sequence[int],
    precision: str,
    device: torch.device,
    start: Tensor | None = None,
    **how: bool,
) -> Forward:
    """The network as it is called in a step: captured, if its gradients are then those of plain
    steps; else as it is, with a notice. The arguments, `how` too, are those of `captured`."""
    try:
        forward = captured(network, shape, precision, device, start, **how)
        if gradients_agree(forward, network, shape, precision, device, start):
            return forward
        reason = "its gradients are not those of plain steps"
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
    say(f"NOTICE: training steps are not recorded as a CUDA graph: {reason}")
    return partial(run_stages, network, precision=precision)


def gradients_agree(
    forward: Forward,
    network: nn.Module,
    shape: Sequence[int],
    precision: str,
    device: torch.device,
    start: Tensor | None = None,
) -> bool:
    """Whether a captured forward and backward pass gives the gradients of a plain one, of every
    parameter, on an image of noise; the arguments are those of `captured`. Dropout is not compared:
    it differs by chance.

    Layers that start at zero would hide those behind them: for the comparison all parameters get
    some noise. Afterwards these and the buffers are as before, and gradients are removed.
    """
    if any(isinstance(part, nn.Dropout) and part.p for part in network.modules()):
        return True
    state = [*network.parameters(), *network.buffers()]
    before = [value.detach().clone() for value in state]
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *shape, generator=rng).to(device)
    aliased = torch.complex(*noise)
    mask = (torch.rand(*shape[:3], 1, generator=rng) < 0.5).float().to(device)
    given = None if start is None else noise[0].to(start.dtype)

    def plain(batch: Tensor, lines: Tensor, start: Tensor | None) -> Sequence[Tensor]:
        return run_stages(network, batch, lines, precision=precision, start=start)

    found = []
    try:
        with torch.no_grad():
            for parameter in network.parameters():
                noise_of = torch.randn(parameter.shape, generator=rng).to(device)
                parameter.add_(noise_of, alpha=PERTURBED)
        for run in (forward, plain):
            network.zero_grad(set_to_none=True)
            run(aliased, mask, start=given)[-1].abs().square().mean().backward()
            found.append([parameter.grad for parameter in network.parameters()])
    finally:
        network.zero_grad(set_to_none=True)
        _restore(state, before)
    return all(
        (ours is None or not ours.any())
        if theirs is None
        else ours is not None and bool((ours - theirs).norm() <= TOLERANCE * theirs.norm() + TINY)
        for ours, theirs in zip(*found, strict=True)
    )


@torch.no_grad()
def _restore(values: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Give parameters and buffers, which a graph knows by their addresses, earlier values."""
    for value, earlier in zip(values, before, strict=True):
        value.copy_(earlier)
