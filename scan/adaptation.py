"""Scan-specific fine-tuning of a network, on the measured lines of the scan alone.

In every step a part of the measured lines is hidden from the network, which is trained to predict
them; others, never used for training, decide when to stop and which weights are kept. The truth is
never needed.

Hidden lines stand for those that were not measured, and are weighted accordingly (see
`methods/held_out.py`). Frequencies that no frame measured teach nothing: there the network is held
to what it gave before, or it would fill them with noise.

References:
  B. Yaman et al., "Self-supervised learning of physics-guided reconstruction neural networks
    without fully sampled reference data", Magn Reson Med 84:3172-3191, 2020, and
  "Zero-shot self-supervised learning for MRI reconstruction", ICLR 2022.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from methods.baselines import Method
from methods.held_out import (
    hold_out,
    line_error,
    line_errors,
    line_weights,
    of_coils,
    random_lines,
)
from methods.start import initial_images
from model import run_network
from physics.fourier import undersample
from physics.sense import as_measured, measurement_of, seen_by
from scan.measurement import Measurement
from training.cuda_graph import recorded
from training.optimisation import make_optimizer, update_average
from util.progress import counted, duration, log
from util.random_streams import Stream, generator
from util.stop import StopRequest

HIDDEN = 0.25  # of the lines outside the centre, in a step
STRIP, BATCH = 32, 2  # columns of a strip, strips in a step
RATE, WARM_UP = 5e-4, 20  # learning rate, and steps until it is reached
CLIP, AVERAGE = 0.01, 0.95  # gradient norm, decay of the average
ANCHOR = 0.1  # weight of what changes in lines that no frame measured
CHECK_EVERY, PATIENCE = 20, 5  # steps between checks, and checks without a gain before it stops
SERIES_A_CHECK = 4  # a check of more series takes long: it waits for as many more steps
LOG_EVERY = 30  # seconds
RECORDING = ("cuda",)  # types of device whose steps are recorded as CUDA graphs


@dataclass
class Adapted:
    """An adapted network, and what the adaptation brought."""

    network: nn.Module
    series: int  # that it was adapted to
    steps: int  # done
    best: int  # the step of the least error; 0: none is below that of the initial weights
    before: float  # mean squared error of the held-out lines
    after: float  # the least
    gain: float  # in dB, mean over the held-out lines
    gain_error: float  # its standard error

    @property
    def is_better(self) -> bool:
        """Whether the gain is more than its standard error; if not, the weights are unchanged."""
        return self.gain > self.gain_error


@dataclass
class DividedLines:
    """The measured lines of a series, divided; lines are (1, T, Y, 1), centred."""

    measured: Tensor  # (1, T, Y, X) complex64: the images aliased by all measured lines
    given: Tensor  # the same of those that training may use
    seen: Tensor  # float32: these lines
    free: Tensor  # bool: those of them that a step may hide
    held_out: Tensor  # bool
    weight: Tensor  # (1, 1, Y, 1): of a line's error
    unknown: Tensor  # (1, 1, Y, 1) bool: lines that no frame measured
    before: Tensor  # (1, T, Y, X): the images that the network gave before, from `given`
    maps: Tensor | None  # (1, C, Y, X); None: images of one coil, else the first two are of coils


@torch.no_grad()
def divided_lines(
    measurement: Measurement,
    network: nn.Module,
    real_image: bool,
    precision: str,
    rng: np.random.Generator,
) -> DividedLines:
    """Hold out a share of the measured lines; `real_image`: whether the network assumes real-valued
    images, so that a line determines its conjugate partner."""
    held = hold_out(measurement.aliased, measurement.mask, measurement.maps, real_image, rng)
    return DividedLines(
        measured=measurement.aliased,
        given=held.given,
        seen=held.seen,
        free=held.outside & ~held.lines,
        held_out=held.lines,
        weight=line_weights(held.often),
        unknown=held.often == 0,
        before=run_network(
            network, *as_measured(held.given, held.seen, measurement.maps), precision=precision
        ),
        maps=measurement.maps,
    )


def adapt(
    network: nn.Module,
    measurements: Sequence[Measurement],
    real_image: bool,
    max_minutes: float,
    precision: str,
    seed: int,
    stop: StopRequest,
) -> Adapted:
    """Fine-tune a copy of the network on the series of a scan together, until their held-out lines
    gain nothing more, or for at most `max_minutes`. Unless this limit is reached, the result
    depends on the seed alone.

    Series of too few lines to hold some out are left aside; without any other the network is
    returned as it is. A request to stop ends it early. `real_image`: see `divided_lines`.
    """
    started = said = time.monotonic()
    rng = generator(Stream.ADAPTATION, seed)
    network = network.eval()
    series = [divided_lines(one, network, real_image, precision, rng) for one in measurements]
    series = [lines for lines in series if lines.held_out.any() and lines.free.any()]
    if not series:
        return Adapted(network, 0, 0, 0, math.nan, math.nan, math.nan, math.nan)
    check_every = CHECK_EVERY * -(-len(series) // SERIES_A_CHECK)

    def errors(judged: nn.Module) -> Tensor:
        every = torch.cat([held_out_errors(judged, lines, precision) for lines in series])
        return every / len(series)

    before = least = errors(network)
    total = before.sum().item()
    best = Adapted(network, len(series), 0, 0, total, total, 0.0, 0.0)
    trained = copy.deepcopy(network)  # in evaluation mode: batch norm, if any, keeps its statistics
    average = copy.deepcopy(trained)
    optimizer = make_optimizer(trained, RATE, weight_decay=0.0)
    forward = step_forward(trained, series[0], precision)
    step, ended = 0, False
    while not ended:
        ended = time.monotonic() - started >= 60 * max_minutes or stop.requested()
        if not ended:
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (step + 1) / WARM_UP)
            lines = series[rng.integers(len(series))]
            adaptation_step(trained, forward, optimizer, lines, rng)
            update_average(average, trained, AVERAGE, step)
            step += 1
        if step % check_every and not ended:
            continue
        if step > best.steps:  # not judged yet
            best.steps, now = step, errors(average)
            if now.sum() < least.sum():
                least, gain = now, 10 * (before / now).log10()
                best = Adapted(
                    network=copy.deepcopy(average),
                    series=len(series),
                    steps=step,
                    best=step,
                    before=total,
                    after=now.sum().item(),
                    gain=gain.mean().item(),
                    gain_error=gain.std().item() / math.sqrt(len(gain)),
                )
        ended = ended or step - best.best >= PATIENCE * check_every
        if time.monotonic() - said > LOG_EVERY:
            said = time.monotonic()
            left = max(0, started + 60 * max_minutes - said)
            log(f"adaptation: {counted(step, 'step')}, at most {duration(left)} left")
    return best if best.is_better else dataclasses.replace(best, network=network)


@torch.no_grad()
def held_out_errors(network: nn.Module, lines: DividedLines, precision: str) -> Tensor:
    """The part of each held-out line (N,) in the mean squared error of those of a series, predicted
    from the others."""
    maps = lines.maps
    images = run_network(network, *as_measured(lines.given, lines.seen, maps), precision=precision)
    weight = of_coils(lines.held_out * lines.weight, maps)
    by_line = line_errors(seen_by(images, maps), lines.measured, weight)  # (1, T, [C,] Y)
    if maps is not None:
        by_line = by_line.sum(dim=2)
    return by_line[torch.fft.ifftshift(lines.held_out[..., 0], dim=-1)].double()


def step_forward(network: nn.Module, lines: DividedLines, precision: str) -> Method:
    """The network as a step calls it: on a GPU as a CUDA graph, of one coil, if the network is for
    that; its start is made before."""
    plain = partial(run_network, network, precision=precision)
    device, is_graph = lines.given.device, getattr(network, "OWN", {}).get("cuda_graph")
    if device.type not in RECORDING or lines.maps is not None or not is_graph:
        return plain
    *_, n_frames, ny, nx = lines.given.shape
    shape = BATCH, n_frames, ny, min(STRIP, nx)
    name, is_real = str(network.start), bool(network.real_image)
    start = torch.zeros(shape, dtype=torch.float32 if is_real else torch.complex64)
    replayed = recorded(network, shape, precision, device, start, training=False)

    def forward(aliased: Tensor, mask: Tensor) -> Tensor:
        start = initial_images(name, measurement_of(aliased, mask, None, is_real))
        return replayed(aliased, mask, start=start)[-1]

    return forward


def adaptation_step(
    network: nn.Module,
    forward: Method,
    optimizer: torch.optim.Optimizer,
    lines: DividedLines,
    rng: np.random.Generator,
) -> None:
    """A step on strips of a series, each with other hidden lines.

    `forward`: of `step_forward`.

    Undersampling and data consistency are exact on strips (see `physics/consistency.py`).
    """
    nx = lines.given.shape[-1]
    width = min(STRIP, nx)
    starts = rng.integers(nx - width + 1, size=BATCH)

    def strips_of(images: Tensor) -> Tensor:
        return torch.cat([images[..., start : start + width] for start in starts])

    strips, before = strips_of(lines.given), strips_of(lines.before)
    hidden = torch.cat([lines.free & random_lines(lines.free, HIDDEN, rng) for _ in starts])
    seen = lines.seen * ~hidden
    optimizer.zero_grad(set_to_none=True)
    maps = None if lines.maps is None else strips_of(lines.maps)
    given = undersample(strips, of_coils(seen, maps))
    images = forward(*as_measured(given, seen, maps))
    error = line_error(seen_by(images, maps), strips, of_coils(hidden * lines.weight, maps))
    error = error + ANCHOR * line_error(images, before, lines.unknown.expand_as(hidden))
    error.backward()
    nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    optimizer.step()
