"""Scan-specific fine-tuning of a network, on the measured lines of the scan alone.

In every step a part of the measured lines is hidden from the network, which is trained to predict
them; others, never used for training, decide when to stop and which weights are kept. The truth is
never needed.

Hidden lines stand for those that were not measured, but most measured lines are near the centre of
k-space. So the error of a line is weighted by the inverse of how often its frequency is measured
(inverse probability weighting). Frequencies that no frame measured teach nothing: there the network
is held to what it gave before, or it would fill them with noise.

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

import numpy as np
import torch
from torch import Tensor, nn

from CS_mask import hermitian_mirror
from model import run_network
from physics.fourier import in_single, undersample
from physics.sense import as_measured, seen_by
from scan.measurement import Measurement
from training.optimisation import make_optimizer, update_average
from util.progress import duration, log
from util.random_streams import Stream, generator
from util.stop import StopRequest

HELD_OUT, HIDDEN = 0.1, 0.25  # of the lines outside the centre: throughout, and in a step
SMALLEST_CENTRE = 3  # lines around zero frequency that are never hidden
STRIP, BATCH = 32, 2  # columns of a strip, strips in a step
RATE, WARM_UP = 5e-4, 20  # learning rate, and steps until it is reached
CLIP, AVERAGE = 0.01, 0.95  # gradient norm, decay of the average
ANCHOR = 0.1  # weight of what changes in lines that no frame measured
SMOOTH, RAREST = 4.0, 0.02  # lines over which the weight is smoothed; share of frames at least
CHECK_EVERY, PATIENCE = 20, 5  # steps between checks, and checks without a gain before it stops
SERIES_A_CHECK = 4  # a check of more series takes long: it waits for as many more steps
LOG_EVERY = 30  # seconds


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


@dataclass
class HeldOut:
    """A share of the measured lines held out; lines are (1, T, Y, 1), centred."""

    lines: Tensor  # bool: those held out
    seen: Tensor  # float32: the others
    # (1, T, Y, X) complex64: the images aliased by the others; of coils (1, T, C, Y, X)
    given: Tensor
    outside: Tensor  # bool: all measured lines outside the centre
    often: Tensor  # (1, 1, Y, 1): share of the frames that measured a line


def hold_out(measurement: Measurement, real_image: bool, rng: np.random.Generator) -> HeldOut:
    """Hold out a share of the lines outside the centre; `real_image`: a line determines its
    conjugate-symmetric partner."""
    outside = measurement.mask.bool() & ~centre_lines(measurement.mask)
    lines = outside & random_lines(outside, HELD_OUT, rng)
    seen = measurement.mask * ~lines
    given = undersample(measurement.aliased, of_coils(seen, measurement.maps))
    often = measurement.mask.mean(dim=1, keepdim=True)
    if real_image:
        often = torch.maximum(often, hermitian_mirror(often))
    return HeldOut(lines, seen, given, outside, often)


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
    held = hold_out(measurement, real_image, rng)
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


def line_weights(often: Tensor) -> Tensor:
    """The weight of the error of each line, (1, 1, Y, 1): the inverse of how often its frequency is
    measured, `often`, smoothed over frequencies; at most `1 / RAREST`."""
    line = torch.arange(often.shape[2], dtype=torch.float32, device=often.device)
    near = (-0.5 * ((line[:, None] - line) / SMOOTH) ** 2).exp()
    smooth = (near / near.sum(dim=1, keepdim=True)) @ often
    return 1 / smooth.clamp(min=RAREST)


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
    step, ended = 0, False
    while not ended:
        ended = time.monotonic() - started >= 60 * max_minutes or stop.requested()
        if not ended:
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (step + 1) / WARM_UP)
            adaptation_step(trained, optimizer, series[rng.integers(len(series))], precision, rng)
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
            log(f"adaptation: {step} steps, at most {duration(left)} left")
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


def adaptation_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    lines: DividedLines,
    precision: str,
    rng: np.random.Generator,
) -> None:
    """A step on strips of a series, each with other hidden lines.

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
    images = run_network(network, *as_measured(given, seen, maps), precision=precision)
    error = line_error(seen_by(images, maps), strips, of_coils(hidden * lines.weight, maps))
    error = error + ANCHOR * line_error(images, before, lines.unknown.expand_as(hidden))
    error.backward()
    nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    optimizer.step()


def of_coils(lines: Tensor, maps: Tensor | None) -> Tensor:
    """Lines (B, T, Y, 1) as those of coil images, (B, T, 1, Y, 1), if there are maps."""
    return lines if maps is None else lines[:, :, None]


def line_errors(images: Tensor, others: Tensor, weight: Tensor) -> Tensor:
    """The part of each line, zero frequency first, in the mean squared difference of some lines of
    images (B, T, Y, X), real or complex, or coil images (B, T, C, Y, X).

    `weight`: (B, T, Y, 1) or (B, T, 1, Y, 1), centred; of each line, 0 for those that do not count.
    In orthonormal k-space the sum is the error per pixel that these lines contribute, if all lines
    had as much.
    """
    difference = torch.fft.fft(in_single(images) - in_single(others), dim=-2, norm="ortho")
    energy = torch.fft.ifftshift(weight, dim=-2) * difference.abs().square()
    return energy.sum(dim=-1) / (weight.sum().clamp(min=1e-9) * images.shape[-1])


def line_error(images: Tensor, others: Tensor, weight: Tensor) -> Tensor:
    """The mean squared difference of some lines; see `line_errors`."""
    return line_errors(images, others, weight).sum()


def centre_lines(mask: Tensor) -> Tensor:
    """The lines around zero frequency that all frames measured, (1, 1, Y, 1) bool; at least
    `SMALLEST_CENTRE`."""
    ny = mask.shape[-2]
    always = mask.bool().all(dim=1)[0, :, 0].tolist()
    first = end = ny // 2
    while end < ny and always[end]:
        end += 1
    while first > 0 and always[first - 1]:
        first -= 1
    centre = torch.zeros(ny, dtype=torch.bool, device=mask.device)
    centre[first:end] = True
    half = SMALLEST_CENTRE // 2
    centre[max(0, ny // 2 - half) : ny // 2 + half + 1] = True
    lines = centre[None, None, :, None]
    return lines | hermitian_mirror(lines)


def random_lines(lines: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Random lines of every frame, (1, T, Y, 1) bool, a line and its conjugate-symmetric partner
    always together: with the real-image prior one gives the other."""
    n_frames, ny = lines.shape[1:3]
    frequency = (torch.arange(ny) - ny // 2).abs()  # 0 to Y // 2
    chosen = torch.from_numpy(rng.random((n_frames, ny // 2 + 1)) < share)
    return chosen[:, frequency][None, ..., None].to(lines.device)
