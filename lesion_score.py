"""The lesion test of a run: how much of a small lesion's contrast each method keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from batches import evaluation_batches
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


def lesion_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of kept, least and ghost, a line for each method, and what they mean."""
    title = f"Lesion test, acceleration {rows[0]['acc']:g}, by diameter in pixels"
    lines = [title, "  ".join(f"{name:<22}" for name in ("method", *map(_heading, DIAMETERS)))]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [f"{method:<22}"]
        for diameter in DIAMETERS:
            own = [
                row
                for row in rows
                if row["method"] == method
                and row["diameter"] == diameter
                and not np.isnan(row["kept"])
            ]
            by_sample = [
                [r for r in own if r["sample"] == sample]
                for sample in dict.fromkeys(r["sample"] for r in own)
            ]
            if not own:
                cells.append(f"{'-':<22}")
                continue
            kept = [np.mean([r["kept"] for r in part]) for part in by_sample]
            least = np.mean([min(r["kept"] for r in part) for part in by_sample])
            ghosts = [r["ghost"] for r in own if not np.isnan(r["ghost"])]
            spread = f"±{np.std(kept, ddof=1):.2f}" if len(kept) > 1 else ""
            ghost = f"{np.mean(ghosts):.2f}" if ghosts else "-"
            cells.append(f"{f'{np.mean(kept):.2f}{spread} {least:.2f} {ghost}':<22}")
        lines.append("  ".join(cells).rstrip())
    return lines + MEANING.splitlines()


def _heading(diameter: float) -> str:
    return f"{diameter:g}: kept least ghost"
