"""Pictures of a reconstructed scan: the heart, and its motion along both axes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from evaluation.heart_view import HeartView, find_heart
from report.figures import ERROR_CMAP, default_style, error_scale
from report.pictures import write_figure, write_film
from scan.reconstruction import TRAINING_FREE, Reconstruction
from util.plotting import Figure

TRUTH = "fully sampled"


def write_scan_pictures(folder: Path, result: Reconstruction, dpi: int) -> None:
    """`cine.gif` and `profiles.png` of a series."""
    series = shown_series(result)
    compared = result.truth is not None
    view = find_heart(torch.from_numpy(series[TRUTH if compared else result.network]))
    write_film(folder, series, view, compared)
    write_figure(folder / "profiles.png", scan_figure(series, view, compared, result.name), dpi)


def shown_series(result: Reconstruction) -> dict[str, np.ndarray]:
    """The magnitudes (T, Y, X) to show, the truth first if it is known, the network's last; divided
    by the maximum of the truth, or of the network's images."""
    names = [TRAINING_FREE[0], result.best, result.network]
    shown = {name: result.images[name].abs() for name in names}
    if result.truth is not None:
        shown = {TRUTH: result.truth.abs(), **shown}
    peak = shown[TRUTH if result.truth is not None else result.network].max()
    return {name: (images / peak).numpy() for name, images in shown.items()}


@default_style
def scan_figure(
    series: Mapping[str, np.ndarray], view: HeartView, compared: bool, title: str
) -> Figure:
    """The heart in two frames, and two beats along a line in either direction through it.

    Args:
        series: (T, Y, X) by method; the first is the truth, if they are `compared`: then the errors
            are shown too.
        view: the place of the heart, and its gray window.
    """
    truth, *_ = (view.crop(images) for images in series.values())
    labels = [*view.frames, "y over two beats", "x over two beats"]
    if compared:
        scale = error_scale(series, view)
        labels += [f"error, frame {view.farthest + 1}"]
    figure = Figure(figsize=(2.4 * len(series) + 0.6, 2.3 * len(labels)), layout="constrained")
    axes = figure.subplots(len(labels), len(series), squeeze=False)
    gray = {"cmap": "gray", "vmin": view.window[0], "vmax": view.window[1]}
    middle = view.size // 2
    for column, (name, images) in zip(axes.T, series.items(), strict=True):
        heart = view.crop(images)
        column[0].set_title(name, fontsize=10)
        column[0].imshow(heart[0], **gray)
        column[1].imshow(heart[view.farthest], **gray)
        for axis, profile in zip(column[2:4], (heart[:, :, middle], heart[:, middle]), strict=True):
            axis.imshow(np.tile(profile, (2, 1)).T, aspect="auto", **gray)
        if compared and name != TRUTH:
            error = np.abs(heart - truth)[view.farthest]
            shown = column[4].imshow(error, cmap=ERROR_CMAP, vmin=0, vmax=scale)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label, fontsize=8)
    for axis, draw in ((axes[0, 0], "axvline"), (axes[1, 0], "axhline")):
        getattr(axis, draw)(middle, color="orange", linewidth=1)
    if compared:
        axes[4, 0].axis("off")
        bar = figure.colorbar(shown, ax=axes[4, 0], location="left", fraction=0.5, extend="max")
        bar.set_label(f"|method - {TRUTH}|", fontsize=8)
    low, high = view.window
    figure.suptitle(f"{title}: the heart, gray window {low:.2f} to {high:.2f}", fontsize=11)
    return figure
