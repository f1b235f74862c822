"""The training-free methods of a run: which, and with which parameters.

The iterative methods have parameters. All combinations of a method's fixed grid (`BASELINES`), as
many for each method, are tried on the first training samples with masks of their own, and the
combination of the highest mean PSNR is taken, for each acceleration. What was found is cached.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from tqdm import tqdm

import runtime
from baselines import BASELINES
from batches import evaluation_batches
from cache import recall, remember
from fourier import Measured
from metrics import psnr
from run import Run

VERSION = 4  # to be raised when a baseline, a score or what is simulated changes
N_TUNING = 4  # training samples that parameters are searched on

Method = Callable[[Tensor, Tensor], Tensor]  # (aliased, mask) to images
Parameters = dict[str, float]


def chosen_baselines(run: Run) -> list[str]:
    """Names of the baselines that the settings ask for and the data allow."""
    wanted = tuple(BASELINES) if run.settings.baselines is None else run.settings.baselines
    return [
        name
        for name, baseline in BASELINES.items()
        if name in wanted and (run.settings.real_image or not baseline.real_image)
    ]


def baseline_method(run: Run, name: str, parameters: Parameters) -> Method:
    """A baseline with its parameters, called like a network."""
    return partial(_reconstruct, run, name, parameters)


def _reconstruct(
    run: Run, name: str, parameters: Parameters, aliased: Tensor, mask: Tensor
) -> Tensor:
    baseline = BASELINES[name]
    prior = run.settings.real_image if baseline.real_image is None else baseline.real_image
    return baseline.reconstruct(Measured(aliased, mask, prior), **parameters)


def tuned_parameters(run: Run, name: str, acc: float, stop: runtime.StopRequest) -> Parameters:
    """The best parameters on training samples; the usual ones where there is no training part.

    Raises:
        runtime.Interrupted: asked to stop.
    """
    baseline = BASELINES[name]
    samples = run.parts["train"][:N_TUNING]
    if not baseline.grid or not samples:
        return baseline.usual
    identity = {**identity_of(run, name, acc, samples), "grid": baseline.grid}
    found = recall(identity, dict)
    if found is None or found.keys() != baseline.grid.keys():
        found = _search(run, name, acc, samples, stop)
        remember(identity, found)
    return found


def _search(
    run: Run, name: str, acc: float, samples: Sequence[int], stop: runtime.StopRequest
) -> Parameters:
    grid = BASELINES[name].grid
    candidates = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    scores: list[list[float]] = [[] for _ in candidates]
    bar = tqdm(total=len(samples) * len(candidates), desc=f"tuning {name}", disable=None)
    for batch in evaluation_batches(run, samples, (acc, acc), size=1):
        for parameters, column in zip(candidates, scores, strict=True):
            if stop:
                bar.close()
                raise runtime.Interrupted(f"stopped by {stop.reason} before testing", run.folder)
            images = _reconstruct(run, name, parameters, batch.aliased, batch.mask)
            column.append(psnr(images.abs(), batch.target).item())
            bar.update()
    bar.close()
    return max(zip(candidates, scores, strict=True), key=lambda pair: sum(pair[1]))[0]


def describe_parameters(run: Run, found: Mapping[tuple[str, float], Parameters]) -> list[str]:
    """What the report says of the searched parameters, by method and acceleration, a line each."""
    samples = ", ".join(map(str, run.parts["train"][:N_TUNING]))
    lines = []
    for (name, acc), parameters in found.items():
        grid = BASELINES[name].grid
        if not grid:
            continue
        taken = ", ".join(f"{key} {value:g}" for key, value in parameters.items())
        searched = "usual values: there are no training samples to search on"
        if samples:
            values = ", ".join(f"{k} {' '.join(map(str, v))}" for k, v in grid.items())
            searched = f"the best on training samples {samples} of {values}"
        lines.append(f"{name}, acceleration {acc:g}: {taken} ({searched})")
    return lines


def identity_of(run: Run, name: str, acc: float, samples: Sequence[int]) -> dict[str, Any]:
    """All that the numbers of a baseline on these samples depend on."""
    s = run.settings
    return {
        "version": VERSION,
        "method": name,
        "shape": run.cine.shape,
        "samples": {str(i): run.cine.hashes[i] for i in samples},
        "acc": float(acc),
        "noise": float(s.noise),
        **{key: getattr(s, key) for key in ("sample_n", "data_seed", "phase", "real_image")},
        "versions": runtime.versions(),
        "hardware": runtime.hardware(run.device),
    }
