"""The training loop: epochs of optimiser steps, each followed by validation and a checkpoint."""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from torch import nn

from data.batches import Batch, Draws, epoch_draws
from evaluation.held_out import held_out_psnr
from evaluation.scoring import Example, validate
from methods.baselines import Method
from model import compile_parts, run_network
from training import checkpoint as ckpt
from training import checks
from training.loading import batch_maker, held_out_validation, validation_batches
from training.optimisation import learning_rate, make_optimizer
from training.run import Run, Training, restore, save
from training.step import Stepper
from util.errors import Interrupted
from util.memory import peak_memory
from util.stop import StopRequest

SAVE_SECONDS = 60  # after which the state of training is saved: so much is lost


class Listener(Protocol):
    """What is told of the progress of training (`report/report.py`)."""

    def begin(self, history: list[dict[str, float]], n_done: int) -> None:
        """Training begins, or goes on after `n_done` steps."""

    def step(self, n: int, loss: float, seconds: float) -> None:
        """`n` steps were taken in `seconds`; `loss`: their mean."""

    def n_examples(self, epoch: int) -> int:
        """Number of validation samples to show after an epoch."""

    def epoch(self, entry: Mapping[str, float], examples: Sequence[Example]) -> None:
        """An epoch has ended, whose `entry` is the last of the history."""

    def write(self) -> None:
        """Training is interrupted."""


Log = Callable[[dict[str, float]], object]  # the user's function, called with every epoch


def fit(
    run: Run, network: nn.Module, report: Listener, stop: StopRequest, log: Log | None = None
) -> nn.Module:
    """Train from the last checkpoint, or from the start, to the last epoch.

    Returns:
        the network of the best epoch on the validation part.
    """
    s = run.settings
    average = copy.deepcopy(network) if s.ema else None
    if average is not None and s.compile:
        compile_parts(average)
    training = Training(network, average, make_optimizer(network, s.initial_lr, s.weight_decay))
    restore(run, training)
    stepper = Stepper(run, training, batch_maker(run))
    validation, held_out = validation_batches(run), held_out_validation(run)
    first = len(training.history)
    report.begin(training.history, first * run.n_steps + training.step)
    steps = (draws for epoch in range(first, s.num_epochs) for draws in steps_of(run, epoch))
    with stepper.batches(itertools.islice(steps, training.step, None)) as batches:
        for epoch in range(first, s.num_epochs):
            train_epoch(run, training, stepper, batches, report, stop)
            examples: Sequence[Example] = ()
            if validated := (epoch + 1) % s.validate_every == 0 or epoch + 1 == s.num_epochs:
                n_shown = report.n_examples(epoch + 1)
                examples = validate_epoch(run, training, validation, held_out, n_shown)
            entry = close_epoch(run, training, validated)
            report.epoch(entry, examples)
            if log is not None:
                call_log(run, training, log, entry)
    run.world.wait()  # until the checkpoint is written
    best = ckpt.load_checkpoint(run.folder / ckpt.BEST)
    ckpt.load_weights(training.evaluated, best, run.folder / ckpt.BEST)
    return training.evaluated


def train_epoch(
    run: Run,
    training: Training,
    stepper: Stepper,
    batches: Iterator[Batch],
    report: Listener,
    stop: StopRequest,
) -> None:
    """Train for the rest of an epoch, on the next of the `batches`; save and raise `Interrupted` if
    asked to stop."""
    s, epoch = run.settings, len(training.history)
    training.network.train()
    started, n_read = time.perf_counter(), training.step
    for draws in steps_of(run, epoch)[training.step :]:
        if asked_to_stop(run, training, stop):
            stepper.read_losses()
            save(run, training, ckpt.LAST)
            report.write()
            run.world.wait()  # torchrun stops all when the first of them ends
            stop.end(f"in epoch {epoch + 1}, after {training.step} of {run.n_steps} steps")
        position = epoch + (training.step + 0.5) / run.n_steps
        rate = learning_rate(position, s.initial_lr, s.lr_schedule, s.warmup_epochs, s.num_epochs)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        stepper.done(draws, stepper.step(draws, batches))
        stop.progressed(step=True)
        if stepper.losses_are_due():
            loss, seconds = stepper.read_losses(), time.perf_counter() - started
            training.epoch_seconds += seconds
            report.step(training.step - n_read, loss, seconds)
            is_between = training.step < run.n_steps
            if is_between and save_is_due(run, training) and is_finite(training.network):
                save(run, training, ckpt.LAST)
            started, n_read = time.perf_counter(), training.step


def steps_of(run: Run, epoch: int) -> list[Draws]:
    """The draws of every optimiser step of an epoch."""
    size = run.settings.batch_size
    order = epoch_draws(run.parts["train"], run.settings.seed, epoch, run.n_rounds)
    return [order[i : i + size] for i in range(0, len(order), size)]


def asked_to_stop(run: Run, training: Training, stop: StopRequest) -> bool:
    """Whether a process was asked to stop, and why; several processes agree on it whenever they
    read the losses, which makes them wait for one another anyway."""
    if run.world.size > 1 and training.unread:
        return False
    if not run.world.any(stop.requested()):
        return False
    stop.reason = next(filter(None, run.world.gathered(stop.reason)))
    return True


def validate_epoch(
    run: Run,
    training: Training,
    batches: Sequence[Batch],
    held_out: Iterable[Batch],
    n_examples: int,
) -> list[Example]:
    """Score the validation part, by held-out lines too if there are such; returns its first
    samples, as many as are to be shown."""
    started, epoch = time.perf_counter(), len(training.history) + 1
    run.world.copy_first(list(training.evaluated.buffers()))
    method = as_method(training.evaluated, run.settings.precision)
    training.scores, examples = validate(method, batches, n_examples, run.world)
    if run.by_hidden_lines:
        of_lines = run.world.merged(held_out_psnr(method, held_out))
        training.scores["held_out"] = sum(of_lines) / len(of_lines)
    training.epoch_seconds += time.perf_counter() - started
    where = f"after epoch {epoch}, in validation"
    judged = training.scores["held_out" if run.cine.is_undersampled else "loss"]
    checks.check_finite(judged, where, run.folder, run.settings.initial_lr)
    return examples


def close_epoch(run: Run, training: Training, validated: bool) -> dict[str, float]:
    """Save an epoch that has ended; returns its entry in the history."""
    epoch = len(training.history) + 1
    if not is_finite(training.network):
        where = f"soon: weights are not finite after epoch {epoch}"
        checks.check_finite(math.nan, where, run.folder, run.settings.initial_lr)
    entry = {
        "epoch": epoch,
        "train/loss": training.epoch_loss / (run.n_rounds * len(run.parts["train"])),
        "learning_rate": training.optimizer.param_groups[0]["lr"],
    }
    if validated:
        entry |= {f"validation/{name}": value for name, value in training.scores.items()}
    entry |= {"seconds": training.epoch_seconds, "peak_memory": peak_memory(run.device)}
    training.history.append(entry)
    training.step, training.epoch_loss, training.epoch_seconds = 0, 0.0, 0.0
    merit = training.scores["held_out" if run.by_hidden_lines else "psnr"] if validated else None
    if merit is not None and merit > training.best_psnr:
        training.best_psnr = merit
        save(run, training, ckpt.BEST)
    if epoch == run.settings.num_epochs or save_is_due(run, training):
        save(run, training, ckpt.LAST)
    return entry


def save_is_due(run: Run, training: Training) -> bool:
    """Whether the last save was so long ago that all processes should save the state."""
    return run.world.from_first(time.monotonic() - training.saved >= SAVE_SECONDS)


def is_finite(network: nn.Module) -> bool:
    """Whether all weights are finite numbers."""
    return all(bool(parameter.isfinite().all()) for parameter in network.parameters())


def call_log(run: Run, training: Training, log: Log, entry: dict[str, float]) -> None:
    """Call the user's function in the first process; if it raises, save the state of training and
    raise the same."""
    error = None
    if run.world.is_first:
        try:
            log(dict(entry))
        except Exception as raised:
            error = raised
    if run.world.any(error is not None):
        save(run, training, ckpt.LAST)
        run.world.wait()  # torchrun stops all when the first of them ends
        raise error or Interrupted("the function `log` has raised an error in the first process")


def as_method(network: nn.Module, precision: str) -> Method:
    """A network as a function of `(aliased, mask)`, in evaluation mode."""
    return partial(run_network, network.eval(), precision=precision)
