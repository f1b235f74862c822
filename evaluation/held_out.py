"""How well a method predicts measured lines that are held out: a score without the truth.

A share of the lines outside the centre is held out of each sample, the same for all methods; see
`methods/held_out.py`.
"""

import dataclasses
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from data.batches import Batch
from methods.held_out import (
    centre_lines,
    given_error,
    hidden_error,
    hold_out,
    line_weights,
    of_coils,
)
from metrics import SCORES, Score
from physics.coils import estimated_maps
from physics.fourier import undersample
from physics.sense import seen_by
from util.errors import InputError
from util.random_streams import Stream, generator

LEAST_ERROR = 1e-12  # of what is predicted exactly: 120 dB


def with_hidden_lines(batch: Batch, seen: Tensor, weight: Tensor) -> Batch:
    """Measured samples without some of their lines, which are the target; the truth is left out.

    `seen`: the other lines, (B, T, Y, 1). `weight`: of the error of each hidden line, 0 elsewhere.
    """
    given = undersample(batch.aliased, of_coils(seen, batch.maps))
    return dataclasses.replace(
        batch, image=batch.aliased, mask=seen, aliased=given, hidden=weight, start=None
    )


def with_held_out(batch: Batch, real_image: bool, data_seed: int) -> list[Batch]:
    """Each sample of a batch with a share of its lines held out, the same in every call; maps are
    estimated from the other lines.

    The weights are such that the error is that of a mean line, per pixel.
    """
    held = []
    for i, sample in enumerate(batch.samples):
        one, rng = batch.sample(i), generator(Stream.HELD_OUT_LINES, data_seed, sample)
        lines = hold_out(one.aliased, one.mask, one.maps, real_image, rng)
        weight = lines.lines * line_weights(lines.often)
        weight = weight * (weight.numel() / weight.sum().clamp(min=1e-9))
        given = with_hidden_lines(one, lines.seen, weight)
        if one.maps is not None:
            given.maps = estimated_maps(given.aliased, lines.seen)
        held.append(given)
    return held


def require_held_out(mask: Tensor, sample: int, real_image: bool) -> None:
    """Raise InputError if a mask (1, T, Y, 1) has no line that can be held out."""
    if not (mask.bool() & ~centre_lines(mask, real_image)).any():
        raise InputError(
            f"sample {sample} has no measured lines outside the centre; expected some, by which"
            " reconstructions are judged without a ground truth: leave this sample out, or give a"
            " smaller --sample-n if lines are simulated"
        )


def batch_error(images: Tensor, batch: Batch) -> Tensor:
    """The weighted error of the hidden lines of a batch, (B,), in reconstructions (B, T, Y, X).

    Of a batch that has its samples twice, the error of the other lines is added, (B / 2,).
    """
    assert batch.hidden is not None
    weight, seen = of_coils(batch.hidden, batch.maps), seen_by(images, batch.maps)
    if not batch.is_twice:
        return hidden_error(seen, batch.truth, weight)
    (one, again), (measured, _) = seen.chunk(2), batch.truth.chunk(2)
    given, more = batch.aliased.chunk(2)
    lines, _ = of_coils(batch.mask, batch.maps).chunk(2)
    error = hidden_error(one, measured, weight.chunk(2)[0])
    return error + given_error(one, again, measured, more - given, lines)


@torch.no_grad()
def held_out_psnr(method: Callable[..., Tensor], batches: Iterable[Batch]) -> list[float]:
    """-10 log10 of the mean squared error, in dB (peak of the images 1), of a tenth of the measured
    lines outside the centre, which are held out of what a method gets, weighted by how rarely their
    frequencies are measured. It includes the noise of these lines, which is the same for all
    methods. Not comparable with a PSNR against a ground truth.

    One value for each sample of batches of `with_held_out`; NaN if no line is held out.
    """
    scores: list[float] = []
    for batch in batches:
        start = {} if batch.start is None else {"start": batch.start}
        error = batch_error(method(*batch.measured, **start), batch).clamp(min=LEAST_ERROR)
        assert batch.hidden is not None
        some = batch.hidden.flatten(1).any(dim=1)
        scores += torch.where(some, -10 * error.log10(), torch.nan).tolist()
    return scores


HELD_OUT = "held_out"  # the score where there is no ground truth
WITHOUT_TRUTH = {
    HELD_OUT: Score(held_out_psnr, "held-out score (dB)", 2, compared=True, logged=True)
}


def score_named(name: str) -> Score:
    """The definition of a score of either kind."""
    return SCORES[name] if name in SCORES else WITHOUT_TRUTH[name]
