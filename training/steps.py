"""Steps of training: the network as a step calls it, one optimiser step, and reading its losses."""

import contextlib
import math
from collections.abc import Iterable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dataset import name_list
from model import run_stages
from training import checks
from training.batches import Batch
from training.cuda_graph import Forward, captured
from training.optimisation import training_loss
from training.run import Run, Training
from util.world import World

# by type of device, for those that work on while the CPU does something else
N_AHEAD = {"cuda": 6}  # batches made ahead, in threads; else none
READ_EVERY = {"cuda": 20}  # steps after which losses are read, which waits for the device; else 1


class Stages(nn.Module):
    """A network whose images after every stage are its output, so that the gradients of all of
    them are averaged over the processes."""

    def __init__(self, network: nn.Module, precision: str):
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, *measured: Tensor) -> list[Tensor]:
        return run_stages(self.network, *measured, precision=self.precision)


def training_forward(run: Run, network: nn.Module) -> Forward:
    """The network as it is called in a training step: with the images of every stage that the loss
    takes."""
    s = run.settings
    if run.world.size > 1:
        devices = [run.device.index] if run.device.type == "cuda" else None
        stages = Stages(network, s.precision)
        return DistributedDataParallel(stages, devices, gradient_as_bucket_view=True)
    if not s.cuda_graph or run.device.type != "cuda" or run.n_coils:
        return partial(run_stages, network, precision=s.precision)
    n_frames, ny, nx = run.cine.shape
    size = math.ceil(min(s.batch_size, run.n_rounds * len(run.parts["train"])) / s.accumulation)
    shape = size, n_frames, ny, min(nx, s.strip or nx)
    return captured(network, shape, s.precision, s.stage_loss > 0, run.device)


def train_step(
    settings: SimpleNamespace,
    training: Training,
    forward: Forward,
    parts: Iterable[tuple[Batch, float]],
    n_parts: int,
    n_samples: int,
    world: World,
) -> Tensor:
    """One optimiser step on the `n_samples` of all parts of all processes.

    Nothing here waits for a GPU.

    Args:
        parts: what this process takes of each of the `n_parts` forward passes, and its weight.

    Returns:
        This process's share of the mean loss, on the device.
    """
    s, network, optimizer = settings, training.network, training.optimizer
    total = torch.zeros((), device=next(network.parameters()).device)
    optimizer.zero_grad(set_to_none=True)
    for number, (batch, weight) in enumerate(parts, start=1):
        with exchanging(forward, number == n_parts):
            stages = forward(*batch.measured)
            errors = [training_loss(x, batch.image, s.loss) for x in stages]
            losses = [error.sum() * weight / n_samples for error in errors]
            loss = losses[-1]
            if s.stage_loss:
                loss = loss + s.stage_loss * sum(losses[:-1])
            (loss * world.size).backward()  # the mean over processes is taken of gradients
        total = total + losses[-1].detach()
    if s.clip_gradient is not None:
        nn.utils.clip_grad_norm_(network.parameters(), s.clip_gradient)
    optimizer.step()
    return total


def exchanging(forward: Forward, wanted: bool) -> contextlib.AbstractContextManager:
    """Whether gradients are exchanged in the backward pass of this block, if processes are."""
    if wanted or not isinstance(forward, DistributedDataParallel):
        return contextlib.nullcontext()
    return forward.no_sync()


def read_losses(run: Run, training: Training) -> float:
    """Add the losses of the last steps to the epoch's; returns their mean over these steps."""
    if not training.unread:
        return 0.0
    values = run.world.total(torch.stack([loss for _, _, loss in training.unread])).tolist()
    for (step, samples, _), loss in zip(training.unread, values, strict=True):
        where = (
            f"in epoch {len(training.history) + 1}, step {step}, on samples {name_list(samples)}"
        )
        checks.check_finite(loss, where, run.folder, run.settings.initial_lr)
        training.epoch_loss += loss * len(samples)
    training.unread.clear()
    return sum(values) / len(values)
