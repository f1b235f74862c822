"""The training-free methods of a run: which, with which parameters, and their cached scores.

The iterative methods have parameters. All combinations of a method's fixed grid (`BASELINES`), as
many for each method, are tried on the first training samples with masks of their own, and the
combination of the highest mean PSNR is taken. Parameters and scores are kept in `.baseline_cache/`
under everything that they depend on, so that a second run on the same data and masks computes
neither again.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from baselines import BASELINES
from batches import evaluation_batches
from errors import InputError
from fourier import Measured
from metrics import psnr
from run import Run
from runtime import whole_file

CACHE = Path(".baseline_cache")
VERSION = 1  # to be raised when a baseline, a score or what is simulated changes
Method = Callable[[Tensor, Tensor], Tensor]  # (aliased, mask) to images
N_TUNING = 4  # training samples that parameters are searched on


def chosen_baselines(run: Run) -> list[str]:
    """Names of the baselines that the settings ask for and the data allow."""
    wanted = tuple(BASELINES) if run.settings.baselines is None else run.settings.baselines
    return [
        name
        for name, baseline in BASELINES.items()
        if name in wanted and (run.settings.real_image or not baseline.real_image)
    ]


def reconstruct(
    run: Run, name: str, parameters: Mapping[str, float], aliased: Tensor, mask: Tensor
) -> Tensor:
    """The images (B, T, Y, X) of a baseline, as a network would return them."""
    baseline = BASELINES[name]
    prior = run.settings.real_image if baseline.real_image is None else baseline.real_image
    return baseline.reconstruct(Measured(aliased, mask, prior), **parameters)


def baseline_method(run: Run, name: str, acc: float) -> Method:
    """A baseline with its parameters for this acceleration, called like a network."""
    return partial(reconstruct, run, name, tuned_parameters(run, name, acc))


def tuned_parameters(run: Run, name: str, acc: float) -> dict[str, float]:
    """The best parameters on training samples; the usual ones where there is no training part."""
    baseline = BASELINES[name]
    samples = run.parts["train"][:N_TUNING]
    if not baseline.grid or not samples:
        return baseline.usual
    identity = {**_identity(run, name, acc, samples), "grid": baseline.grid}
    found = recall(identity)
    if found is None:
        found = _search(run, name, acc, samples)
        remember(identity, found)
    return found


def _search(run: Run, name: str, acc: float, samples: Sequence[int]) -> dict[str, float]:
    grid = BASELINES[name].grid
    candidates = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    scores: list[list[float]] = [[] for _ in candidates]
    bar = tqdm(total=len(samples) * len(candidates), desc=f"tuning {name}", disable=None)
    for batch in evaluation_batches(run, samples, (acc, acc), size=1):
        for parameters, column in zip(candidates, scores, strict=True):
            images = reconstruct(run, name, parameters, batch.aliased, batch.mask)
            column.append(psnr(images.abs(), batch.target).item())
            bar.update()
    bar.close()
    return max(zip(candidates, scores, strict=True), key=lambda pair: sum(pair[1]))[0]


def describe_baselines(run: Run, names: Sequence[str], accelerations: Sequence[float]) -> list[str]:
    """What the report says of the searched parameters, a line for each method and acceleration."""
    samples = run.parts["train"][:N_TUNING]
    lines = []
    for name in names:
        grid = BASELINES[name].grid
        if not grid:
            continue
        searched = "usual values: there are no training samples to search on"
        if samples:
            values = ", ".join(f"{k} {' '.join(map(str, v))}" for k, v in grid.items())
            searched = f"the best on training samples {', '.join(map(str, samples))} of {values}"
        for acc in accelerations:
            chosen = tuned_parameters(run, name, acc)
            taken = ", ".join(f"{key} {value:g}" for key, value in chosen.items())
            lines.append(f"{name}, acceleration {acc:g}: {taken} ({searched})")
    return lines


def scores_identity(run: Run, name: str, acc: float) -> dict[str, Any]:
    """What the scores of a baseline on the test part are remembered under."""
    identity = _identity(run, name, acc, run.parts["test"])
    return identity | {"parameters": tuned_parameters(run, name, acc)}


def _identity(run: Run, name: str, acc: float, samples: Sequence[int]) -> dict[str, Any]:
    """All that the numbers of a baseline on these samples depend on."""
    s = run.settings
    return {
        "version": VERSION,
        "method": name,
        "samples": {i: run.cine.hashes[i] for i in samples},
        "acc": acc,
        **{k: getattr(s, k) for k in ("sample_n", "data_seed", "phase", "noise", "real_image")},
        "torch": str(torch.__version__),
        "device": run.device.type,
    }


def _cache_file(identity: Mapping[str, Any]) -> Path:
    text = json.dumps(identity, sort_keys=True)
    return CACHE / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def recall(identity: Mapping[str, Any]) -> Any:
    """What was remembered under `identity`; None if nothing, or nothing legible."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads(_cache_file(identity).read_bytes())["found"]
    return None


def remember(identity: Mapping[str, Any], found: Any) -> None:
    """Keep what was found; not where the folder cannot be written, since it is only a cache."""
    with contextlib.suppress(OSError, InputError):
        CACHE.mkdir(exist_ok=True)
        content = json.dumps({"identity": identity, "found": found}, indent=1)
        with whole_file(_cache_file(identity)) as file:
            file.write(content.encode())
