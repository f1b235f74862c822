"""Figures of training: its curves, and the heart while a network is trained.

Images are (T, Y, X), a `width` is in inches; see `report/figures.py`.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.bench import Reference
from evaluation.heart_view import HeartView
from evaluation.held_out import WITHOUT_TRUTH
from metrics import SCORES
from report.figures import ERROR_CMAP, default_style, letters, whole_ticks
from report.names import in_words
from util.plotting import Figure, MaxNLocator

PROGRESS_ERROR_WINDOW = (0.0, 0.1)  # of errors in training: the same in every picture
THUMBNAIL_POINTS = 13  # of letters in pictures that TensorBoard shows at half their size


@default_style
def curves_figure(
    history: Sequence[Mapping[str, float]], reference: Reference | None, width: float
) -> Figure:
    """The loss, the other scores that are logged, and the learning rate by epoch; the PSNR of the
    reference is drawn as a line."""
    panels: dict[str, tuple[str, ...]] = {"loss": ("train/loss", "validation/loss")}
    columns = {f"validation/{k}": score for k, score in {**WITHOUT_TRUTH, **SCORES}.items()}
    del columns["validation/loss"]
    there = {name for entry in history for name in entry} & columns.keys()
    for column, score in columns.items():
        known = column in there if there else column.removeprefix("validation/") in SCORES
        if known and score.logged:
            panels[score.title] = (column,)
    panels["learning rate"] = ("learning_rate",)
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(width, (0.8 + 0.22 * width) * rows), layout="constrained")
    for axis, (label, names) in zip(figure.subplots(rows, 2).flat, panels.items(), strict=False):
        for name in names:
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            if points:
                axis.plot(
                    *zip(*points, strict=True), label=name, marker="." if len(points) < 50 else ""
                )
        if reference and names == (reference.column,):
            name = in_words(reference.method)
            axis.axhline(reference.value, color="0.4", linestyle="--", label=name)
        axis.xaxis.set_major_locator(whole_ticks(width / 3))
        axis.set(
            xlabel="epoch", ylabel=label, yscale="log" if label.startswith("loss") else "linear"
        )
        axis.grid(alpha=0.3)
        if len(axis.lines) > 1:
            axis.legend()
    return figure


@letters(THUMBNAIL_POINTS)
def progress_figure(
    series: Mapping[str, np.ndarray], view: HeartView, title: str, compared: bool = True
) -> Figure:
    """The heart while a network is trained: two frames, its motion over two beats, the error.

    The scales are the same for every epoch.

    Args:
        series: (T, Y, X) by name: the truth first, if they are `compared`, the reconstruction last.
        view: of the truth, or of the reconstruction.
    """
    truth, *_, reconstruction = (view.crop(images) for images in series.values())
    panels = {name: view.crop(images) for name, images in series.items()}
    if compared:
        panels["error"] = np.abs(reconstruction - truth)
    figure = Figure(figsize=(1.3 * len(panels) + 1.3, 4.8))
    axes = figure.subplots(3, len(panels), squeeze=False)
    # by hand: a layout engine takes as long as the rest
    figure.subplots_adjust(left=0.08, right=0.87, top=0.79, bottom=0.01, wspace=0.05, hspace=0.05)
    for column, (name, images) in enumerate(panels.items()):
        gray = name != "error"
        low, high = view.window if gray else PROGRESS_ERROR_WINDOW
        scale = {"cmap": "gray" if gray else ERROR_CMAP, "vmin": low, "vmax": high}
        axes[0, column].set_title(name)
        axes[0, column].imshow(images[0], **scale)
        axes[1, column].imshow(images[view.farthest], **scale)
        profile = np.tile(images[:, :, view.size // 2], (2, 1))  # (2 T, Y)
        shown = axes[2, column].imshow(profile.T, aspect="auto", **scale)
    labels = [view.moment(0), view.moment(view.farthest), "two beats"]
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label)
    for axis in axes[:2, 0]:
        axis.axvline(view.size // 2, color="orange", linewidth=1)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    place = figure.add_axes((0.885, 0.2, 0.015, 0.5))
    figure.colorbar(shown, cax=place, extend="max", ticks=MaxNLocator(2))
    figure.suptitle(title)
    return figure
