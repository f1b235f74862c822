"""The parameters of the training-free methods, searched on training samples.

From its usual values, a method's parameters are changed one at a time, along the values of its grid
(`BASELINES`), as long as the mean PSNR of the first training samples rises. The search goes on
beyond the end of a grid, by the ratio of its last two values, and between the values around the
best, until at least `FEWEST` candidates were tried and none of the neighbours is better. Whole
numbers, such as steps, are only those of the grid, and come last. Each acceleration has a search of
its own.

To save time, the middle half of the columns is reconstructed: the columns are independent in the
physics, and thresholds depend on brightness, not on size.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from tqdm import tqdm

from data.batches import Batch
from methods.baselines import BASELINES, baseline
from metrics import psnr
from util.stop import NEVER, StopRequest

N_TUNING = 4  # training samples that parameters are searched on
FEWEST = 8  # candidates of a search
LEAST_GAIN = 0.01  # in dB, for which a search moves

Parameters = dict[str, float]


def available_baselines(
    chosen: Sequence[str] | None, real_image: bool, coils: bool = False
) -> list[str]:
    """Names of the `chosen` methods (None: all) that can be used with or without the real-image
    prior, and of one coil or several, in the order of `BASELINES`."""
    return [
        name
        for name, method in BASELINES.items()
        if (chosen is None or name in chosen)
        and (real_image or not method.real_image)
        and (coils or not method.needs_coils)
    ]


@torch.no_grad()
def tune(
    name: str,
    batches: Sequence[Batch],
    real_image: bool,
    stop: StopRequest = NEVER,
    known: Mapping[str, float] = MappingProxyType({}),
    found: Callable[[str, float], None] = lambda candidate, score: None,
) -> Parameters:
    """The parameters of the training-free method `name` with the highest mean PSNR on `batches`.

    The usual ones if there are no batches, or if the method has no grid.

    Args:
        known: mean PSNR of candidates, as text, from an earlier search that was stopped.
        found: called with each further one.
    """
    baseline(name, real_image)  # a ValueError if there is no such method, or not with this prior
    method = BASELINES[name]
    if not method.grid or not len(batches):
        return dict(method.usual)
    strips = [middle_columns(batch) for batch in batches]
    with tqdm(desc=f"tuning {name}", unit="candidate", disable=None) as bar:

        def mean_psnr(parameters: Parameters) -> float:
            candidate, scores = json.dumps(parameters), []
            if candidate in known:
                return known[candidate]
            for strip in strips:
                stop.check("before testing")
                images = baseline(name, real_image, **parameters)(*strip.measured)
                scores += psnr(images.abs(), strip.target).tolist()
            bar.update()
            mean = sum(scores) / len(scores)
            found(candidate, mean)
            return mean

        return search(mean_psnr, method.grid, method.usual)


def search(
    score: Callable[[Parameters], float],
    grid: Mapping[str, Sequence[float]],
    usual: Mapping[str, float],
) -> Parameters:
    """The parameters of the highest `score` that a search from the `usual` ones along the `grid`
    finds; see the top of this file."""
    axes = {name: sorted(values) for name, values in grid.items()}
    best = {name: usual[name] for name in axes}
    known = {tuple(best.values()): score(best)}

    def climbs(name: str, value: float) -> bool:
        """Take another value of a parameter, if it is better."""
        nonlocal best
        candidate = {**best, name: value}
        key = tuple(candidate.values())
        if key not in known:
            known[key] = score(candidate)
        if not known[key] > known[tuple(best.values())] + LEAST_GAIN:
            return False
        best = candidate
        return True

    searched = [name for name, axis in axes.items() if not is_fixed(axis)]
    settled = not searched
    while not settled:
        before = best
        for name in searched:
            for step in (1, -1):
                while climbs(name, neighbour(axes[name], best[name], step)):
                    pass
        settled = best == before and len(known) >= FEWEST
        if best == before:
            for name in searched:
                refine(axes[name], best[name])
    for name, axis in axes.items():
        for value in axis if name not in searched else ():
            climbs(name, value)
    return best


def neighbour(axis: list[float], value: float, step: int) -> float:
    """The next value of an axis, upwards or downwards (`step` is 1 or -1); beyond its ends, it goes
    on by the ratio of the last two values."""
    at = axis.index(value) + step
    if 0 <= at < len(axis):
        return axis[at]
    beyond = value * value / axis[at - 2 * step]
    axis.insert(max(0, at), beyond)
    return beyond


def refine(axis: list[float], value: float) -> None:
    """Insert the geometric means of a value and its neighbours."""
    axis += [math.sqrt(value * neighbour(axis, value, step)) for step in (1, -1)]
    axis.sort()


def is_fixed(axis: Sequence[float]) -> bool:
    """Whether the values of an axis are the only ones: whole numbers, a single one, or such that
    have no ratio."""
    return len(axis) < 2 or min(axis) <= 0 or all(isinstance(value, int) for value in axis)


def beyond_grid(grid: Mapping[str, Sequence[float]], values: Mapping[str, float]) -> list[str]:
    """The parameters whose values lie beyond those of the grid."""
    return [k for k, axis in grid.items() if not min(axis) <= values[k] <= max(axis)]


def middle_columns(batch: Batch) -> Batch:
    """The middle half of the columns."""
    image = batch.truth
    nx = image.shape[-1]
    columns = slice(nx // 4, nx - nx // 4)
    maps = None if batch.maps is None else batch.maps[..., columns]
    return dataclasses.replace(
        batch, image=image[..., columns], aliased=batch.aliased[..., columns], maps=maps
    )
