"""Steps of training: the network as a step calls it, one optimiser step, and reading its losses."""

import math
from collections.abc import Iterable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from dataset import name_list
from model import run_stages
from training import checks
from training.batches import Batch
from training.cuda_graph import Forward, captured
from training.optimisation import training_loss
from training.run import Run, Training

# by type of device, for those that work on while the CPU does something else
N_AHEAD = {"cuda": 6}  # batches made ahead, in threads; else none
READ_EVERY = {"cuda": 20}  # steps after which losses are read, which waits for the device; else 1


def training_forward(run: Run, network: nn.Module) -> Forward:
    """The network as it is called in a training step: with the images of every stage that the loss
    takes."""
    s = run.settings
    if not s.cuda_graph or run.device.type != "cuda":
        return partial(run_stages, network, precision=s.precision)
    n_frames, ny, nx = run.cine.shape
    size = math.ceil(min(s.batch_size, run.n_rounds * len(run.parts["train"])) / s.accumulation)
    shape = size, n_frames, ny, min(nx, s.strip or nx)
    return captured(network, shape, s.precision, s.stage_loss > 0, run.device)


def train_step(
    settings: SimpleNamespace,
    training: Training,
    forward: Forward,
    parts: Iterable[Batch],
    n_samples: int,
) -> Tensor:
    """One optimiser step on the `n_samples` of all parts; returns their mean loss, on the device.

    Nothing here waits for a GPU.
    """
    s, network, optimizer = settings, training.network, training.optimizer
    total = torch.zeros((), device=next(network.parameters()).device)
    optimizer.zero_grad(set_to_none=True)
    for batch in parts:
        stages = forward(batch.aliased, batch.mask)
        losses = [training_loss(x, batch.image, s.loss).sum() / n_samples for x in stages]
        loss = losses[-1]
        if s.stage_loss:
            loss = loss + s.stage_loss * sum(losses[:-1])
        loss.backward()
        total = total + losses[-1].detach()
    if s.clip_gradient is not None:
        nn.utils.clip_grad_norm_(network.parameters(), s.clip_gradient)
    optimizer.step()
    return total


def read_losses(run: Run, training: Training) -> float:
    """Add the losses of the last steps to the epoch's; returns their mean over these steps."""
    values = [loss.item() for _, _, loss in training.unread]
    for (step, samples, _), loss in zip(training.unread, values, strict=True):
        where = (
            f"in epoch {len(training.history) + 1}, step {step}, on samples {name_list(samples)}"
        )
        checks.check_finite(loss, where, run.folder, run.settings.initial_lr)
        training.epoch_loss += loss * len(samples)
    training.unread.clear()
    return sum(values) / max(1, len(values))
