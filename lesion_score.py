"""The lesion test of a run: how much of a small lesion's contrast each method keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from batches import evaluation_batches
from comparison import spread
from fourier import undersample
from lesion import CONTRASTS, DIAMETERS, find_path, ghost_contrast, kept_contrast, lesion
from run import Run
from runtime import Interrupted, StopRequest
from tuning import Method

MEANING = f"""\
A disc of contrast {" or ".join(f"{c:+g}" for c in CONTRASTS)} (images are in [0, 1]), with a smooth
edge, is put into each test sample at a point of the heart that can be followed, found without a
segmentation and so not always in the wall, and moves with it. Each series is reconstructed with
and without it. kept: the share of its contrast in the difference of the two, mean over frames and
contrasts, ± standard deviation over samples; 1 is all, 0 erased. least: the mean over samples of
the worst frame. ghost: the share of contrast that appears where the lesion is half a heartbeat
later and is not now; 0 is none."""


@torch.no_grad()
def lesion_rows(
    run: Run, methods: Mapping[str, Method], acc: float, stop: StopRequest
) -> list[dict[str, Any]]:
    """Rows for `lesions.csv`: what each method keeps of each lesion in each frame of each test
    sample, with the masks of the test."""
    rows = []
    batches = evaluation_batches(run, run.parts["test"], (acc, acc), size=1)
    for batch in tqdm(batches, "lesions", len(run.parts["test"]), disable=None):
        truth = batch.target[0]
        path = find_path(truth)
        phase = batch.image.sgn() if batch.image.is_complex() else 1.0
        plain = {
            name: method(batch.aliased, batch.mask).abs()[0] for name, method in methods.items()
        }
        for diameter in DIAMETERS:
            for contrast in CONTRASTS:
                if stop:
                    raise Interrupted(f"stopped by {stop.reason} while testing", run.folder)
                added = lesion(truth, path, diameter, contrast)
                # undersampling is linear: the aliased image of the sum is the sum
                aliased = batch.aliased + undersample(added * phase, batch.mask)
                for name, method in methods.items():
                    difference = method(aliased, batch.mask).abs()[0] - plain[name]
                    kept = kept_contrast(difference, added).tolist()
                    ghost = ghost_contrast(difference, added).tolist()
                    rows += [
                        {
                            "sample": batch.samples[0],
                            "acc": acc,
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
class Kept:
    """What a method keeps of lesions of one diameter."""

    mean: float  # over samples, of the mean over frames and contrasts
    std: float  # over samples, n - 1; NaN for a single one
    least: float  # mean over samples of the worst frame
    ghost: float  # mean over all; NaN where it cannot be told

    def __str__(self) -> str:
        std = "" if np.isnan(self.std) else f"±{self.std:.2f}"
        ghost = "-" if np.isnan(self.ghost) else f"{self.ghost:.2f}"
        return f"{self.mean:.2f}{std}, {self.least:.2f}, {ghost}"


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[float, Kept]]:
    """{method: {diameter: what it keeps}} of the rows of `lesions.csv`; without the diameters of
    which nothing could be added to any sample."""
    samples: dict[tuple[str, float], dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        if not np.isnan(row["kept"]):
            by_sample = samples.setdefault((row["method"], row["diameter"]), {})
            by_sample.setdefault(row["sample"], []).append(row)
    found: dict[str, dict[float, Kept]] = {row["method"]: {} for row in rows}
    for (method, diameter), by_sample in samples.items():
        kept = np.array([np.mean([row["kept"] for row in own]) for own in by_sample.values()])
        ghosts = np.array([row["ghost"] for own in by_sample.values() for row in own])
        ghosts = ghosts[~np.isnan(ghosts)]
        found[method][diameter] = Kept(
            mean=float(kept.mean()),
            std=spread(kept),
            least=float(np.mean([min(row["kept"] for row in own) for own in by_sample.values()])),
            ghost=float(ghosts.mean()) if len(ghosts) else float("nan"),
        )
    return found


def lesion_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of kept, least and ghost, a line for each method, and what they mean."""
    title = f"Lesion test, acceleration {rows[0]['acc']:g}, by diameter in pixels"
    heads = ["method", *(f"{diameter:g}: kept, least, ghost" for diameter in DIAMETERS)]
    table = [heads]
    for method, kept in summary(rows).items():
        table.append([method, *(str(kept.get(diameter, "-")) for diameter in DIAMETERS)])
    lines = ["  ".join(f"{cell:<22}" for cell in cells).rstrip() for cells in table]
    return [title, *lines, *MEANING.splitlines()]
