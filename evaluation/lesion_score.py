"""The lesion test: how much of the contrast of a small lesion each method keeps."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data.batches import Batch, EvaluationBatches
from evaluation.by_sample import Row, rows_by_sample
from evaluation.intervals import spread
from evaluation.lesion import CONTRASTS, DIAMETERS, find_path, ghost_contrast, kept_contrast, lesion
from methods.baselines import Method
from physics.sense import aliased_by
from util.journal import Journal
from util.stop import NEVER, StopRequest
from util.world import ALONE, World


def lesion_rows(
    methods: Mapping[str, Method],
    batches: EvaluationBatches,
    stop: StopRequest = NEVER,
    journal: Journal | None = None,
    world: World = ALONE,
) -> list[Row]:
    """Rows for `lesions.csv`: the contrast that each method keeps of each lesion in each frame.

    Args:
        batches: of one sample each.
        journal: of an earlier call that was stopped; rows in it are not computed again.
        world: the processes that share the work; the first alone has the journal and the rows.
    """

    def of_sample(batch: Batch) -> tuple[list[Row], None]:
        return _rows_of_sample(methods, batch, stop), None

    return rows_by_sample(of_sample, batches, "lesions", list(methods), stop, journal, world)


@torch.no_grad()
def _rows_of_sample(methods: Mapping[str, Method], batch: Batch, stop: StopRequest) -> list[Row]:
    rows: list[Row] = []
    truth = batch.target[0]
    path = find_path(truth)
    phase = batch.truth.sgn() if batch.truth.is_complex() else 1.0
    plain = {name: method(*batch.measured).abs()[0] for name, method in methods.items()}
    for diameter, contrast in itertools.product(DIAMETERS, CONTRASTS):
        stop.check("while testing")
        added = lesion(truth, path, diameter, contrast)
        # undersampling is linear: the aliased image of the sum is the sum
        change = aliased_by(added * phase, *batch.measured[1:])
        measured = batch.aliased + change, *batch.measured[1:]
        for name, method in methods.items():
            difference = method(*measured).abs()[0] - plain[name]
            kept = kept_contrast(difference, added).tolist()
            ghost = ghost_contrast(difference, added).tolist()
            rows += [
                {
                    "sample": batch.samples[0],
                    **batch.condition._asdict(),
                    "method": name,
                    "diameter": diameter,
                    "contrast": contrast,
                    "frame": frame,
                    "kept": kept[frame],
                    "ghost": ghost[frame],
                }
                for frame in range(len(kept))
            ]
    return rows


@dataclass
class KeptContrast:
    """The fraction of the contrast that a method keeps, for lesions of one diameter."""

    mean: float  # over samples, of the mean over frames and contrasts
    std: float  # over samples, n - 1; NaN for a single one
    worst_frame: float  # mean over samples of the worst frame
    ghost: float  # mean over all; NaN if it could not be measured


def kept_contrasts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[float, KeptContrast]]:
    """{method: {diameter: KeptContrast}} from the rows of `lesions.csv`. A diameter is left out if
    no lesion of it could be added to any sample."""
    samples: dict[tuple[str, float], dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        if not np.isnan(row["kept"]):
            by_sample = samples.setdefault((row["method"], row["diameter"]), {})
            by_sample.setdefault(row["sample"], []).append(row)
    result: dict[str, dict[float, KeptContrast]] = {row["method"]: {} for row in rows}
    for (method, diameter), by_sample in samples.items():
        kept = np.array([np.mean([row["kept"] for row in group]) for group in by_sample.values()])
        worst = [min(row["kept"] for row in group) for group in by_sample.values()]
        ghosts = np.array([row["ghost"] for group in by_sample.values() for row in group])
        ghosts = ghosts[~np.isnan(ghosts)]
        result[method][diameter] = KeptContrast(
            mean=float(kept.mean()),
            std=spread(kept),
            worst_frame=float(np.mean(worst)),
            ghost=float(ghosts.mean()) if len(ghosts) else float("nan"),
        )
    return result
