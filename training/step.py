"""Optimiser steps: the batches of a step, the network's images, the loss and the update."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data.batches import Batch, Draws, divided, prepared, shared
from evaluation.held_out import batch_error
from model import run_stages
from training import checks
from training.cuda_graph import Forward, recorded
from training.losses import training_loss
from training.optimisation import update_average
from training.run import Run, Training
from util.progress import name_list

# by type of device, for those that work on while the CPU does something else
N_AHEAD = {"cuda": 6}  # batches made ahead, in threads; else none
READ_EVERY = {"cuda": 20}  # steps after which losses are read, which waits for the device; else 1


class Stages(nn.Module):
    """A network whose images after every stage are its output, so that the gradients of all of
    them are averaged over the processes."""

    def __init__(self, network: nn.Module, precision: str):
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, *measured: Tensor, start: Tensor | None) -> list[Tensor]:
        return run_stages(self.network, *measured, precision=self.precision, start=start)


def training_forward(run: Run, network: nn.Module) -> Forward:
    """The network as it is called in a training step: with the images of every stage that the loss
    takes."""
    s = run.settings
    if run.world.size > 1:
        devices = [run.device.index] if run.device.type == "cuda" else None
        stages = Stages(network, s.precision)
        return DistributedDataParallel(stages, devices, gradient_as_bucket_view=True)
    if not run.records_steps:
        return partial(run_stages, network, precision=s.precision)
    n_frames, ny, nx = run.cine.shape
    size = math.ceil(min(s.batch_size, run.n_rounds * len(run.parts["train"])) / s.accumulation)
    shape = run.n_copies * size, n_frames, ny, min(nx, s.strip or nx)
    start = None
    if run.keeps_starts:
        start = torch.zeros(shape, dtype=torch.float32 if s.real_image else torch.complex64)
    how = {"every_stage": s.stage_loss > 0, "keeps_gradients": s.accumulation > 1}
    return recorded(network, shape, s.precision, run.device, start, **how)


class Stepper:
    """Takes the optimiser steps of a run, one after the other."""

    def __init__(self, run: Run, training: Training, make_batch: Callable[[Draws], Batch]):
        """`make_batch`: makes the training batch of some draws."""
        self.run, self.training, self.make_batch = run, training, make_batch
        self.forward = training_forward(run, training.network)

    def batches(self, steps: Iterable[Draws]) -> contextlib.closing:
        """This process's batches for all forward passes of some steps, to be closed at the end;
        where the device works on its own, a few are made ahead."""
        n_parts, world = self.run.settings.accumulation, self.run.world
        parts = (shared(part, world)[0] for draws in steps for part in divided(draws, n_parts))
        n_ahead = N_AHEAD.get(self.run.device.type, 0)
        return contextlib.closing(prepared(self.make_batch, parts, n_ahead))

    def step(self, draws: Draws, batches: Iterator[Batch]) -> Tensor:
        """One optimiser step on the samples of `draws`, of which every process takes its share from
        its `batches`. Does not synchronise with the GPU.

        Returns:
            this process's share of the mean loss, on the device.
        """
        s, network, world = self.run.settings, self.training.network, self.run.world
        weights = [shared(part, world)[1] for part in divided(draws, s.accumulation)]
        total = torch.zeros((), device=next(network.parameters()).device)
        self.training.optimizer.zero_grad(set_to_none=True)
        for number, weight in enumerate(weights, start=1):
            (batch,) = itertools.islice(batches, 1)
            with self._exchanging(number == len(weights)):
                stages = self.forward(*batch.measured, start=batch.start)
                if batch.hidden is None:
                    errors = [training_loss(images, batch.truth, s.loss) for images in stages]
                else:
                    errors = [batch_error(images, batch) for images in stages]
                losses = [error.sum() * weight / len(draws) for error in errors]
                loss = losses[-1]
                if s.stage_loss:
                    loss = loss + s.stage_loss * sum(losses[:-1])
                (loss * world.size).backward()  # the mean over processes is taken of gradients
            total = total + losses[-1].detach()
        if s.clip_gradient:
            nn.utils.clip_grad_norm_(network.parameters(), s.clip_gradient)
        self.training.optimizer.step()
        return total

    def done(self, draws: Draws, loss: Tensor) -> None:
        """Count a step, and move the average of the weights."""
        training = self.training
        if training.average is not None:
            steps = len(training.history) * self.run.n_steps + training.step
            update_average(training.average, training.network, self.run.settings.ema, steps)
        training.step += 1
        training.unread.append((training.step, [sample for _, sample in draws], loss))

    def losses_are_due(self) -> bool:
        """Whether to read the losses now: at intervals, because a GPU has to be waited for."""
        interval = READ_EVERY.get(self.run.device.type, 1)
        at_end = self.training.step == self.run.n_steps
        return at_end or len(self.training.unread) >= interval

    def read_losses(self) -> float:
        """Add the losses of the last steps to the epoch's; returns their mean over these steps."""
        run, training = self.run, self.training
        if not training.unread:
            return 0.0
        values = run.world.total(torch.stack([loss for _, _, loss in training.unread])).tolist()
        for (step, samples, _), loss in zip(training.unread, values, strict=True):
            epoch = len(training.history) + 1
            where = f"in epoch {epoch}, step {step}, on samples {name_list(samples)}"
            checks.check_finite(loss, where, run.folder, run.settings.initial_lr)
            training.epoch_loss += loss * len(samples)
        training.unread.clear()
        return sum(values) / len(values)

    def _exchanging(self, wanted: bool) -> contextlib.AbstractContextManager:
        """Whether gradients are exchanged in the backward pass of this block, if processes are."""
        if wanted or not isinstance(self.forward, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.forward.no_sync()
