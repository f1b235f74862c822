"""Figures of images, masks and profiles: arrays in, a matplotlib `Figure` out.

Images are (T, Y, X), or (Y, X) for one frame, on one gray window for all frames. Figures have the
default style of matplotlib, whatever the user's settings, with letters of at least `POINTS`. Their
`width` is in inches: that of a column of a journal, or of two. Only `imsshow`, which a user calls,
shows or saves anything.
"""

import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluation.heart_view import HeartView
from report.names import in_words
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
ERROR_CMAP = "inferno"
SMALLEST_SCALE = 0.02  # of errors
SHOWN_ERRORS = 0.995  # quantile of the errors that a scale shows
TILE = 2.0  # inches of a frame, at most
COLUMNS = 4  # of motion profiles
COIL = 0.9  # inches of the maps of a coil, about
LINES = 0.6  # height of a profile over its width
POINTS = 7  # of letters, at least: nearly 10 pixels at 100 pixels per inch
BARS = (1, 2, 5, 10, 20, 50, 100)  # mm, lengths of scale bars
LONGEST_BAR = 1 / 3  # of the image


def letters(points: float):
    """A decorator, and a context: the default style, whose smallest letters have this size. Vector
    files have their text as text, and are the same every time."""
    text = {"font.size": points, "axes.titlesize": "medium", "axes.formatter.useoffset": False}
    files = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "cine"}
    return style.context(["default", text | files])


default_style = letters(POINTS)


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
            axis.set_title(titles[i], pad=2)
    if colorbar:
        figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.01)
    if title:
        figure.suptitle(title)
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
    """The frames of |reconstruction - target|, on a scale that fits them and that the title and the
    colour bar state."""
    scale = fitting_scale(error)
    title = f"{title}, 0 to {scale:g}"
    return frames_figure(error, cmap=ERROR_CMAP, window=(0, scale), colorbar=True, title=title)


@default_style
def profiles_figure(
    series: Mapping[str, np.ndarray], row: int, column: int, width: float
) -> Figure:
    """The first frame of the truth with two lines, and the motion along them by method: y over time
    above, along which the aliasing is, and x over time below.

    Args:
        series: (T, Y, X) by method, the truth first.
        row, column: of the lines along x and along y.
    """
    n_frames, ny, nx = next(iter(series.values())).shape
    n_columns = min(COLUMNS, 1 + len(series))
    n_blocks = math.ceil((1 + len(series)) / n_columns)  # of two rows
    side = (width - 0.8) / n_columns
    figure = Figure(figsize=(width, (2 * side + 0.6) * n_blocks), layout="constrained")
    axes = figure.subplots(2 * n_blocks, n_columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    # (2 blocks, columns) to a pair of axes for each panel
    above, *pairs = zip(axes[::2].flat, axes[1::2].flat, strict=True)
    place, gray = above[0], {"cmap": "gray", "vmin": WINDOW[0], "vmax": WINDOW[1]}
    place.imshow(series[next(iter(series))][0], **gray)
    place.axhline(row, color="orange", linewidth=1)
    place.axvline(column, color="orange", linewidth=1)
    place.set_title(wrapped("place in frame 1", side))
    panels = zip(pairs[: len(series)], series.items(), strict=True)
    for i, ((along_y, along_x), (name, images)) in enumerate(panels):
        lines = {"y": (along_y, images[:, :, column], ny), "x": (along_x, images[:, row], nx)}
        for direction, (axis, profile, n) in lines.items():
            axis.set_axis_on()
            axis.imshow(profile.T, aspect="auto", extent=over_time(n_frames, n), **gray)
            axis.xaxis.set_major_locator(whole_ticks(side))
            axis.yaxis.set_major_locator(whole_ticks(side))
            is_first = i == 0 or (i + 1) % n_columns == 0  # in its row
            axis.tick_params(labelleft=is_first, labelbottom=axis is along_x)
            axis.set_ylabel(f"{direction} (pixel)" if is_first else "")
        along_y.set_title(heading(name, side))
        along_x.set_xlabel("frame")
    return figure


def whole_ticks(inches: float) -> MaxNLocator:
    """Ticks at whole numbers, as many as an axis has place for."""
    return MaxNLocator(max(2, int(2 * inches)), integer=True, steps=(1, 2, 5, 10))


def over_time(n_frames: int, n: int) -> tuple[float, float, float, float]:
    """The edges of an image of `n` pixels over frames, which count from 1."""
    return 0.5, n_frames + 0.5, n - 0.5, -0.5


@default_style
def mask_figure(mask: np.ndarray, nx: int, width: float) -> Figure:
    """Lines (T, Y) of one sample: every frame's mask drawn `nx` wide, and all over time."""
    rows = math.ceil(len(mask) / 5)
    figure = Figure(figsize=(width, 0.4 + rows * (0.14 * width + 0.17)), layout="constrained")
    figure.set_facecolor("0.85")  # so that white lines at a border are visible
    left, right = figure.subfigures(1, 2, width_ratios=(5, 2), squeeze=False)[0]
    axes = grid_of_axes(left, len(mask), num_col=5)
    for t, (axis, lines) in enumerate(zip(axes, mask, strict=False)):
        axis.imshow(np.repeat(lines[:, None], nx, axis=1), cmap="gray", vmin=0, vmax=1)
        axis.set_title(f"frame {t + 1}", pad=2)
    left.suptitle("measured lines of each frame")
    axis, (n_frames, ny) = right.subplots(), mask.shape
    axis.imshow(
        mask.T, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="none",
        extent=over_time(n_frames, ny),
    )  # fmt: skip
    axis.xaxis.set_major_locator(whole_ticks(width / 5))
    axis.set(xlabel="frame", ylabel="line ky")
    right.suptitle("lines over time")
    return figure


@default_style
def maps_figure(maps: np.ndarray, width: float) -> Figure:
    """Magnitude and phase of sensitivity maps (C, Y, X) complex; grey where they are zero."""
    num_col = min(max(1, round(width / COIL)), len(maps))
    rows = -(-len(maps) // num_col)
    side = min(TILE, (width - 1) / num_col)
    size = side * num_col + 1, (2 * side + 0.2) * rows + 0.2
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2 * rows, num_col, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    magnitude, phase = np.abs(maps), np.ma.masked_where(maps == 0, np.angle(maps))
    drawn = {}
    for i in range(len(maps)):
        row, column = 2 * (i // num_col), i % num_col
        axes[row, column].set_title(f"coil {i + 1}", pad=2)
        drawn["magnitude"] = axes[row, column].imshow(magnitude[i], cmap="gray", vmin=0, vmax=1)
        drawn["phase"] = axes[row + 1, column].imshow(
            phase[i], cmap="twilight", vmin=-np.pi, vmax=np.pi
        )
    for name, image in drawn.items():
        figure.colorbar(image, ax=axes, label=name, shrink=0.6, aspect=20)
    return figure


@default_style
def heart_figure(
    series: Mapping[str, np.ndarray],
    view: HeartView,
    title: str,
    width: float,
    compared: bool = True,
) -> Figure:
    """The heart in two frames, its errors, and two beats along a line in either direction.

    Args:
        series: (T, Y, X) by method; the first is the truth, if they are `compared`: else there are
            no errors.
        view: the place of the heart, its gray window, and a scale bar if the pixels are known.
        width: at most.
    """
    names, middle = list(series), view.size // 2
    truth = view.crop(series[names[0]])
    scale = error_scale(series, view) if compared else 1.0
    moments = [view.moment(frame) for frame in view.frames.values()]
    errors = [f"error, {moment}" for moment in moments] if compared else []
    below = ["place in frame", ""] if compared else []
    labels = [*view.frames, *below, "y over two beats", "x over two beats"]
    margin = 0.7 if compared else 0.4  # inches of the labels
    side = min(TILE, (width - margin) / len(names))
    heights = [1.0] * (len(labels) - 2) + [LINES] * 2
    size = side * len(names) + margin, side * sum(heights) + 0.7
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(labels), len(names), squeeze=False, height_ratios=heights)
    gray = {"cmap": "gray", "vmin": view.window[0], "vmax": view.window[1]}
    for column, name in zip(axes.T, names, strict=True):
        images = view.crop(series[name])
        column[0].set_title(heading(name, side))
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
    for axis, label, height in zip(axes[:, 0], labels, heights, strict=True):
        axis.set_ylabel(wrapped(label, side * height))
    for axis, draw in ((axes[0, 0], "axvline"), (axes[1, 0], "axhline")):
        getattr(axis, draw)(middle, color="orange", linewidth=1)
    draw_scale_bar(axes[1, 0], view)  # where its corner is free
    if view.frame_time is not None:
        axes[-1, 0].set_xlabel(f"{2 * len(truth) * view.frame_time:.0f} ms")
    if compared:
        draw_place(axes[2, 0], series[names[0]][0], view)
        axes[3, 0].axis("off")
        place = axes[3, 0].inset_axes((0.05, 0.6, 0.85, 0.12))
        bar = figure.colorbar(
            shown, cax=place, orientation="horizontal", extend="max", ticks=(0, scale)
        )
        bar.set_ticklabels(["0", f"{scale:g}"])
        bar.set_label(wrapped(f"error: |method - {names[0]}|", side))
        for axis, label in zip(axes[2:4, 1], errors, strict=True):
            axis.set_ylabel(wrapped(label, side))
    low, high = view.window
    window = f"{title}: the heart, gray window {low:.2f} to {high:.2f}"
    figure.suptitle(wrapped(window, size[0]))
    return figure


def heading(method: str, inches: float) -> str:
    """The name of a method in words, above a panel."""
    return wrapped(in_words(method), inches)


def wrapped(text: str, inches: float) -> str:
    """A text in lines that fit; letters are a little wider than half their size."""
    n_letters = max(1, int(inches * 72 / (0.58 * POINTS)))
    return textwrap.fill(text, n_letters, break_long_words=False, break_on_hyphens=False)


def draw_scale_bar(axis: Axes, view: HeartView) -> None:
    """A bar of a round length in a corner of the heart, if the size of its pixels is known."""
    if view.pixel_width is None:
        return
    fitting = [mm for mm in BARS if mm <= LONGEST_BAR * view.size * view.pixel_width]
    if not fitting:
        return
    left, bottom, thickness = 0.05 * view.size, 0.95 * view.size, 0.02 * view.size
    bar = Rectangle((left, bottom), fitting[-1] / view.pixel_width, -thickness, color="white")
    axis.add_patch(bar)
    axis.text(left, bottom - 2 * thickness, f"{fitting[-1]} mm", color="white", va="bottom")


def draw_place(axis: Axes, frame: np.ndarray, view: HeartView) -> None:
    """A whole frame (Y, X), with the square around the heart."""
    axis.imshow(frame, aspect=view.aspect, cmap="gray", vmin=0, vmax=1)
    outline = Rectangle((view.left, view.top), view.size, view.size, fill=False, color="orange")
    axis.add_patch(outline)


def error_scale(series: Mapping[str, np.ndarray], view: HeartView) -> float:
    """The highest error shown: one that fits the errors of the methods, except zero-filling."""
    truth, *_ = series.values()
    errors = [
        np.abs(view.crop(images) - view.crop(truth))
        for name, images in list(series.items())[1:]
        if name != "zero_filled" or len(series) == 2
    ]
    return fitting_scale(np.stack(errors))


def fitting_scale(errors: np.ndarray) -> float:
    """A round number above nearly all errors, of at most two digits, the second of them 0 or 5."""
    finite = np.nan_to_num(errors, posinf=0.0)
    highest = max(SMALLEST_SCALE, float(np.quantile(finite, SHOWN_ERRORS)))
    step = 10.0 ** math.floor(math.log10(highest)) / 2
    return round(math.ceil(highest / step - 1e-9) * step, 6)
