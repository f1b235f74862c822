"""The training-free method for a scan, chosen without its truth.

A share of the measured lines outside the centre is held out; the method whose images predict them
best is taken (see `methods/held_out.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evaluation.tuning import available_baselines
from methods.baselines import BASELINES, baseline
from methods.held_out import hold_out, line_error, line_weights, of_coils
from physics.sense import as_measured, seen_by
from scan.measurement import Measurement
from util.errors import InputError
from util.random_streams import Stream, generator

BEST_AS_A_RULE = "patch_low_rank"  # where no lines can be held out


@dataclass(frozen=True)
class ChosenMethod:
    """A training-free method, and what it was compared with."""

    name: str
    # mean squared error of held-out lines by method; empty: no lines; None: there was no choice
    errors: dict[str, float] | None

    @property
    def line(self) -> str:
        """The choice in words."""
        if self.errors is None:
            return f"training-free method: {self.name}, the only one"
        if not self.errors:
            return f"training-free method: {self.name}; too few measured lines to hold some out"
        least = self.errors[self.name]
        others = ", ".join(
            f"{name} {10 * math.log10(max(error, 1e-12) / max(least, 1e-12)):+.2f}"
            for name, error in sorted(self.errors.items(), key=lambda item: item[1])
            if name != self.name
        )
        return (
            f"training-free method: {self.name}, which predicts held-out measured lines best;"
            f" errors of the others in dB above it: {others}"
        )


@torch.no_grad()
def best_training_free(
    measurement: Measurement, seed: int, names: Sequence[str] | None = None
) -> ChosenMethod:
    """The training-free method that predicts held-out lines best, each with its usual parameters.

    `names`: of the methods; None: all iterative ones. Those that these data do not allow are left
    out.

    Raises:
        InputError: none is left.
    """
    coils, given = measurement.maps is not None, names is not None
    names = available_baselines(names, measurement.is_real, coils)
    names = [name for name in names if given or BASELINES[name].grid]
    if not names:
        of_one = "real-valued images" if measurement.is_real else "complex images"
        kind = "several coils" if coils else of_one
        raise InputError(f"none of --baselines is for {kind}: leave it out for all that are")
    if len(names) == 1:
        return ChosenMethod(names[0], None)
    rng = generator(Stream.HELD_OUT, seed)
    held = hold_out(
        measurement.aliased, measurement.mask, measurement.maps, measurement.is_real, rng
    )
    if not held.lines.any():
        return ChosenMethod(BEST_AS_A_RULE if BEST_AS_A_RULE in names else names[-1], {})
    weight = of_coils(held.lines * line_weights(held.often), measurement.maps)
    errors = {}
    for name in names:
        method = baseline(name, measurement.is_real)
        images = method(*as_measured(held.given, held.seen, measurement.maps))
        predicted = seen_by(images, measurement.maps)
        errors[name] = line_error(predicted, measurement.aliased, weight).item()
    return ChosenMethod(min(errors, key=lambda name: errors[name]), errors)
