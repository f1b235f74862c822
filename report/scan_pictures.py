"""Pictures of a reconstructed scan: the heart, its motion along both axes, and a film."""

from pathlib import Path

import numpy as np
import torch

from evaluation.heart_view import find_heart
from report.figures import heart_figure
from report.pictures import write_figure, write_film
from scan.reconstruction import TRAINING_FREE, Reconstruction

TRUTH = "fully sampled"


def write_scan_pictures(folder: Path, result: Reconstruction, dpi: int) -> None:
    """`cine.gif` and `heart.png` of a series."""
    series = shown_series(result)
    compared = result.truth is not None
    view = find_heart(torch.from_numpy(series[TRUTH if compared else result.network]))
    write_film(folder, series, view, compared)
    write_figure(folder / "heart.png", heart_figure(series, view, result.name, compared), dpi)


def shown_series(result: Reconstruction) -> dict[str, np.ndarray]:
    """The magnitudes (T, Y, X) to show, the truth first if it is known, the network's last; divided
    by the maximum of the truth, or of the network's images."""
    names = [TRAINING_FREE[0], result.best, result.network]
    shown = {name: result.images[name].abs() for name in names}
    if result.truth is not None:
        shown = {TRUTH: result.truth.abs(), **shown}
    peak = shown[TRUTH if result.truth is not None else result.network].max()
    return {name: (images / peak).numpy() for name, images in shown.items()}
