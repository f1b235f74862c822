"""Figures of images, masks, profiles and curves: arrays in, a matplotlib `Figure` out.

Images are (T, Y, X), or (Y, X) for one frame, on one gray window for all frames. Figures have the
default style of matplotlib, whatever the user's settings. Only `imsshow`, which a user calls, shows
or saves anything.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluation.bench import Reference
from evaluation.heart_view import HeartView
from metrics import SCORES
from util.plotting import (
    Axes,
    Figure,
    FigureBase,
    MaxNLocator,
    Rectangle,
    matplotlib,
    style,
)

WINDOW = (0.0, 1.0)  # the range of the data: the same in every picture
ERROR_WINDOW = (0.0, 0.2)  # of |reconstruction - target|: the same in every picture
PROGRESS_ERROR_WINDOW = (0.0, 0.1)  # of the same while a network is trained
ERROR_CMAP = "inferno"
TILE = 2.0  # inches per frame
SMALLEST_SCALE = 0.02  # of errors

default_style = style.context("default")  # a decorator, and a context


@default_style
def imsshow(
    images: np.ndarray,
    titles: Sequence[str] | None = None,
    num_col: int = 5,
    cmap: str = "gray",
    window: tuple[float, float] | None = WINDOW,
    colorbar: bool = False,
    dpi: int = 100,
    save_path: str | Path | None = None,
) -> None:
    """Show a grid of frames, or save it.

    Args:
        images: (T, Y, X), or (Y, X) for one; complex images by their magnitude.
        titles: one for each frame, or None.
        num_col: frames in a row.
        window: gray values (lowest, highest), one for all frames; None for the range of `images`.
        colorbar: draw one.
        dpi: pixels per inch; a frame is two inches.
        save_path: write a picture there instead of showing it.
    """
    images = np.abs(images) if np.iscomplexobj(images) else np.asarray(images)
    window = window or (float(images.min()), float(images.max()))
    if save_path is not None:
        frames_figure(images, titles, num_col, cmap, window, colorbar).savefig(save_path, dpi=dpi)
    elif matplotlib.get_backend().lower() == "agg":
        print("imsshow: no screen to show images on; give save_path to save them", file=sys.stderr)
    else:
        from matplotlib import pyplot  # only here, because it needs the user's backend

        figure = pyplot.figure(dpi=dpi)
        frames_figure(images, titles, num_col, cmap, window, colorbar, figure=figure)
        pyplot.show()


@default_style
def frames_figure(
    images: np.ndarray,
    titles: Sequence[str] | None = None,
    num_col: int = 5,
    cmap: str = "gray",
    window: tuple[float, float] = WINDOW,
    colorbar: bool = False,
    title: str | None = None,
    figure: Figure | None = None,
) -> Figure:
    """A grid of the frames of (T, Y, X), or of one (Y, X), all on the same window."""
    images = images[None] if images.ndim == 2 else images
    if images.ndim != 3 or len(images) == 0:
        raise ValueError(f"images must be (T, Y, X) or (Y, X), got {images.shape}")
    columns = min(num_col, len(images))
    rows = math.ceil(len(images) / columns)
    figure = figure or Figure()
    figure.set_size_inches(TILE * columns + colorbar, TILE * rows + (0.4 if title or titles else 0))
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    axes = grid_of_axes(figure, len(images), num_col)
    for i, (axis, image) in enumerate(zip(axes, images, strict=False)):
        shown = axis.imshow(image, cmap=cmap, vmin=window[0], vmax=window[1], interpolation="none")
        if titles is not None:
            axis.set_title(titles[i], fontsize=8, pad=2)
    if colorbar:
        figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.01)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def grid_of_axes(parent: FigureBase, n: int, num_col: int) -> list[Axes]:
    """Axes without frames, row by row, enough for `n` images, at most `num_col` in a row."""
    columns = min(num_col, n)
    axes = parent.subplots(math.ceil(n / columns), columns, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.axis("off")
    return axes


@default_style
def error_figure(error: np.ndarray, title: str) -> Figure:
    """The frames of |reconstruction - target|, on a fixed scale with its colour bar."""
    return frames_figure(error, cmap=ERROR_CMAP, window=ERROR_WINDOW, colorbar=True, title=title)


@default_style
def profiles_figure(profiles: Mapping[str, np.ndarray], frame: np.ndarray, row: int) -> Figure:
    """The target's first frame (Y, X) with the row drawn, and the x-t profiles (T, X) by method."""
    figure = Figure(figsize=(3.2 + 2.2 * len(profiles), 3.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(profiles), squeeze=False)[0]
    axes[0].imshow(frame, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
    axes[0].axhline(row, color="orange", linewidth=1)
    axes[0].set_title(f"target, frame 0, row {row}", fontsize=9)
    axes[0].axis("off")
    for axis, (name, profile) in zip(axes[1:], profiles.items(), strict=True):
        axis.imshow(profile.T, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], aspect="auto")
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("frame", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[1].set_ylabel("x (pixel)", fontsize=8)
    return figure


@default_style
def mask_figure(mask: np.ndarray, nx: int) -> Figure:
    """Lines (T, Y) of one sample: every frame's mask drawn `nx` wide, and the ky-t view."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    figure.set_facecolor("0.85")  # so that white lines at a border are visible
    left, right = figure.subfigures(1, 2, width_ratios=(3, 1), squeeze=False)[0]
    axes = grid_of_axes(left, len(mask), num_col=5)
    for t, (axis, lines) in enumerate(zip(axes, mask, strict=False)):
        axis.imshow(np.repeat(lines[:, None], nx, axis=1), cmap="gray", vmin=0, vmax=1)
        axis.set_title(f"frame {t}", fontsize=8, pad=2)
    left.suptitle("masks, k-space of every frame", fontsize=10)
    axis = right.subplots()
    axis.imshow(mask.T, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="none")
    axis.set(xlabel="frame", ylabel="phase-encoding line ky", title="ky-t sampling pattern")
    return figure


@default_style
def maps_figure(maps: np.ndarray) -> Figure:
    """Magnitude and phase of sensitivity maps (C, Y, X) complex; grey where they are zero."""
    num_col = min(8, len(maps))
    rows = -(-len(maps) // num_col)
    figure = Figure(figsize=(1.6 * num_col + 1, 3.4 * rows + 0.4), layout="constrained")
    axes = figure.subplots(2 * rows, num_col, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    size, phase = np.abs(maps), np.ma.masked_where(maps == 0, np.angle(maps))
    drawn = {}
    for i in range(len(maps)):
        row, column = 2 * (i // num_col), i % num_col
        axes[row, column].set_title(f"coil {i}", fontsize=8, pad=2)
        drawn["magnitude"] = axes[row, column].imshow(size[i], cmap="gray", vmin=0, vmax=1)
        drawn["phase"] = axes[row + 1, column].imshow(
            phase[i], cmap="twilight", vmin=-np.pi, vmax=np.pi
        )
    for name, image in drawn.items():
        figure.colorbar(image, ax=axes, label=name, shrink=0.4, aspect=30)
    return figure


@default_style
def curves_figure(
    history: Sequence[Mapping[str, float]], reference: Reference | None = None
) -> Figure:
    """The loss, the other scores that are logged, and the learning rate by epoch; the PSNR of the
    reference is drawn as a line."""
    logged = {k: score.title for k, score in SCORES.items() if score.logged and k != "loss"}
    panels: dict[str, tuple[str, ...]] = {"loss": ("train/loss", "validation/loss")}
    panels |= {title: (f"validation/{name}",) for name, title in logged.items()}
    panels["learning rate"] = ("learning_rate",)
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(11, 3.5 * rows), layout="constrained")
    for axis, (label, names) in zip(figure.subplots(rows, 2).flat, panels.items(), strict=False):
        for name in names:
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            if points:
                axis.plot(
                    *zip(*points, strict=True), label=name, marker="." if len(points) < 50 else ""
                )
        if reference and names == ("validation/psnr",):
            axis.axhline(reference.psnr, color="0.4", linestyle="--", label=reference.method)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(
            xlabel="epoch", ylabel=label, yscale="log" if label.startswith("loss") else "linear"
        )
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    return figure


@default_style
def heart_figure(
    series: Mapping[str, np.ndarray], view: HeartView, title: str, compared: bool = True
) -> Figure:
    """The heart in two frames, its errors, and two beats along a line in either direction.

    Args:
        series: (T, Y, X) by method; the first is the truth, if they are `compared`: else there are
            no errors.
        view: the place of the heart, and its gray window.
    """
    names, middle = list(series), view.size // 2
    truth = view.crop(series[names[0]])
    errors = [f"error, frame {frame + 1}" for frame in view.frames.values()] if compared else []
    labels = [*view.frames, *errors, "y over two beats", "x over two beats"]
    figure = Figure(figsize=(2.4 * len(names) + 0.6, 2.35 * len(labels)), layout="constrained")
    axes = figure.subplots(len(labels), len(names), squeeze=False)
    gray = {"cmap": "gray", "vmin": view.window[0], "vmax": view.window[1]}
    scale = error_scale(series, view) if compared else 1.0
    for column, name in zip(axes.T, names, strict=True):
        images = view.crop(series[name])
        column[0].set_title(name, fontsize=10)
        for row, frame in enumerate(view.frames.values()):
            column[row].imshow(images[frame], aspect=view.aspect, **gray)
            if compared and name != names[0]:
                error = np.abs(images[frame] - truth[frame])
                shown = column[2 + row].imshow(
                    error, aspect=view.aspect, cmap=ERROR_CMAP, vmin=0, vmax=scale
                )
        for axis, profile in zip(
            column[-2:], (images[:, :, middle], images[:, middle]), strict=True
        ):
            axis.imshow(np.tile(profile, (2, 1)).T, aspect="auto", **gray)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label, fontsize=8)
    for axis, draw in ((axes[0, 0], "axvline"), (axes[1, 0], "axhline")):
        getattr(axis, draw)(middle, color="orange", linewidth=1)
    if compared:
        draw_place(axes[2, 0], series[names[0]][0], view)
        axes[3, 0].axis("off")
        bar = figure.colorbar(shown, ax=axes[3, 0], location="left", fraction=0.5, extend="max")
        bar.set_label(f"|method - {names[0]}|", fontsize=8)
        for axis, label in zip(axes[2:4, 1], errors, strict=True):
            axis.set_ylabel(label, fontsize=8)
    low, high = view.window
    figure.suptitle(f"{title}: the heart, gray window {low:.2f} to {high:.2f}", fontsize=11)
    return figure


def draw_place(axis: Axes, frame: np.ndarray, view: HeartView) -> None:
    """A whole frame (Y, X), with the square around the heart."""
    axis.imshow(frame, aspect=view.aspect, cmap="gray", vmin=0, vmax=1)
    outline = Rectangle((view.left, view.top), view.size, view.size, fill=False, color="orange")
    axis.add_patch(outline)
    axis.set_ylabel("place in frame", fontsize=8)


@default_style
def progress_figure(series: Mapping[str, np.ndarray], view: HeartView, title: str) -> Figure:
    """The heart while a network is trained: two frames, its motion over two beats, the error.

    The scales are the same for every epoch.

    Args:
        series: (T, Y, X) by name: the truth first, the reconstruction last.
        view: of the truth.
    """
    truth, *_, reconstruction = (view.crop(images) for images in series.values())
    panels = {name: view.crop(images) for name, images in series.items()}
    panels["error"] = np.abs(reconstruction - truth)
    figure = Figure(figsize=(1.3 * len(panels) + 0.9, 4.6))
    axes = figure.subplots(3, len(panels), squeeze=False)
    # by hand: a layout engine takes as long as the rest
    figure.subplots_adjust(left=0.08, right=0.9, top=0.86, bottom=0.01, wspace=0.05, hspace=0.05)
    for column, (name, images) in enumerate(panels.items()):
        gray = name != "error"
        low, high = view.window if gray else PROGRESS_ERROR_WINDOW
        scale = {"cmap": "gray" if gray else ERROR_CMAP, "vmin": low, "vmax": high}
        axes[0, column].set_title(name, fontsize=8)
        axes[0, column].imshow(images[0], **scale)
        axes[1, column].imshow(images[view.farthest], **scale)
        profile = np.tile(images[:, :, view.size // 2], (2, 1))  # (2 T, Y)
        shown = axes[2, column].imshow(profile.T, aspect="auto", **scale)
    labels = ["frame 1", f"frame {view.farthest + 1},\nfarthest from 1", "line over\ntwo beats"]
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label, fontsize=8)
    for axis in axes[:2, 0]:
        axis.axvline(view.size // 2, color="orange", linewidth=1)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    place = figure.add_axes((0.915, 0.2, 0.015, 0.5))
    figure.colorbar(shown, cax=place, extend="max").ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=9)
    return figure


def error_scale(series: Mapping[str, np.ndarray], view: HeartView) -> float:
    """The highest error shown: one that fits the errors of the methods, except zero-filling."""
    truth, *_ = series.values()
    errors = [
        np.abs(view.crop(images) - view.crop(truth))
        for name, images in list(series.items())[1:]
        if name != "zero_filled" or len(series) == 2
    ]
    return max(SMALLEST_SCALE, float(np.quantile(np.stack(errors), 0.995)))
